"""What grows with use: files in a tree, runs in the ledger."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from bench.commands import PYTHON, python
from bench.figures import OURS, Figure
from bench.programs import PEERS_FOLDER, Peers, Train
from bench.race import Heat, Step
from bench.taken import Taken
from bench.trees import Tree, configure
from bench.vm import COLD, STORE, Vm
from orchestrator.ledger import Ledger, Reporter, RunEvent, RunFact
from orchestrator.mirror import Seen
from orchestrator.plan import make_run_id
from remote.protocol import RunReport
from remote.record import to_bytes
from remote.runfolder import RunRequest, RunState, State

NAME = "growth"
RTTS_MS = (0,)
FILES = (100, 1000, 10_000, 100_000)
RUNS = (10, 100, 1000, 10_000, 100_000)
_QUICK = 2
_REPEATS = 3
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
# Runs side by side and an hour each, as they are in practice: three an hour.
_EVERY = timedelta(minutes=20)
_LENGTH = timedelta(hours=1)
_CATEGORIES = 5
# Recorded at a time: what this process once held is the least a child's peak memory can read.
_BATCH = 1000
_DIGEST = "0" * 64


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    repeats = 1 if quick else _REPEATS
    for files in FILES[:_QUICK] if quick else FILES:
        yield from _files(vm, folder / f"{files}-files", files, repeats)
    yield from _runs(vm, folder / "runs", RUNS[:_QUICK] if quick else RUNS, repeats)


def _files(vm: Vm, folder: Path, files: int, repeats: int) -> Iterator[Figure]:
    """Sync and launch with nothing changed."""
    workspace = folder / "workspace"
    Tree(files, 100).make(workspace)
    train, peers = Train(vm, workspace, folder / "home"), Peers(vm, workspace)
    train.add_remote()
    train.launch()
    peers.rsync(COLD)
    heat = Heat(NAME, f"{files:,} files, unchanged", vm, repeats)
    yield from heat.race({OURS: Step(train.launch), "rsync, cold": Step(lambda: peers.rsync(COLD))})
    vm.forget(STORE, PEERS_FOLDER)
    shutil.rmtree(folder)


def _runs(vm: Vm, folder: Path, counts: tuple[int, ...], repeats: int) -> Iterator[Figure]:
    """Commands in a workspace with that many runs, all ended."""
    train = Train(vm, folder / "workspace", folder / "home")
    configure(train.workspace)
    train.add_remote()
    made = 0
    for count in counts:
        for first in range(made, count, _BATCH):
            _record(train, range(first, min(first + _BATCH, count)))
        made = count
        for words in (["status", "--local"], ["cost"]):

            def command(words: list[str] = words) -> Taken:
                return train.run(*words)

            heat = Heat(NAME, f"{count:,} runs, train {' '.join(words)}", vm, repeats)
            yield from heat.race({OURS: Step(command), PYTHON: Step(lambda: python(folder))})


def _record(train: Train, numbers: range) -> None:
    """What the laptop keeps of these runs: facts in the ledger, and a folder each."""
    facts: list[RunFact | RunEvent] = []
    for number in numbers:
        category = f"category{number % _CATEGORIES}"
        at = _FIRST + number * _EVERY
        run_id = make_run_id(category, at, f"{number:05x}")
        workspace = str(train.workspace)
        facts += [
            RunFact(
                run_id,
                workspace,
                category,
                "vm",
                _DIGEST,
                "true",
                at,
                Decimal("0.50"),
                "USD",
                "user",
            ),
            RunEvent(run_id, "queued", at, Reporter.VM),
            RunEvent(run_id, "running", at, Reporter.VM),
            RunEvent(run_id, "succeeded", at + _LENGTH, Reporter.VM, exit_code=0),
        ]
        _mirror(train.workspace, RunRequest(run_id, category, _DIGEST, "true"), at)
    with Ledger.open(train.home / "ledger.sqlite3") as ledger:
        ledger.add(*facts)


def _mirror(workspace: Path, request: RunRequest, at: datetime) -> None:
    """Not by `Mirrors`, which waits for the disk at each file."""
    start, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (at, at + _LENGTH))
    state = RunState(State.SUCCEEDED, start, "boot", None, start, end, exit_code=0)
    report = RunReport(request.run_id, request.job, alive=False, stamp="1", state=state)
    folder = workspace / ".train" / "runs" / request.run_id
    folder.mkdir(parents=True)
    (folder / "request.json").write_bytes(to_bytes(request))
    (folder / "seen.json").write_bytes(to_bytes(Seen(report, end, "boot")))
