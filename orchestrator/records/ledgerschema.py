"""The ledger's file: its tables, how an older one becomes a current one, how values stand in it.

A step of `STEPS` that was released is never edited: files made with it exist. A change is a new
step at the end. Only SQL of SQLite 3.26 is used: some systems with Python 3.11 have no newer one.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.errors import FULL, LedgerDamaged, LedgerError

Pairs = tuple[tuple[str, str], ...]
"""Names and values."""

Numbers = tuple[float, ...]

# In the file's header, so that another program's SQLite file is never taken for a ledger: "TRSH".
APPLICATION_ID = 0x54525348

# A `train` holds the lock for some milliseconds; the copy before a migration takes longer.
BUSY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Step:
    """What makes a file of the version before into one of this version.

    Attributes:
        trainshed: the first version of trainshed that can read the result; kept in the file, so
            that an older trainshed can say what it lacks.
        statements: one SQL statement each.
    """

    trainshed: str
    statements: tuple[str, ...]


def _fact_table(table: str, key: str, columns: str) -> tuple[str, ...]:
    """A table whose rows can be added and nothing else.

    A row whose key is there already is passed over. That makes adding repeatable, and it stops
    INSERT OR REPLACE, which deletes the old row without asking the DELETE trigger.
    """
    same = " AND ".join(f"{column} = NEW.{column}" for column in key.split(", "))
    known = f"SELECT 1 FROM {table} WHERE {same}"  # noqa: S608 - our own names
    refuse = "BEGIN SELECT RAISE(ABORT, 'facts are only ever added'); END"
    return (
        f"CREATE TABLE {table} ({columns}, PRIMARY KEY ({key}))",
        f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_unchanged BEFORE UPDATE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_once BEFORE INSERT ON {table} WHEN EXISTS ({known})"
        " BEGIN SELECT RAISE(IGNORE); END",
    )


# Times are ISO 8601 UTC with microseconds, money is a decimal, lists are JSON: all TEXT.
_FACTS_0_1 = (
    *_fact_table(
        "session",
        "id",
        "id TEXT NOT NULL, name TEXT, remote TEXT NOT NULL, started_at TEXT NOT NULL",
    ),
    *_fact_table(
        "session_end",
        "session_id",
        "session_id TEXT NOT NULL REFERENCES session, ended_at TEXT NOT NULL, source TEXT NOT NULL",
    ),
    *_fact_table(
        "run",
        "run_id",
        """run_id TEXT NOT NULL, workspace TEXT NOT NULL, category TEXT NOT NULL,
        remote TEXT NOT NULL, snapshot TEXT NOT NULL, command TEXT NOT NULL,
        submitted_at TEXT NOT NULL, price_per_hour TEXT, currency TEXT NOT NULL,
        price_source TEXT NOT NULL, params TEXT NOT NULL, session_id TEXT REFERENCES session""",
    ),
    *_fact_table(
        "run_event",
        "run_id, state",
        """run_id TEXT NOT NULL REFERENCES run, state TEXT NOT NULL, at TEXT NOT NULL,
        exit_code INTEGER, signal INTEGER, reason TEXT NOT NULL, source TEXT NOT NULL""",
    ),
    *_fact_table(
        "artifact",
        "run_id, path",
        """run_id TEXT NOT NULL REFERENCES run, path TEXT NOT NULL, size_bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL, pulled_at TEXT NOT NULL""",
    ),
    *_fact_table(
        "verdict",
        "id",
        """id TEXT NOT NULL, workspace TEXT NOT NULL, category TEXT NOT NULL,
        sha256 TEXT NOT NULL, run_id TEXT REFERENCES run, outcome TEXT NOT NULL, points INTEGER,
        metric TEXT NOT NULL, value REAL, thresholds TEXT NOT NULL, higher_is_better INTEGER,
        reason TEXT NOT NULL, size_bytes INTEGER, versions TEXT NOT NULL,
        graded_at TEXT NOT NULL""",
    ),
    *_fact_table(
        "promotion",
        "workspace, category, sha256, at",
        """workspace TEXT NOT NULL, category TEXT NOT NULL, sha256 TEXT NOT NULL,
        at TEXT NOT NULL, reason TEXT NOT NULL""",
    ),
    *_fact_table(
        "billed_interval",
        "id",
        """id TEXT NOT NULL, remote TEXT NOT NULL, session_id TEXT REFERENCES session,
        started_at TEXT NOT NULL, ended_at TEXT NOT NULL, price_per_hour TEXT,
        currency TEXT NOT NULL, provenance TEXT NOT NULL, disk_per_hour TEXT""",
    ),
)

# What each run has cost is no fact but follows from them. A price is kept here once it is known,
# and taken back by whatever event could change it: a run shares the machine's time with those
# that were on it together, so an event of one at a time unsettles all that ended after it.
_SETTLED = "started_at TEXT, ended_at TEXT, microseconds INTEGER, units INTEGER, nanos INTEGER"
_OF_RUN = "run_id, workspace, category, remote, session_id, submitted_at, currency"
_UNSETTLE = """UPDATE run_price SET started_at = NULL, ended_at = NULL, microseconds = NULL,
    units = NULL, nanos = NULL, estimated = NULL"""
_PRICES_0_1 = (
    f"""CREATE TABLE run_price (run_id TEXT NOT NULL REFERENCES run, workspace TEXT NOT NULL,
    category TEXT NOT NULL, remote TEXT NOT NULL, session_id TEXT, submitted_at TEXT NOT NULL,
    currency TEXT NOT NULL, {_SETTLED}, estimated INTEGER, PRIMARY KEY (run_id))""",
    "CREATE INDEX run_price_open ON run_price (run_id) WHERE estimated IS NULL",
    "CREATE INDEX run_price_end ON run_price (remote, ended_at)",
    f"""CREATE TRIGGER run_price_unsettled AFTER INSERT ON run_event BEGIN
    INSERT OR IGNORE INTO run_price ({_OF_RUN})
    SELECT {_OF_RUN} FROM run WHERE run_id = NEW.run_id;
    {_UNSETTLE} WHERE run_id = NEW.run_id;
    {_UNSETTLE} WHERE remote = (SELECT remote FROM run WHERE run_id = NEW.run_id)
    AND ended_at > (SELECT min(at) FROM run_event
    WHERE run_id = NEW.run_id AND state <> 'queued'); END""",  # noqa: S608 - our own names
    f"""INSERT INTO run_price ({_OF_RUN}) SELECT {_OF_RUN} FROM run
    WHERE EXISTS (SELECT 1 FROM run_event WHERE run_event.run_id = run.run_id)""",  # noqa: S608 - our own names
)

# Time that is paid for, by what was seen of each machine. The first table for it was never filled.
_STINTS_0_1 = (
    "DROP TABLE billed_interval",
    *_fact_table(
        "session_terms",
        "session_id",
        """session_id TEXT NOT NULL REFERENCES session, budget TEXT, currency TEXT NOT NULL,
        ends_at TEXT, idle_s REAL""",
    ),
    *_fact_table(
        "stint",
        "id",
        """id TEXT NOT NULL, remote TEXT NOT NULL, started_at TEXT NOT NULL,
        provenance TEXT NOT NULL, price_per_hour TEXT, currency TEXT NOT NULL,
        price_source TEXT NOT NULL, region TEXT NOT NULL, spot INTEGER NOT NULL, fetched_at TEXT,
        disk_per_hour TEXT, minimum_s REAL NOT NULL, step_s REAL NOT NULL""",
    ),
    *_fact_table(
        "stint_end",
        "stint_id",
        """stint_id TEXT NOT NULL REFERENCES stint, ended_at TEXT NOT NULL,
        provenance TEXT NOT NULL, reason TEXT NOT NULL""",
    ),
    *_fact_table(
        "sighting",
        "remote, at, source",
        """remote TEXT NOT NULL, at TEXT NOT NULL, power TEXT NOT NULL, source TEXT NOT NULL,
        boot TEXT NOT NULL, reason TEXT NOT NULL""",
    ),
)

# An exam is a session with a clock of its own, and models that were handed in. A run's id stands
# here without a reference: what was handed in counts, whatever became of the record of its run.
_EXAMS_0_1 = (
    *_fact_table(
        "exam",
        "session_id",
        """session_id TEXT NOT NULL REFERENCES session, workspace TEXT NOT NULL,
        seed INTEGER NOT NULL, lasts_s REAL NOT NULL, practice INTEGER NOT NULL,
        pass_points INTEGER NOT NULL""",
    ),
    *_fact_table(
        "exam_mark",
        "session_id, at",
        """session_id TEXT NOT NULL REFERENCES exam, at TEXT NOT NULL, boot TEXT NOT NULL,
        up_s REAL NOT NULL, passed_s REAL NOT NULL""",
    ),
    *_fact_table(
        "exam_end",
        "session_id",
        """session_id TEXT NOT NULL REFERENCES exam, at TEXT NOT NULL, passed_s REAL NOT NULL""",
    ),
    *_fact_table(
        "attempt",
        "session_id, category, number",
        """session_id TEXT NOT NULL REFERENCES exam, category TEXT NOT NULL,
        number INTEGER NOT NULL, sha256 TEXT NOT NULL, run_id TEXT, snapshot TEXT NOT NULL,
        at TEXT NOT NULL, passed_s REAL NOT NULL""",
    ),
    *_fact_table(
        "attempt_grade",
        "session_id, category, number",
        """session_id TEXT NOT NULL, category TEXT NOT NULL, number INTEGER NOT NULL,
        outcome TEXT NOT NULL, points INTEGER, metric TEXT NOT NULL, value REAL,
        reason TEXT NOT NULL, graded_at TEXT NOT NULL,
        FOREIGN KEY (session_id, category, number) REFERENCES attempt""",
    ),
)

# Met once in a boot, a machine needs no clock of its own to say when that boot ended.
_BOOTS_0_1 = ("ALTER TABLE sighting ADD COLUMN booted_at TEXT",)

STEPS: tuple[Step, ...] = (
    Step(
        "0.1.0",
        (
            "CREATE TABLE schema_step (version INTEGER PRIMARY KEY, trainshed TEXT NOT NULL)",
            *_FACTS_0_1,
        ),
    ),
    Step("0.1.0", _PRICES_0_1),
    Step("0.1.0", _STINTS_0_1),
    Step("0.1.0", _EXAMS_0_1),
    Step("0.1.0", _BOOTS_0_1),
)


def connect(path: Path, steps: Sequence[Step] = STEPS) -> sqlite3.Connection:
    """Open the ledger at `path`, made or migrated if need be; the caller closes it.

    An older file is first copied to `NAME.vVERSION.bak` next to it. A crash leaves the old file or
    the new one, and the same call again goes on from there.

    Raises:
        LedgerDamaged: not a ledger, damaged, or gone though there was one.
        LedgerError: of a newer trainshed or another program, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path)
    except IsADirectoryError as error:
        raise LedgerError(
            f"the ledger {path} is a folder", fix="move it away; a ledger is made"
        ) from error
    except OSError as error:
        is_full = error.errno in FULL
        fix = "free some disk space" if is_full else f"make {path.parent} a folder you can write to"
        raise LedgerError(f"cannot make the ledger {path}", fix=fix) from error
    with translated(path):
        # A URI, because a file that was set aside a moment ago must not be made anew, empty.
        place = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(place, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            # With NORMAL a power cut forgets the last commits, and a run that was paid for must
            # not be forgotten. There are a few facts a minute; each costs one fsync.
            connection.execute("PRAGMA synchronous = FULL")
            _bring_up_to_date(connection, path, steps)
        except BaseException:
            connection.close()
            raise
        return connection


def _make(path: Path) -> None:
    """An empty file where there was never a ledger.

    Raises:
        LedgerDamaged: there was one.
        OSError: it cannot be made, or a folder is in its place.
    """
    # In this order, because another process may be making the ledger: SQLite writes ahead only
    # when the file itself has its first page.
    sides = [side for side in side_files(path) if side.exists() and side.stat().st_size]
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and path.stat().st_size:
        return
    if sides or workspaces_file(path).exists():
        raise LedgerDamaged(f"the ledger {path} is {'empty' if path.exists() else 'gone'}")
    # Commands and parameters are in it: for the owner's eyes. SQLite gives its side files the same
    # mode.
    path.touch(mode=0o600)


def side_files(path: Path) -> tuple[Path, Path]:
    """What SQLite keeps beside a file that is in use, or was when its last user was killed."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def sessions_file(path: Path) -> Path:
    """Where the sessions and stints of this ledger are kept once more, a JSON text a line."""
    return path.with_name("sessions.jsonl")


def workspaces_file(path: Path) -> Path:
    """Where the folders are listed whose runs are in this ledger, a JSON text a line; none before
    the first run.
    """
    return path.with_name("workspaces")


def _bring_up_to_date(connection: sqlite3.Connection, path: Path, steps: Sequence[Step]) -> None:
    # One read transaction: another process may be making the file at this moment.
    with transaction(connection, "DEFERRED"):
        version = _version(connection, path, steps)
    _let_readers_in(connection)
    if version == len(steps):
        return
    with transaction(connection, "IMMEDIATE"):
        version = _version(connection, path, steps)
        if 0 < version < len(steps):
            _back_up(path, path.with_name(f"{path.name}.v{version}.bak"))
        for number, step in enumerate(steps[version:], version + 1):
            for statement in step.statements:
                connection.execute(statement)
            connection.execute("INSERT INTO schema_step VALUES (?, ?)", (number, step.trainshed))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(steps)}")


def _let_readers_in(connection: sqlite3.Connection) -> None:
    """Write ahead, so that a reader does not wait for a writer; kept in the file.

    SQLite switches only while nobody else uses the file, and does not wait for that (seen in 3.40,
    eight processes making one ledger). Then the mode stays, which is as safe, and the next one to
    open the ledger switches.
    """
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise


def _version(connection: sqlite3.Connection, path: Path, steps: Sequence[Step]) -> int:
    """The file's schema version; 0 for an empty one."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    ours = "SELECT 1 FROM sqlite_master WHERE name = 'schema_step'"
    strange = not empty and (owner != APPLICATION_ID or version <= 0)
    if strange and connection.execute(ours).fetchone():
        raise LedgerDamaged(f"the ledger {path} is damaged: its header is overwritten")
    if strange:
        raise LedgerError(
            f"{path} is an SQLite file of another program", fix="move it away; a ledger is made"
        )
    if version > len(steps):
        needed = connection.execute(
            "SELECT trainshed FROM schema_step WHERE version = ?", (version,)
        ).fetchone()
        if needed is None:
            raise LedgerDamaged(f"the ledger {path} is damaged: it has no version {version}")
        raise LedgerError(
            f"the ledger {path} has version {version}, and this trainshed knows {len(steps)}",
            fix=f"install trainshed {needed[0]} or later",
        )
    return version


def _back_up(path: Path, target: Path) -> None:
    """Copy the ledger as it was last committed; never a half copy under the final name."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    # SQLite's own copy, because the newest facts may be in the -wal file; and a second connection,
    # because the first one holds the lock that keeps others from writing.
    with (
        closing(sqlite3.connect(path.absolute())) as source,
        closing(sqlite3.connect(part)) as copy,
    ):
        source.backup(copy)
    os.replace(part, target)


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """All or nothing; inside another one, a part of that."""
    is_part = connection.in_transaction
    if is_part:
        yield
        return
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # SQLite itself rolls back on a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into what the user can do.

    Source: result codes, sqlite.org/rescode.html; the low byte is the primary code.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
            case sqlite3.SQLITE_NOTADB:
                raise LedgerDamaged(f"{path} is not a ledger") from error
            case sqlite3.SQLITE_CORRUPT:
                raise LedgerDamaged(f"the ledger {path} is damaged") from error
            case sqlite3.SQLITE_BUSY:
                message = f"the ledger {path} was locked for {BUSY_TIMEOUT_S:.0f} s"
                fix = "wait for the other train command, or end it"
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                message = f"the ledger {path} cannot be written"
                fix = f"make the file and the folder {path.parent} writable for you"
                fix += ", or free some disk space, if no more files fit there"
            case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
                message, fix = f"no room for the ledger {path}", "free some disk space"
            case sqlite3.SQLITE_CONSTRAINT:
                message, fix = f"the ledger {path} refuses a fact", ""
            case _:
                # What we ask is right, so the tables are not as we made them, or a text is none.
                raise LedgerDamaged(f"cannot use the ledger {path}") from error
        raise LedgerError(message, fix=fix) from error


def written(value: object) -> str | int | float | None:
    """How a field's value stands in the file.

    Raises:
        ValueError: a time without a zone, a price below zero, a number that is none.
    """
    match value:
        case datetime():
            if value.tzinfo is None:
                raise ValueError(f"{value} has no time zone")
            # The order of the texts is the order of the times.
            text = value.astimezone(UTC).isoformat(timespec="microseconds")
            return text.removesuffix("+00:00") + "Z"
        case Decimal():
            if not value.is_finite() or value < 0:
                raise ValueError(f"{value} is no price")
            return f"{value:f}"
        case tuple():
            return json.dumps(value, allow_nan=False)
        case float() if math.isnan(value):
            return None
        case str() | int() | float() | None:
            return value
        case _:
            raise ValueError(f"{value!r} is no value of a fact")


def read(kind: object, value: Any) -> Any:  # noqa: ANN401 - the kind is known at run time only
    """What `written` made the value from; `kind` is the annotation of its field."""
    if value is None:
        return None
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    reader = _READERS.get(kind)
    return reader(value) if reader else value


_READERS: dict[object, Callable[[Any], object]] = {
    datetime: datetime.fromisoformat,
    datetime | None: datetime.fromisoformat,
    Decimal | None: Decimal,
    bool: bool,
    bool | None: bool,
    Pairs: lambda text: tuple((name, value) for name, value in json.loads(text)),
    Numbers: lambda text: tuple(json.loads(text)),
}
