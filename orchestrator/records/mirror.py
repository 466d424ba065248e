"""What the laptop keeps of a run: its request, its files as far as they came, the last report.

    .train/runs/<run id>/{request.json, seen.json, log, metrics.jsonl, usage.jsonl}
                        /{command, unsent, settled, trial}
                        /successor         the id of the run that goes on for it on another host
                        /recorded.json     as the ledger has it, which can be lost
    .train/settled                     names of settled runs, so that a hundred thousand of them
                                       need not be looked into to find the one that goes on

Each copied file is a prefix of the VM's, so its size says where to go on: after a cut at any byte
there is no gap and no repetition.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from orchestrator.costs.cost import LOST as LOST
from orchestrator.errors import AgentBroken
from orchestrator.screen.printable import printable
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import find_model
from remote import clock
from remote.atomic import naming, replace_file, sync_folder
from remote.protocol import Offsets, Piece, RunReport
from remote.record import Malformed, from_bytes, to_bytes
from remote.runfolder import (
    GIVEN_BACK,
    RunRequest,
    RunState,
    State,
    chief_id,
    gang_ids,
    is_run_id,
)
from remote.runfolder import why_lost as why_ended_unseen
from remote.usage import Usage

# A sample of 16 GPUs is under 4 kB.
_LAST_SAMPLE_BYTES = 64_000

UNKNOWN = "not heard of"

_FILES = {"log": "log", "metrics": "metrics.jsonl", "usage": "usage.jsonl"}


class Seen(NamedTuple):
    """A report, and what is known about it.

    Attributes:
        at: when it came, by this laptop's clock; until it changes the VM does not send it again.
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
    def usage(self) -> Path:
        return self.folder / "usage.jsonl"

    @cached_property
    def request(self) -> RunRequest:
        return from_bytes(RunRequest, (self.folder / "request.json").read_bytes())

    @property
    def recorded(self) -> Path:
        """Where it was sent and at what price, as the ledger was told."""
        return self.folder / "recorded.json"

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

    @property
    def unsent(self) -> bool:
        """Whether it is certain that no VM has started it; else it may have been, unheard."""
        return (self.folder / "unsent").exists()

    @property
    def is_known_unsent(self) -> bool:
        """Whether no VM has it, so that there is nobody to ask."""
        return self.unsent and not self.was_heard_of

    def note_unsent(self) -> None:
        """It did not get through to the VM, or the VM refused it."""
        (self.folder / "unsent").touch()

    def forget_unsent(self) -> None:
        """It is about to be sent, and after a crash it must not be thought otherwise."""
        (self.folder / "unsent").unlink(missing_ok=True)
        sync_folder(self.folder)

    def take_on(self, token: str) -> None:
        """From now on it is the business of the command with this token."""
        with naming(self.folder / "command"):
            (self.folder / "command").write_text(token)

    def is_taken_on_by(self, token: str) -> bool:
        try:
            return (self.folder / "command").read_text() == token
        except FileNotFoundError:
            return False

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
        path = self.folder / file
        path.touch()
        with naming(path), path.open("r+b") as copy:
            copy.seek(piece.offset)
            copy.write(data)

    def see(self, report: RunReport, boot_id: str, clock_off_s: float = 0.0) -> None:
        """Remember a report."""
        self._remember(Seen(report, clock.now(), boot_id, clock_off_s))

    def hear(self) -> None:
        """Note that the VM has just been asked, and that its report stands as it is here."""
        with suppress(FileNotFoundError):
            os.utime(self.folder / "seen.json")

    @property
    def heard_at(self) -> datetime | None:
        """When the VM last spoke of it, by this laptop's clock; None for never."""
        try:
            status = (self.folder / "seen.json").stat()
        except FileNotFoundError:
            return None
        return datetime.fromtimestamp(status.st_mtime, UTC)

    def miss(self) -> None:
        """Remember that the VM, which once had this run, has it no more."""
        if (seen := self.seen) is not None:
            self._remember(seen._replace(report=seen.report._replace(alive=False), gone=True))

    @property
    def is_gone(self) -> bool:
        """Whether the VM, when it was last asked, had it no more."""
        seen = self.seen
        return seen is not None and seen.gone

    def made_at(self) -> float:
        """When it was made, by this laptop's clock."""
        return (self.folder / "request.json").stat().st_mtime

    @property
    def settled(self) -> bool:
        """Whether the user has had its result: pulled, graded, placed, and told."""
        return (self.folder / "settled").exists()

    def settle(self) -> None:
        """From now on the same command means a new run."""
        (self.folder / "settled").touch()

    @property
    def is_trial(self) -> bool:
        """Whether a sweep made it, which takes home nothing but its best."""
        return (self.folder / "trial").exists()

    def note_trial(self) -> None:
        (self.folder / "trial").touch()

    @property
    def is_outdone(self) -> bool:
        """Whether its sweep is over and took home a better one, so that this may go with `gc`."""
        return (self.folder / "outdone").exists()

    def note_outdone(self) -> None:
        (self.folder / "outdone").touch()

    @property
    def successor(self) -> Mirror | None:
        """The run that does this one's work on another host; none until that one is made."""
        try:
            name = (self.folder / "successor").read_text("ascii")
        except (FileNotFoundError, ValueError):
            return None
        other = Mirror(self.folder.with_name(name)) if is_run_id(name) else self
        return other if other != self and (other.folder / "request.json").exists() else None

    def note_successor(self, run_id: str) -> None:
        """Before it is made: a kill in between leaves a name that nobody bears, and so no move."""
        replace_file(self.folder / "successor", run_id.encode("ascii"))

    @property
    def line(self) -> tuple[Mirror, ...]:
        """Itself, and those that went on with its work, one after the other."""
        met = [self]
        while (after := met[-1].successor) is not None and after not in met:
            met.append(after)
        return tuple(met)

    @property
    def last(self) -> Mirror:
        """The one that has its work by now; itself where it was not moved."""
        return self.line[-1]

    @property
    def is_given_back(self) -> bool:
        """Whether it ended so that another host can have its work."""
        seen = self.seen
        state = seen.report.state if seen else None
        return state is not None and (state.state, state.reason) == (State.CANCELLED, GIVEN_BACK)

    @property
    def has_begun(self) -> bool:
        """Whether it has left the queue, as far as is known here."""
        seen = self.seen
        state = seen.report.state if seen else None
        return state is not None and (state.setting_up_at is not None or state.restarts > 0)

    @property
    def rebooted_to(self) -> str:
        """The boot in which its VM was last seen, where it is not the one in which the run last
        wrote; else empty.
        """
        seen = self.seen
        state = seen.report.state if seen else None
        if seen is None or state is None or not state.boot_id:
            return ""
        return seen.boot_id if seen.boot_id != state.boot_id else ""

    @property
    def restarts_left(self) -> int:
        """How often its work may be started yet if it is now started elsewhere; below 0 where it
        may not. By what is known here of its starts.
        """
        seen = self.seen
        state = seen.report.state if seen else None
        used = state.restarts + 1 if state is not None and self.has_begun else 0
        return self.request.restarts - used

    def last_use_at(self) -> str | None:
        """The time of the last sample of use that came, by the VM's clock."""
        try:
            with self.usage.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _LAST_SAMPLE_BYTES))
                last = file.read().rsplit(b"\n", 2)[-2]
            at = from_bytes(Usage, last).at
            clock.parse(at)
        except (FileNotFoundError, ValueError, IndexError):
            return None
        return at

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
        return is_over(self.verdict)

    @property
    def goes_on(self) -> bool:
        """Whether more may come; of one that its VM never got nothing will, and one that was moved
        is not to.
        """
        verdict = self.verdict
        return verdict != UNKNOWN and not is_over(verdict) and self.successor is None


