"""What the laptop keeps of a run: its request, its files as far as they came, the last report.

    .train/runs/<run id>/{request.json, seen.json, log, metrics.jsonl, usage.jsonl}

Each copied file is a prefix of the VM's, so its size says where to go on: after a cut at any byte
there is no gap and no repetition.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import AgentBroken
from orchestrator.spec import find_model
from remote import clock
from remote.atomic import replace_file
from remote.protocol import Offsets, Piece, RunReport
from remote.record import Malformed, from_bytes, to_bytes
from remote.runfolder import RunRequest, State, is_run_id

# A sample of 16 GPUs is under 4 kB.
_LAST_SAMPLE_BYTES = 64_000

LOST = "lost"
UNKNOWN = "not sent"

_FILES = {"log": "log", "metrics": "metrics.jsonl", "usage": "usage.jsonl"}


@dataclass(frozen=True)
class Seen:
    """A report, and what is known about it.

    Attributes:
        at: when it came, by this laptop's clock.
        boot_id: of the VM then.
        clock_off_s: how far the VM's clock was before ours.
        gone: whether the VM has since said that it knows no such run.
    """

    report: RunReport
    at: str
    boot_id: str
    clock_off_s: float = 0.0
    gone: bool = False


@dataclass(frozen=True)
class Mirror:
    """One run's folder on the laptop."""

    folder: Path

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def request(self) -> RunRequest:
        return from_bytes(RunRequest, (self.folder / "request.json").read_bytes())

    @property
    def seen(self) -> Seen | None:
        """The last report; None if the VM never spoke of this run."""
        try:
            return from_bytes(Seen, (self.folder / "seen.json").read_bytes())
        except (FileNotFoundError, Malformed):
            return None

    @property
    def was_heard_of(self) -> bool:
        """Whether the VM ever spoke of this run, also where what it said can no longer be read."""
        return (self.folder / "seen.json").exists()

    def offsets(self) -> Offsets:
        """How far this laptop has read the run."""
        seen = self.seen
        sizes = {name: _size(self.folder / file) for name, file in _FILES.items()}
        return Offsets(self.run_id, seen=seen.report.stamp if seen else "", **sizes)

    def add(self, piece: Piece, data: bytes) -> None:
        """Write what came, at its place: two who follow the same run write the same bytes there.

        Raises:
            AgentBroken: it does not go on where our copy ends.
        """
        file = _FILES.get(piece.name)
        if file is None or not 0 <= piece.offset <= _size(self.folder / file):
            raise AgentBroken(f"a piece of {self.run_id} that was not asked for")
        (self.folder / file).touch()
        with (self.folder / file).open("r+b") as copy:
            copy.seek(piece.offset)
            copy.write(data)

    def see(self, report: RunReport, boot_id: str, clock_off_s: float = 0.0) -> None:
        """Remember a report."""
        self._remember(Seen(report, clock.now(), boot_id, clock_off_s))

    def miss(self) -> None:
        """Remember that the VM, which once had this run, has it no more."""
        if (seen := self.seen) is not None:
            self._remember(replace(seen, report=replace(seen.report, alive=False), gone=True))

    @property
    def settled(self) -> bool:
        """Whether the user has had its result: pulled, graded, placed, and told."""
        return (self.folder / "settled").exists()

    def settle(self) -> None:
        """From now on the same command means a new run."""
        (self.folder / "settled").touch()

    def last_use_at(self) -> str | None:
        """The time of the last sample of use that came, by the VM's clock."""
        try:
            with (self.folder / "usage.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _LAST_SAMPLE_BYTES))
                last = file.read().rsplit(b"\n", 2)[-2]
            at = json.loads(last)["at"]
            clock.parse(at)
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return str(at)

    def _remember(self, seen: Seen) -> None:
        replace_file(self.folder / "seen.json", to_bytes(seen))

    @property
    def verdict(self) -> str:
        """The run's state in one word, the laptop's opinion included."""
        seen = self.seen
        return UNKNOWN if seen is None else opinion(seen.report)

    @property
    def model_is_missing(self) -> bool:
        """Whether it succeeded without the model that its job declares."""
        seen = self.seen
        if seen is None or self.verdict != State.SUCCEEDED.value:
            return False
        model = find_model(self.request.outputs)
        return model is not None and model not in {a.path for a in seen.report.artifacts}

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen on the VM."""
        return self.verdict == LOST or is_final(self.verdict)


class Mirrors:
    """All runs of a workspace, as this laptop knows them."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "runs"

    def make(self, request: RunRequest) -> Mirror:
        """A new run's folder, with its request on the disk before anything is sent."""
        mirror = Mirror(self.folder / request.run_id)
        mirror.folder.mkdir(parents=True)
        replace_file(mirror.folder / "request.json", to_bytes(request))
        return mirror

    def all(self) -> tuple[Mirror, ...]:
        """By run id within the job, jobs by name."""
        if not self.folder.is_dir():
            return ()
        found = (Mirror(path) for path in sorted(self.folder.iterdir()) if is_run_id(path.name))
        return tuple(mirror for mirror in found if (mirror.folder / "request.json").exists())

    def get(self, run_id: str) -> Mirror | None:
        mirror = Mirror(self.folder / run_id)
        return mirror if is_run_id(run_id) and (mirror.folder / "request.json").exists() else None


def opinion(report: RunReport) -> str:
    """The VM's word; `lost` when the run's supervisor is gone and left no final state."""
    state = report.state.state if report.state is not None else State.QUEUED
    if state.final or report.alive:
        return state.value
    return LOST


def is_final(word: str) -> bool:
    """Whether a state's name is one that nothing follows."""
    return word in {state.value for state in State if state.final}


def why_lost(seen: Seen) -> str:
    """What became of a lost run, told by the boot in which it last wrote."""
    state = seen.report.state
    if seen.gone:
        return "the VM knows nothing of it any more; is it another machine now?"
    if state is None:
        return "it was accepted but never started"
    if state.boot_id and seen.boot_id and state.boot_id != seen.boot_id:
        return f"the VM restarted while it was {state.state.value}"
    return f"its supervisor was killed while it was {state.state.value}"


def age(seen: Seen) -> float:
    """Seconds since the report came."""
    return (datetime.now(UTC) - clock.parse(seen.at)).total_seconds()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
