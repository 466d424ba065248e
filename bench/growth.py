"""What grows with use: files, runs, logs, remotes."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from bench.commands import PYTHON, python
from bench.figures import OURS, Figure
from bench.programs import PEERS_FOLDER, Peers, Train
from bench.race import Heat, Step
from bench.taken import Taken
from bench.trees import Tree, change, configure
from bench.vm import COLD, STORE, Vm
from orchestrator.plan import make_run_id
from orchestrator.records.ledger import Ledger, Reporter, RunEvent, RunFact
from orchestrator.records.mirror import Seen
from orchestrator.settings.config import format_remotes
from orchestrator.settings.spec import EnvSpec, Remote
from remote.protocol import RunReport
from remote.record import to_bytes
from remote.runfolder import RunRequest, RunState, State

NAME = "growth"
RTTS_MS = (0, 50)
FILES = (100, 1000, 10_000, 100_000)
RUNS = (10, 100, 1000, 10_000, 100_000)
LOG_BYTES = (10**6, 10**7, 10**8, 10**9)
# One server has all of these names: what it takes is this machine's own processors, too.
REMOTES = (1, 10, 100)
_QUICK = 2
_REPEATS = 5
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
# Runs side by side and an hour each, as they are in practice: three an hour.
_EVERY = timedelta(minutes=20)
_LENGTH = timedelta(hours=1)
_CATEGORIES = 5
# Recorded at a time: what this process once held is the least a child's peak memory can read.
_BATCH = 1000
_DIGEST = "0" * 64
_LINE = b"x" * 999 + b"\n"
_BLOCK_BYTES = 10**6


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """Remotes over a distance, all else without one."""
    repeats = 1 if quick else _REPEATS
    if vm.line.rtt_ms:
        yield from _remotes(vm, folder, REMOTES[:_QUICK] if quick else REMOTES, repeats)
        return
    for files in FILES[:_QUICK] if quick else FILES:
        yield from _files(vm, folder / f"{files}-files", files, repeats)
    yield from _runs(vm, folder / "runs", RUNS[:_QUICK] if quick else RUNS, repeats)
    yield from _logs(vm, folder / "logs", LOG_BYTES[:_QUICK] if quick else LOG_BYTES, repeats)


def _files(vm: Vm, folder: Path, files: int, repeats: int) -> Iterator[Figure]:
    """Sync and launch, and what the store of the VM holds then."""
    workspace = folder / "workspace"
    Tree(files, 100).make(workspace)
    train, peers = Train(vm, workspace, folder / "home"), Peers(vm, workspace)
    train.add_remote()
    train.launch()
    peers.rsync(COLD)
    heat = Heat(NAME, f"{files:,} files, unchanged", vm, repeats)
    yield from heat.race({OURS: Step(train.launch), "rsync, cold": Step(lambda: peers.rsync(COLD))})
    heat = Heat(NAME, f"{files:,} files, one changed", vm, repeats)
    yield from heat.race({OURS: Step(train.launch, lambda: change(workspace))})
    heat = Heat(NAME, f"{files:,} contents, train gc", vm, repeats)
    yield from heat.race({OURS: Step(lambda: train.run("gc", "vm"))})
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
            _record(train, range(first, min(first + _BATCH, count)), settled=True)
        made = count
        for words in (["status", "--local"], ["cost"]):

            def command(words: list[str] = words) -> Taken:
                return train.run(*words)

            heat = Heat(NAME, f"{count:,} runs, train {' '.join(words)}", vm, repeats)
            yield from heat.race({OURS: Step(command), PYTHON: Step(lambda: python(folder))})


def _logs(vm: Vm, folder: Path, sizes_bytes: tuple[int, ...], repeats: int) -> Iterator[Figure]:
    """The end of a log that is here, and following one that grows as fast as it can."""
    train = Train(vm, folder / "workspace", folder / "home")
    write = "i=0; while [ $i -lt $PARAM_blocks ]; do cat block; i=$((i+1)); done"
    configure(train.workspace, write)
    (train.workspace / "block").write_bytes(_LINE * (_BLOCK_BYTES // len(_LINE)))
    train.add_remote()
    _record(train, range(1))
    (run_folder,) = (train.workspace / ".train" / "runs").iterdir()
    for size_bytes in sizes_bytes:
        with (run_folder / "log").open("ab") as log:
            while log.tell() < size_bytes:
                log.write(_LINE * min(_BATCH, (size_bytes - log.tell()) // len(_LINE)))
        heat = Heat(NAME, f"{size_bytes:,} bytes, train logs --tail", vm, repeats)
        tail = ["logs", run_folder.name, "--tail", "10"]
        yield from heat.race({OURS: Step(lambda tail=tail: train.run(*tail))})  # type: ignore[misc]

        blocks = f"blocks={size_bytes // _BLOCK_BYTES}"
        follow = ["run", "--remote", "vm", "--param", blocks, "--param"]
        heat = Heat(NAME, f"{size_bytes:,} bytes, followed", vm, 1)
        yield from heat.race(
            {OURS: Step(lambda follow=follow: train.run(*follow, f"n={time.time_ns()}"))}  # type: ignore[misc]
        )
        vm.forget(STORE)


def _remotes(vm: Vm, folder: Path, counts: tuple[int, ...], repeats: int) -> Iterator[Figure]:
    """`status` of as many runs as remotes, each of which is asked about one."""
    for count in counts:
        train = Train(vm, folder / f"{count}" / "workspace", folder / f"{count}" / "home")
        configure(train.workspace)
        names = [f"vm{number}" for number in range(count)]
        remotes = [Remote(name, COLD, gpus=0, env=EnvSpec(sys.executable)) for name in names]
        train.home.mkdir()
        (train.home / "remotes.yaml").write_text(format_remotes(remotes))
        _record(train, range(count), names)
        runs = train.workspace / ".train" / "runs"

        def go_on(runs: Path = runs) -> None:
            """Whoever asked has learned that the VM does not know them."""
            for seen in runs.glob("*/seen.json"):
                seen.write_bytes(seen.with_name("first.json").read_bytes())

        for seen in runs.glob("*/seen.json"):
            first = seen.read_bytes().replace(b'"succeeded"', b'"running"')
            seen.with_name("first.json").write_bytes(first.replace(b"false", b"true", 1))
        heat = Heat(NAME, f"{count:,} remotes, train status --all", vm, repeats)
        step = Step(lambda train=train: train.run("status", "--all"), go_on)  # type: ignore[misc]
        yield from heat.race({OURS: step})


def _record(
    train: Train, numbers: range, remotes: Sequence[str] = ("vm",), *, settled: bool = False
) -> None:
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
                remotes[number % len(remotes)],
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
        folder = _mirror(train.workspace, RunRequest(run_id, category, _DIGEST, "true"), at)
        if settled:
            (folder / "settled").touch()
    with Ledger.open(train.home / "ledger.sqlite3") as ledger:
        ledger.add(*facts)


def _mirror(workspace: Path, request: RunRequest, at: datetime) -> Path:
    """Not by `Mirrors`, which waits for the disk at each file."""
    start, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (at, at + _LENGTH))
    state = RunState(State.SUCCEEDED, start, "boot", None, start, end, exit_code=0)
    report = RunReport(request.run_id, request.job, alive=False, stamp="1", state=state)
    folder = workspace / ".train" / "runs" / request.run_id
    folder.mkdir(parents=True)
    (folder / "request.json").write_bytes(to_bytes(request))
    (folder / "seen.json").write_bytes(to_bytes(Seen(report, end, "boot")))
    return folder