class Mirrors:
    """All runs of a workspace, as this laptop knows them."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "runs"
        self._settled = state / "settled"

    def make(self, request: RunRequest) -> Mirror:
        """A new run's folder, with its request on the disk before anything is sent."""
        mirror = Mirror(self.folder / request.run_id)
        # One without a request is of a command that was killed right here.
        is_made = (mirror.folder / "request.json").exists()
        mirror.folder.mkdir(parents=True, exist_ok=not is_made)
        replace_file(mirror.folder / "request.json", to_bytes(request))
        return mirror

    def all(self) -> tuple[Mirror, ...]:
        """By run id within the job, jobs by name."""
        return tuple(self._mirrors(sorted(self._names())))

    def get(self, run_id: str) -> Mirror | None:
        return next(self._mirrors([run_id]), None)

    def gang(self, mirror: Mirror) -> tuple[Mirror, ...]:
        """All of its gang that were made, the chief first; of a run without a gang, itself."""
        return tuple(self._mirrors(gang_ids(mirror.request)))

    def begun(self, text: str) -> Iterator[Mirror]:
        """Those whose run ids begin with `text`, a job's last run first; of one second, by their
        files' times, as in `latest`.
        """
        names = [name for name in self._names() if name.startswith(text)]
        names.sort(reverse=True)
        for _, same in groupby(names, key=lambda name: name.rpartition("-")[0]):
            yield from sorted(self._mirrors(same), key=Mirror.made_at, reverse=True)

    def latest(self, count: int) -> tuple[Mirror, ...]:
        """The last ones made, by the time in their run ids, and of one second by their files'. A
        gang counts as one.
        """
        moments = {name: run_moment(name) for name in self._names() if is_run_id(name)}
        last = heapq.nlargest(count, (at for name, at in moments.items() if name == chief_id(name)))
        found = self._mirrors(name for name, moment in moments.items() if moment >= last[-1])
        made = sorted(found, key=Mirror.made_at)
        last_made = [m.run_id for m in made if m.run_id == chief_id(m.run_id)][-count:]
        return tuple(mirror for mirror in made if chief_id(mirror.run_id) in last_made)

    def unsettled(self) -> tuple[Mirror, ...]:
        """Those whose result the user has not had.

        Only the runs' own files say so. The list of those known to be settled is a shortcut: it
        may lack some, after a crash or an older trainshed, and is added to here.
        """
        try:
            known = set(self._settled.read_text("ascii").split("\n"))
        except (OSError, ValueError):
            known = set()
        found = tuple(self._mirrors(sorted(set(self._names()) - known)))
        settled = {mirror.run_id for mirror in found if mirror.settled}
        if settled:
            # A line feed before each, too: after a crash the file may end in a part of a name.
            with suppress(OSError), self._settled.open("a", encoding="ascii") as file:
                file.write("".join(f"\n{run_id}\n" for run_id in sorted(settled)))
        return tuple(mirror for mirror in found if mirror.run_id not in settled)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)  # noqa: PTH208 - a Path for each takes far longer
        except FileNotFoundError:
            return []

    def _mirrors(self, names: Iterable[str]) -> Iterator[Mirror]:
        found = (Mirror(self.folder / name) for name in names if is_run_id(name))
        return (mirror for mirror in found if (mirror.folder / "request.json").exists())


