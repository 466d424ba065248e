"""The local record of sessions, runs, verdicts and billed time: facts that are only ever added."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, get_type_hints

from orchestrator.clouds.power import Provenance
from orchestrator.errors import LedgerDamaged, LedgerError
from orchestrator.records.ledgerschema import (
    Numbers,
    Pairs,
    connect,
    read,
    sessions_file,
    transaction,
    translated,
    written,
)

_GOING_ON = """
SELECT count(*) FROM run WHERE remote = ? AND EXISTS (SELECT 1 FROM run_event
WHERE run_event.run_id = run.run_id) AND NOT EXISTS (SELECT 1 FROM run_event
WHERE run_event.run_id = run.run_id AND state NOT IN ('queued', 'setting-up', 'running'))
"""


class Reporter(StrEnum):
    """Who says so: the VM's own record, or the laptop's opinion (`lost`, `unreachable`)."""

    VM = "vm"
    LAPTOP = "laptop"


@dataclass(frozen=True)
class SessionFact:
    """A period of paid practice, or an exam, began."""

    id: str
    name: str | None
    remote: str
    started_at: datetime


@dataclass(frozen=True)
class SessionEnd:
    session_id: str
    ended_at: datetime
    source: Provenance


@dataclass(frozen=True)
class RunFact:
    """What was about to be sent; recorded before anything is.

    Attributes:
        workspace: the folder's absolute path.
        snapshot: digest of the file tree.
        price_per_hour: None when the user did not say; `currency` is then empty.
        price_source: where the price was read.
    """

    run_id: str
    workspace: str
    category: str
    remote: str
    snapshot: str
    command: str
    submitted_at: datetime
    price_per_hour: Decimal | None
    currency: str
    price_source: str
    params: Pairs = ()
    session_id: str | None = None


@dataclass(frozen=True)
class RunEvent:
    """A run came into a state; each state once a run.

    Attributes:
        signal: the number of the signal that ended it.
    """

    run_id: str
    state: str
    at: datetime
    source: Reporter
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class ArtifactFact:
    """An output file was pulled and has the VM's sha256."""

    run_id: str
    path: str
    size_bytes: int
    sha256: str
    pulled_at: datetime


@dataclass(frozen=True)
class VerdictFact:
    """A model was graded.

    Attributes:
        sha256: the model's.
        run_id: None for a model that no known run made.
        outcome: `broken` says nothing about the model, the grader itself failed.
        points: 0-5; None without a grade.
        value: of `metric`; not-a-number is kept as None.
        versions: of the packages that graded.
    """

    id: str
    workspace: str
    category: str
    sha256: str
    run_id: str | None
    outcome: str
    points: int | None
    metric: str
    value: float | None
    thresholds: Numbers
    higher_is_better: bool | None
    reason: str
    size_bytes: int | None
    versions: Pairs
    graded_at: datetime


@dataclass(frozen=True)
class Promotion:
    """A model was put into the exam folder."""

    workspace: str
    category: str
    sha256: str
    at: datetime
    reason: str


@dataclass(frozen=True)
class SessionTerms:
    """What a session may cost and last.

    Attributes:
        budget: None for none; `currency` is then empty.
        ends_at: the hard end; None for none.
        idle_s: the machine is to be stopped after so long without work; None for never.
    """

    session_id: str
    budget: Decimal | None
    currency: str
    ends_at: datetime | None
    idle_s: float | None


@dataclass(frozen=True)
class StintFact:
    """A machine came on, or was found on, with the price it has from then on.

    Attributes:
        provenance: of the start.
        price_per_hour: None when unknown; `currency` is then empty.
        price_source, fetched_at: where and when the price was read.
        disk_per_hour: what the disk costs besides, also later, where known.
        minimum_s, step_s: how the provider counts.
    """

    id: str
    remote: str
    started_at: datetime
    provenance: Provenance
    price_per_hour: Decimal | None
    currency: str
    price_source: str
    region: str
    spot: bool
    fetched_at: datetime | None
    disk_per_hour: Decimal | None
    minimum_s: float
    step_s: float


