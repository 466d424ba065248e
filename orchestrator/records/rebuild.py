"""A ledger made again, of what the workspaces keep of their runs.

A damaged one is set aside under a dated name and never deleted. What stands nowhere else is lost,
and told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.declared import accept
from orchestrator.errors import LedgerDamaged, LedgerError
from orchestrator.filelock import alone
from orchestrator.records.events import run_events
from orchestrator.records.ledger import (
    ArtifactFact,
    Fact,
    Ledger,
    Reporter,
    RunEvent,
    RunFact,
    from_text,
    read_money,
    to_text,
)
from orchestrator.records.ledgerschema import sessions_file, side_files, workspaces_file
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.records.shelf import Shelf
from remote import clock
from remote.atomic import replace_file, sync_folder
from remote.runfolder import State

# How many runs are named of which nothing is known any more.
_NAMED = 5


def keep_beside(fact: RunFact, mirror: Mirror, ledger: Path) -> None:
    """Keep with the run what the ledger is about to be told of it, and where runs are kept."""
    replace_file(mirror.recorded, to_text(fact).encode("ascii"))
    if fact.workspace not in _workspaces(ledger):
        # Added, because another workspace's command may do so at this moment. After a crash the
        # file may end in a part of a line.
        with workspaces_file(ledger).open("ab", buffering=0) as file:
            file.write(f"\n{json.dumps(fact.workspace)}\n".encode("ascii"))
            os.fsync(file.fileno())
        sync_folder(ledger.parent)


@dataclass(frozen=True)
class Rebuilt:
    """What became of a damaged ledger.

    Attributes:
        aside: the damaged file's new name; None where there was none.
        workspaces: the folders whose runs were looked at.
        away: folders that are gone, and their runs with them.
        unknown: runs of which nobody knows any more where they were sent and at what price.
        unread: lines of what is kept of sessions that nobody can read.
    """

    aside: Path | None
    workspaces: tuple[str, ...]
    away: tuple[str, ...]
    runs: int
    artifacts: int
    unknown: tuple[str, ...]
    unread: int = 0

    def lines(self) -> Iterator[str]:
        """For the user: what was done, and what is lost."""
        if self.aside is not None:
            yield f"it is kept as {self.aside}"
        yield (
            f"a new one is made of what {', '.join(self.workspaces) or 'no workspace'} keeps: "
            f"{self.runs} runs, {self.artifacts} of the files they made"
        )
        yield "lost: all grades (train pull grades again), and that a model was chosen by --latest"
        if self.unknown:
            more = f" and {len(self.unknown) - _NAMED} more" if self.unknown[_NAMED:] else ""
            yield (
                f"lost: where {len(self.unknown)} runs were sent, and their prices: "
                f"{', '.join(self.unknown[:_NAMED])}{more}"
            )
        if self.unread:
            yield f"lost: {self.unread} of the records of sessions and of machines' paid time"
        if self.away:
            yield f"lost: the runs of folders that are not there: {', '.join(self.away)}"


def rebuild(path: Path, here: Path | None) -> Rebuilt | None:
    """Set a damaged ledger aside, and make another of what there is; None where it is sound.

    After a crash at any point the next command does it again, and no file is lost.

    Args:
        here: a workspace besides those that are known.

    Raises:
        LedgerError: it cannot be written.
        OSError: the folder cannot be written.
    """
    # Of several commands that meet the damage the first does it, and the others find it done.
    folder = path.with_name("rebuilding")
    with alone(folder / "lock"):
        if _is_sound(path):
            return None
        new = folder / path.name
        for left in (new, *side_files(new), sessions_file(new)):
            left.unlink(missing_ok=True)
        money, unread = read_money(path)
        rebuilt = _fill(new, (*_workspaces(path), *([str(here)] if here else ())), money)
        aside = _set_aside(path)
        os.replace(new, path)
        sync_folder(path.parent)
        return replace(rebuilt, aside=aside, unread=unread)


def _is_sound(path: Path) -> bool:
    try:
        with Ledger.open(path) as ledger:
            ledger.check()
    except LedgerDamaged:
        return False
    return True


def _set_aside(path: Path) -> Path | None:
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    aside = path.with_name(f"{path.name}.damaged-{now}")
    found = False
    # The file first: without it, what lies beside it is taken for damage too. Else a crash in
    # between would leave a file that has lost its last facts, and seems sound.
    for old, new in zip((path, *side_files(path)), (aside, *side_files(aside)), strict=True):
        with suppress(FileNotFoundError):
            old.rename(new)
            found = True
    return aside if found else None


def _workspaces(ledger: Path) -> tuple[str, ...]:
    """Those that are listed; a line that is none is passed over."""
    try:
        lines = workspaces_file(ledger).read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return tuple(name for name in found if isinstance(name, str))


def _fill(new: Path, workspaces: Iterable[str], money: Iterable[Fact]) -> Rebuilt:
    names = tuple(dict.fromkeys(workspaces))
    there = tuple(name for name in names if Path(name).is_dir())
    runs = artifacts = 0
    unknown: list[str] = []
    # A folder may be a copy of another, or the same by another name.
    found: set[str] = set()
    with Ledger.open(new) as ledger:
        _add_money(ledger, money)
        for name in there:
            state = Path(name) / ".train"
            shelf = Shelf(state)
            known: list[tuple[RunFact, Mirror]] = []
            for mirror in Mirrors(state).all():
                if mirror.run_id in found:
                    continue
                found.add(mirror.run_id)
                try:
                    known.append((_recorded(mirror, ledger), mirror))
                except (OSError, ValueError):
                    unknown.append(mirror.run_id)
            known.sort(key=lambda pair: pair[0].submitted_at)
            facts = [fact for run, mirror in known for fact in (run, *_told(run, mirror, shelf))]
            ledger.add(*facts)
            runs += len(known)
            artifacts += sum(isinstance(fact, ArtifactFact) for fact in facts)
    away = tuple(name for name in names if name not in there)
    return Rebuilt(None, there, away, runs, artifacts, tuple(unknown))


def _add_money(ledger: Ledger, facts: Iterable[Fact]) -> None:
    """Those that can be added: the start of one whose line was spoilt is missing to its end."""
    for fact in facts:
        with suppress(LedgerError):
            ledger.add(fact)


def _recorded(mirror: Mirror, ledger: Ledger) -> RunFact:
    mirror.request  # noqa: B018 - without it nobody knows what it was to make
    fact = from_text(RunFact, mirror.recorded.read_text("ascii"))
    if fact.run_id != mirror.run_id:
        raise ValueError(f"{mirror.recorded} tells of {fact.run_id}")
    sessions = {session.id for session in ledger.sessions()}
    return fact if fact.session_id in sessions else replace(fact, session_id=None)


def _told(run: RunFact, mirror: Mirror, shelf: Shelf) -> Iterator[Fact]:
    """What its VM said became of it, and the files that came home."""
    seen = mirror.seen
    if seen is None:
        return
    events = run_events(run.run_id, seen, run.submitted_at, mirror.last_use_at())
    if seen.report.state is None:
        # It was submitted, and nothing was heard since.
        at = max(clock.parse(seen.at), run.submitted_at)
        yield RunEvent(run.run_id, State.QUEUED.value, at, Reporter.LAPTOP)
    yield from events
    for artifact in accept(seen.report.artifacts, mirror.request.outputs):
        kept = shelf.find(artifact.sha256)
        if kept is not None:
            pulled_at = datetime.fromtimestamp(kept.stat().st_mtime, UTC)
            yield ArtifactFact(
                run.run_id, artifact.path, artifact.size_bytes, artifact.sha256, pulled_at
            )