def readable(mirrors: Iterable[Mirror], tell: Teller) -> tuple[Mirror, ...]:
    """Those whose request can be read; the others are told."""
    found = []
    for mirror in mirrors:
        try:
            mirror.request  # noqa: B018
        except (Malformed, OSError) as error:
            tell.warn(f"{mirror.folder / 'request.json'} cannot be read: {error}")
        else:
            found.append(mirror)
    return tuple(found)


def run_moment(run_id: str) -> str:
    """The time in a run id, as a text whose order is that of the times."""
    return run_id.rpartition("-")[0][-len("20260131-120000") :]


def opinion(report: RunReport) -> str:
    """The VM's word; `lost` when the run's supervisor is gone and left no final state."""
    state = report.state.state if report.state is not None else State.QUEUED
    if state.final or report.alive:
        return state.value
    return LOST


def is_final(word: str) -> bool:
    """Whether a state's name is one that nothing follows."""
    return word in {state.value for state in State if state.final}


def is_over(word: str) -> bool:
    """Whether a verdict says that nothing more will happen on the VM."""
    return word == LOST or is_final(word)


def why_lost(seen: Seen) -> str:
    """What became of a lost run, told by the boot in which it last wrote."""
    state = seen.report.state
    if seen.report.lost:
        return printable(seen.report.lost)
    if seen.gone:
        return "the VM knows nothing of it any more: it was removed there, or it is another machine"
    if state is None:
        return "it was accepted but never started"
    why = printable(why_ended_unseen(state, seen.boot_id))
    return f"{why}, {restarted_text(state)} before" if state.restarts else why


def restarted_text(state: RunState | None) -> str:
    """How often it was, for people; empty for never."""
    return f"restarted {state.restarts}x" if state is not None and state.restarts > 0 else ""


def age(at: datetime) -> float:
    """Seconds since then; 0 if this laptop's clock was put back since."""
    return max(0.0, (datetime.now(UTC) - at).total_seconds())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