@dataclass(frozen=True)
class StintEnd:
    """It went off, or nobody pays for it any more."""

    stint_id: str
    ended_at: datetime
    provenance: Provenance
    reason: str = ""


@dataclass(frozen=True)
class Sighting:
    """What a machine was found in.

    Attributes:
        power: the word of `power.Power`.
        boot: what tells this boot from the next; empty where only the cloud was asked.
        booted_at: when that began, by the machine's uptime; None where it was not told.
    """

    remote: str
    at: datetime
    power: str
    source: Provenance
    boot: str = ""
    reason: str = ""
    booted_at: datetime | None = None


@dataclass(frozen=True)
class ExamFact:
    """A session is an exam.

    Attributes:
        workspace: the folder's absolute path.
        seed: which problems it has.
        lasts_s: by its own clock, which a moved wall clock does not move.
        practice: whether metrics are shown.
        pass_points: what it takes to pass.
    """

    session_id: str
    workspace: str
    seed: int
    lasts_s: float
    practice: bool
    pass_points: int


@dataclass(frozen=True)
class ExamMark:
    """How much of an exam had passed, and what this laptop's clocks said then.

    Attributes:
        boot: what tells this boot of the laptop from the next; empty where nobody knows.
        up_s: since that boot, sleep included.
    """

    session_id: str
    at: datetime
    boot: str
    up_s: float
    passed_s: float


@dataclass(frozen=True)
class ExamEnd:
    """It was finished."""

    session_id: str
    at: datetime
    passed_s: float


@dataclass(frozen=True)
class AttemptFact:
    """A model was handed in; recorded before it is graded.

    Attributes:
        number: within the category, from 1.
        run_id: of the run that made it; None for a model that no known run made.
        snapshot: digest of the code that made it, or else of the code when it was handed in.
        passed_s: when, by the exam's clock.
    """

    session_id: str
    category: str
    number: int
    sha256: str
    run_id: str | None
    snapshot: str
    at: datetime
    passed_s: float

    @property
    def name(self) -> str:
        return f"{self.category}.{self.number}"


@dataclass(frozen=True)
class AttemptGrade:
    """What was handed in was graded; as in `VerdictFact`, but never `broken`."""

    session_id: str
    category: str
    number: int
    outcome: str
    points: int | None
    metric: str
    value: float | None
    reason: str
    graded_at: datetime


Fact = (
    SessionFact
    | SessionEnd
    | RunFact
    | RunEvent
    | ArtifactFact
    | VerdictFact
    | Promotion
    | SessionTerms
    | StintFact
    | StintEnd
    | Sighting
    | ExamFact
    | ExamMark
    | ExamEnd
    | AttemptFact
    | AttemptGrade
)
F = TypeVar("F", bound=Fact)

MONEY = (SessionFact, SessionTerms, SessionEnd, StintFact, StintEnd)
"""What only the ledger knows, and is kept beside it too."""

TABLES: dict[type[object], tuple[str, tuple[str, ...]]] = {
    SessionFact: ("session", ("id",)),
    SessionEnd: ("session_end", ("session_id",)),
    RunFact: ("run", ("run_id",)),
    RunEvent: ("run_event", ("run_id", "state")),
    ArtifactFact: ("artifact", ("run_id", "path")),
    VerdictFact: ("verdict", ("id",)),
    Promotion: ("promotion", ("workspace", "category", "sha256", "at")),
    SessionTerms: ("session_terms", ("session_id",)),
    StintFact: ("stint", ("id",)),
    StintEnd: ("stint_end", ("stint_id",)),
    Sighting: ("sighting", ("remote", "at", "source")),
    ExamFact: ("exam", ("session_id",)),
    ExamMark: ("exam_mark", ("session_id", "at")),
    ExamEnd: ("exam_end", ("session_id",)),
    AttemptFact: ("attempt", ("session_id", "category", "number")),
    AttemptGrade: ("attempt_grade", ("session_id", "category", "number")),
}


