"""What the laptop keeps of a run: its request, its files as far as they came, the last report.

    .train/runs/<run id>/{request.json, seen.json, log, metrics.jsonl, usage.jsonl}

Each copied file is a prefix of the VM's, so its size says where to go on: after a cut at any byte
there is no gap and no repetition.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import AgentBroken
from remote import clock
from remote.atomic import replace_file
from remote.protocol import Offsets, Piece, RunReport
from remote.record import Malformed, from_bytes, to_bytes
from remote.runfolder import RunRequest, State, is_run_id

LOST = "lost"
UNKNOWN = "not sent"

_FILES = {"log": "log", "metrics": "metrics.jsonl", "usage": "usage.jsonl"}


@dataclass(frozen=True)
class Seen:
    """A report, when it came, and during which boot of the VM."""

    report: RunReport
    at: str
    boot_id: str


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

    def see(self, report: RunReport, boot_id: str) -> None:
        """Remember a report."""
        replace_file(self.folder / "seen.json", to_bytes(Seen(report, clock.now(), boot_id)))

    @property
    def verdict(self) -> str:
        """The run's state in one word, the laptop's opinion included."""
        seen = self.seen
        return UNKNOWN if seen is None else opinion(seen.report)

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