class Ledger:
    """One open ledger file, for one thread. Other processes may write to it at the same time.

    Every method raises `LedgerError` where the file cannot be read or written, and `LedgerDamaged`
    where what is in it makes no sense. What `add` returned from is on the disk, whatever happens to
    the process or the machine after that.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, file: object) -> None:
        self.path = path
        self._connection = connection
        self._file = file

    @classmethod
    def open(cls, path: Path) -> Self:
        """The ledger at `path`, made if there is none and migrated if it is of an older version."""
        file = _file(path)
        try:
            connection = connect(path)
        except LedgerError as error:
            if isinstance(error, LedgerDamaged) or file is None or _file(path) == file:
                raise
            # Set aside by another command in that moment.
            raise _made_again(path) from error
        ledger = cls(path, connection, file or _file(path))
        try:
            ledger._check_place()
        except LedgerDamaged:
            connection.close()
            raise
        return ledger

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, *facts: Fact) -> None:
        """Record the facts, all or none; one that is there already is left as it is.

        Raises:
            LedgerError: another fact has the same key, or a fact names a run or session that was
                not recorded. Only a run's state may be told twice in different words: the first
                report stands, because no later word of a VM may rewrite what was recorded.
        """
        with translated(self.path), transaction(self._connection, "IMMEDIATE"):
            new = [fact for fact in facts if self._add(fact)]
            if beside := [fact for fact in new if isinstance(fact, MONEY)]:
                # No workspace tells these; should the ledger be damaged, this file does.
                _append(sessions_file(self.path), "".join(f"{_line(fact)}\n" for fact in beside))
        # Afterwards: whoever set the file aside before has not seen these, and who does it from
        # now on finds in the workspaces what they tell.
        self._check_place()

    def _check_place(self) -> None:
        """Raises:
        LedgerDamaged: another command has set the file aside that is open here.
        """
        if _file(self.path) != self._file:
            raise _made_again(self.path)

    def _add(self, fact: Fact) -> bool:
        """Whether it was not there."""
        kind: type[Fact] = type(fact)
        table, key = TABLES[kind]
        try:
            row = {name: written(getattr(fact, name)) for name in _KINDS[kind]}
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            added = self._connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({marks})",  # noqa: S608 - our own names
                tuple(row.values()),
            )
        except (ValueError, OverflowError) as error:
            raise LedgerError(f"the ledger cannot hold {fact}") from error
        if added.rowcount == 0 and kind is not RunEvent:
            where = " AND ".join(f"{name} = ?" for name in key)
            (known,) = self._select(kind, where, *(row[name] for name in key))
            if known != _fact(kind, tuple(row.values())):
                raise LedgerError(
                    f"the ledger already has another {table} {row[key[0]]}",
                    cause=f"recorded is {known}, and new is {fact}",
                )
        return added.rowcount > 0

    def runs(
        self,
        workspace: str | None = None,
        category: str | None = None,
        remote: str | None = None,
        since: datetime | None = None,
    ) -> tuple[RunFact, ...]:
        """By the time they were submitted; `since` is included."""
        return self._select(
            RunFact,
            "workspace = ifnull(?, workspace) AND category = ifnull(?, category)"
            " AND remote = ifnull(?, remote) AND submitted_at >= ? ORDER BY submitted_at, rowid",
            *(workspace, category, remote, "" if since is None else written(since)),
        )

    def count_going_on(self, remote: str) -> int:
        """How many runs were submitted there and are not known to have ended."""
        ((count,),) = self.query(_GOING_ON, remote)
        return int(count)

    def run(self, run_id: str) -> RunFact | None:
        return next(iter(self._select(RunFact, "run_id = ?", run_id)), None)

    def remote_of(self, run_id: str) -> str:
        """The name of the remote a run was sent to; empty where nobody recorded it."""
        fact = self.run(run_id)
        return fact.remote if fact else ""

    def events(self, run_id: str) -> tuple[RunEvent, ...]:
        """In the order they were recorded: a VM's clock may jump."""
        return self._select(RunEvent, "run_id = ? ORDER BY rowid", run_id)

    def artifacts(self, run_id: str) -> tuple[ArtifactFact, ...]:
        """By path."""
        return self._select(ArtifactFact, "run_id = ? ORDER BY path", run_id)

    def artifact(self, run_id: str, path: str) -> ArtifactFact | None:
        where = "run_id = ? AND path = ?"
        return next(iter(self._select(ArtifactFact, where, run_id, path)), None)

    def verdicts(self, workspace: str, category: str) -> tuple[VerdictFact, ...]:
        """By the time of grading."""
        return self._select(
            VerdictFact,
            "workspace = ? AND category = ? ORDER BY graded_at, rowid",
            *(workspace, category),
        )

    def promotions(self, workspace: str, category: str) -> tuple[Promotion, ...]:
        """By time: the last one stands in the exam folder."""
        return self._select(
            Promotion, "workspace = ? AND category = ? ORDER BY at, rowid", workspace, category
        )

    def sessions(self, remote: str | None = None) -> tuple[SessionFact, ...]:
        """By their start."""
        return self._select(
            SessionFact, "remote = ifnull(?, remote) ORDER BY started_at, rowid", remote
        )

    def session(self, session_id: str) -> SessionFact | None:
        return next(iter(self._select(SessionFact, "id = ?", session_id)), None)

    def open_sessions(self, remote: str | None = None) -> tuple[SessionFact, ...]:
        """Those without an end, by their start."""
        return self._select(
            SessionFact,
            "remote = ifnull(?, remote) AND id NOT IN (SELECT session_id FROM session_end)"
            " ORDER BY started_at, rowid",
            remote,
        )

    def session_end(self, session_id: str) -> SessionEnd | None:
        """None while it goes on."""
        return next(iter(self._select(SessionEnd, "session_id = ?", session_id)), None)

    def terms(self, session_id: str) -> SessionTerms | None:
        return next(iter(self._select(SessionTerms, "session_id = ?", session_id)), None)

    def stints(self, remote: str | None = None) -> tuple[StintFact, ...]:
        """By their start."""
        return self._select(
            StintFact, "remote = ifnull(?, remote) ORDER BY started_at, rowid", remote
        )

    def last_stint(self, remote: str) -> StintFact | None:
        where = "remote = ? ORDER BY started_at DESC, rowid DESC LIMIT 1"
        return next(iter(self._select(StintFact, where, remote)), None)

    def stint_ends(self, remote: str | None = None) -> tuple[StintEnd, ...]:
        return self._select(
            StintEnd,
            "stint_id IN (SELECT id FROM stint WHERE remote = ifnull(?, remote)) ORDER BY ended_at",
            remote,
        )

    def last_sighting(
        self, remote: str, *powers: str, until: datetime | None = None
    ) -> Sighting | None:
        """The last that was recorded, or the last in one of these states, or no later than then.

        By the order they were recorded in: a laptop's clock may be set back.
        """
        among = f" AND power IN ({', '.join('?' * len(powers))})" if powers else ""
        before = "" if until is None else " AND at <= ?"
        where = f"remote = ?{among}{before} ORDER BY rowid DESC LIMIT 1"
        values = (remote, *powers, *(() if until is None else (written(until),)))
        return next(iter(self._select(Sighting, where, *values)), None)

    def exam(self, workspace: str) -> ExamFact | None:
        """The last one that began there."""
        where = "workspace = ? ORDER BY rowid DESC LIMIT 1"
        return next(iter(self._select(ExamFact, where, workspace)), None)

    def exam_marks(self, session_id: str) -> tuple[ExamMark, ...]:
        """By what had passed."""
        return self._select(ExamMark, "session_id = ? ORDER BY passed_s, rowid", session_id)

    def exam_end(self, session_id: str) -> ExamEnd | None:
        """None while it was not finished."""
        return next(iter(self._select(ExamEnd, "session_id = ?", session_id)), None)

    def attempts(self, session_id: str) -> tuple[AttemptFact, ...]:
        """As they were handed in."""
        return self._select(AttemptFact, "session_id = ? ORDER BY passed_s, rowid", session_id)

    def attempt_grades(self, session_id: str) -> tuple[AttemptGrade, ...]:
        return self._select(AttemptGrade, "session_id = ? ORDER BY rowid", session_id)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of what is kept, as they stand in the file; for sums that SQL makes faster."""
        with translated(self.path):
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def at_once(self, *, writing: bool = False) -> Iterator[None]:
        """What is read meanwhile is of one moment, and what is written is there whole or not."""
        with (
            translated(self.path),
            transaction(self._connection, "IMMEDIATE" if writing else "DEFERRED"),
        ):
            yield

    def check(self) -> None:
        """Read all of it, which takes a while; for when there is doubt.

        Raises:
            LedgerDamaged: some of it cannot be read.
        """
        for (said,) in self.query("PRAGMA integrity_check"):
            if said != "ok":
                raise LedgerDamaged(f"the ledger {self.path} is damaged: {said}")
        for kind in TABLES:
            self._select(kind, "1")  # type: ignore[type-var]

    def unreadable(self, table: str) -> LedgerDamaged:
        return LedgerDamaged(f"the ledger {self.path} has a {table} nobody can read")

    def _select(self, kind: type[F], where: str, *values: object) -> tuple[F, ...]:
        table, _ = TABLES[kind]
        names = ", ".join(_KINDS[kind])
        with translated(self.path):
            rows = self._connection.execute(
                f"SELECT {names} FROM {table} WHERE {where}",  # noqa: S608 - our own names
                values,
            ).fetchall()
        try:
            return tuple(_fact(kind, row) for row in rows)
        except (ValueError, ArithmeticError, TypeError, AttributeError) as error:
            raise self.unreadable(table) from error


# The columns of each, which are its fields, with their types.
_KINDS: dict[type[object], dict[str, Any]] = {fact: get_type_hints(fact) for fact in TABLES}


def _fact(fact: type[F], row: tuple[object, ...]) -> F:
    kinds = _KINDS[fact]
    return fact(**{name: read(kinds[name], value) for name, value in zip(kinds, row, strict=True)})


def _line(fact: Fact) -> str:
    return json.dumps([type(fact).__name__, json.loads(to_text(fact))])


def read_money(ledger: Path) -> tuple[tuple[Fact, ...], int]:
    """What was kept of sessions and stints beside a ledger, and how many lines nobody can read."""
    kinds: dict[str, type[Fact]] = {kind.__name__: kind for kind in MONEY}
    try:
        lines = sessions_file(ledger).read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return (), 0
    facts: list[Fact] = []
    for line in lines:
        # A line that a crash cut short has nothing behind it, or the next line glued to it.
        with suppress(ValueError, KeyError, TypeError):
            name, values = json.loads(line)
            facts.append(from_text(kinds[name], json.dumps(values)))
    return tuple(dict.fromkeys(facts)), len(lines) - len(facts)


def _append(path: Path, text: str) -> None:
    with open(path, "a", encoding="ascii", opener=_private) as file:  # its mode
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def to_text(fact: Fact) -> str:
    """A fact as JSON, for `from_text`."""
    return json.dumps({name: written(getattr(fact, name)) for name in _KINDS[type(fact)]})


def from_text(kind: type[F], text: str) -> F:
    """Raises:
    ValueError: it is no such fact.
    """
    try:
        values = json.loads(text)
        return _fact(kind, tuple(values[name] for name in _KINDS[kind]))
    except (ArithmeticError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"no {kind.__name__}: {text[:80]!r}") from error


def _made_again(path: Path) -> LedgerDamaged:
    return LedgerDamaged(f"the ledger {path} was damaged and has been made again")


def _file(path: Path) -> object:
    """Which file is there; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
