"""The ledger: facts are only ever added, by many at once; kills and upgrades lose none."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clouds.power import Provenance
from orchestrator.errors import LedgerDamaged, LedgerError
from orchestrator.records.ledger import (
    TABLES,
    ArtifactFact,
    Fact,
    Ledger,
    Promotion,
    Reporter,
    RunEvent,
    RunFact,
    SessionEnd,
    SessionFact,
    SessionTerms,
    Sighting,
    StintEnd,
    StintFact,
    VerdictFact,
)
from orchestrator.records.ledgerschema import APPLICATION_ID, STEPS, Step, connect, read, written

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
UGLY = 'it\'s "ü" \n\t\x00 %s ; DROP TABLE run --' + "x" * 300

SESSION = SessionFact("session-1", UGLY, "azure-k80", NOON)
RUN = RunFact(
    run_id="run-1",
    workspace="/home/me/exam " + UGLY,
    category="category4",
    remote="azure-k80",
    snapshot="ab" * 32,
    command="python category4/category4.py",
    submitted_at=NOON,
    price_per_hour=Decimal("0.50"),
    currency="USD",
    price_source="train.yaml",
    params=(("lr", "0.1"), (UGLY, "")),
    session_id="session-1",
)
DONE = RunEvent("run-1", "succeeded", NOON + timedelta(minutes=9), Reporter.VM, exit_code=0)
VERDICT = VerdictFact(
    id="verdict-1",
    workspace=RUN.workspace,
    category="category4",
    sha256="cd" * 32,
    run_id="run-1",
    outcome="graded",
    points=5,
    metric="accuracy",
    value=0.93,
    thresholds=(0.5, 0.6, 0.7, 0.8, 0.9),
    higher_is_better=True,
    reason="",
    size_bytes=2**40,
    versions=(("keras", "3.9"), ("tensorflow", "2.21")),
    graded_at=NOON,
)
FACTS: tuple[Fact, ...] = (
    SESSION,
    RUN,
    DONE,
    SessionEnd("session-1", NOON + timedelta(hours=1), Provenance.ESTIMATED),
    ArtifactFact("run-1", "category4/my model 'ü'\n.h5", 0, "ef" * 32, NOON),
    VERDICT,
    Promotion(RUN.workspace, "category4", "cd" * 32, NOON, "5 is better than 3"),
    SessionTerms("session-1", Decimal("5.00"), "USD", NOON + timedelta(hours=5), 1200.0),
    StintFact(
        "stint-1",
        "azure-k80",
        NOON,
        Provenance.CLOUD,
        Decimal("0.50"),
        "USD",
        "config",
        "eastus",
        True,
        NOON,
        Decimal("0.0001"),
        60.0,
        1.0,
    ),
    StintEnd("stint-1", NOON + timedelta(hours=1, microseconds=1), Provenance.VM, "idle"),
    Sighting("azure-k80", NOON, "running", Provenance.VM, "boot-1"),
)
MANY = tuple(replace(RUN, run_id=f"run {number}") for number in range(300))
NAMES = [type(fact).__name__ for fact in FACTS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a 'b\"\n ü" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as ledger:
        yield ledger


def everything(ledger: Ledger) -> tuple[Fact, ...]:
    """All that the samples recorded, by every query there is."""
    end = ledger.session_end("session-1")
    terms, sighting = ledger.terms("session-1"), ledger.last_sighting("azure-k80")
    assert end is not None
    assert terms is not None
    assert sighting is not None
    return (
        *ledger.sessions(),
        *ledger.runs(),
        *ledger.events("run-1"),
        end,
        *ledger.artifacts("run-1"),
        *ledger.verdicts(RUN.workspace, "category4"),
        *ledger.promotions(RUN.workspace, "category4"),
        terms,
        *ledger.stints(),
        *ledger.stint_ends(),
        sighting,
    )


def test_every_fact_comes_back_as_it_was_recorded(path: Path) -> None:
    with Ledger.open(path) as ledger:
        for fact in FACTS:
            ledger.add(fact)
    with Ledger.open(path) as ledger:
        assert everything(ledger) == FACTS


def test_the_same_facts_added_twice_are_one(ledger: Ledger) -> None:
    ledger.add(*FACTS)
    ledger.add(*FACTS, *FACTS)
    assert everything(ledger) == FACTS


def test_the_same_moment_and_the_same_price_written_otherwise_are_the_same_fact(
    ledger: Ledger,
) -> None:
    ledger.add(SESSION, RUN)
    athens = timezone(timedelta(hours=3))
    ledger.add(replace(RUN, submitted_at=NOON.astimezone(athens), price_per_hour=Decimal("5E-1")))
    assert ledger.runs() == (RUN,)


@pytest.mark.parametrize(
    "other",
    [
        replace(SESSION, remote="other"),
        replace(RUN, command="other"),
        ArtifactFact("run-1", "category4/my model 'ü'\n.h5", 1, "ef" * 32, NOON),
        replace(VERDICT, points=4),
        SessionEnd("session-1", NOON, Provenance.CLOUD),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_another_fact_with_the_same_key_is_refused(ledger: Ledger, other: Fact) -> None:
    ledger.add(*FACTS)
    with pytest.raises(LedgerError, match="already has another"):
        ledger.add(other)
    assert everything(ledger) == FACTS


def test_a_final_state_reported_again_in_other_words_changes_nothing(ledger: Ledger) -> None:
    ledger.add(SESSION, RUN, DONE)
    ledger.add(replace(DONE, at=NOON, exit_code=1, reason="other"))
    assert ledger.events("run-1") == (DONE,)


def test_facts_added_together_are_added_all_or_none(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="refuses"):
        ledger.add(SESSION, replace(DONE, run_id="nobody"))
    assert ledger.sessions() == ()
    ledger.add(SESSION)
    assert ledger.sessions() == (SESSION,)


ALONE = SessionFact | Promotion | StintFact | Sighting


@pytest.mark.parametrize("fact", [f for f in FACTS if not isinstance(f, ALONE)])
def test_a_fact_of_a_run_or_session_nobody_recorded_is_refused(ledger: Ledger, fact: Fact) -> None:
    with pytest.raises(LedgerError, match="refuses a fact"):
        ledger.add(fact)


@pytest.mark.parametrize(
    "fact",
    [
        replace(RUN, price_per_hour=Decimal("-0.01")),
        replace(RUN, price_per_hour=Decimal("NaN")),
        replace(RUN, submitted_at=datetime(2026, 8, 1)),  # noqa: DTZ001 - that is the fault
        replace(RUN, workspace="/home/\udcff"),
        replace(RUN, workspace=Path("/home")),  # type: ignore[arg-type] # that is the fault
        replace(VERDICT, run_id=None, size_bytes=2**63),
        replace(VERDICT, run_id=None, thresholds=(math.nan,)),
    ],
)
def test_what_cannot_be_told_again_is_not_recorded(ledger: Ledger, fact: Fact) -> None:
    ledger.add(SESSION)
    with pytest.raises(LedgerError, match="cannot hold"):
        ledger.add(fact)
    ledger.add(RUN)
    assert ledger.runs() == (RUN,)


def test_a_metric_that_is_not_a_number_is_kept_as_no_value(ledger: Ledger) -> None:
    fact = replace(VERDICT, run_id=None, value=math.nan, points=0)
    ledger.add(fact)
    ledger.add(fact)
    assert ledger.verdicts(RUN.workspace, "category4") == (replace(fact, value=None),)


@given(st.datetimes(timezones=st.timezones()), st.decimals("0", "1e9"))
def test_times_and_prices_come_back_exactly(at: datetime, price: Decimal) -> None:
    try:
        at.astimezone(UTC)
    except OverflowError:
        return  # the first and the last day of the calendar
    assert read(datetime, written(at)) == at.astimezone(UTC)
    assert str(written(at)).endswith("Z")
    assert read(Decimal | None, written(price)) == price


@pytest.mark.parametrize("fact", FACTS, ids=NAMES)
def test_no_fact_can_be_changed_or_removed_by_hand(ledger: Ledger, path: Path, fact: Fact) -> None:
    ledger.add(*FACTS)
    table, key = TABLES[type(fact)]
    with closing(sqlite3.connect(path)) as other:
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {key[0]} = 'other'"):
            with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
                other.execute(statement)
        row = other.execute(f"SELECT * FROM {table}").fetchone()
        # The last column of every table is no part of its key.
        other.execute(
            f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})",
            (*row[:-1], "other"),
        )
        other.commit()
    assert everything(ledger) == FACTS


def test_a_table_for_every_fact_and_a_fact_for_every_table(ledger: Ledger, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        tables = {
            name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    assert tables == {table for table, _ in TABLES.values()} | {"schema_step", "run_price"}


def test_runs_are_found_by_workspace_category_remote_and_time(ledger: Ledger) -> None:
    later = replace(RUN, run_id="run-0", submitted_at=NOON + timedelta(hours=1), session_id=None)
    elsewhere = replace(later, run_id="run-2", workspace="/else", category="c", remote="r")
    ledger.add(SESSION, elsewhere, later, RUN)
    assert [run.run_id for run in ledger.runs()] == ["run-1", "run-2", "run-0"]
    assert ledger.runs(workspace="/else") == (elsewhere,)
    assert ledger.runs(category="category4") == (RUN, later)
    assert ledger.runs(remote="r", category="category4") == ()
    assert ledger.runs(since=later.submitted_at) == (elsewhere, later)
    assert ledger.run("run-0") == later
    assert ledger.run("nobody") is None


def test_events_come_in_the_order_of_their_report_though_the_clock_jumped(ledger: Ledger) -> None:
    running = RunEvent("run-1", "running", DONE.at + timedelta(hours=1), Reporter.VM)
    ledger.add(SESSION, RUN, running, DONE)
    assert ledger.events("run-1") == (running, DONE)
    assert ledger.events("nobody") == ()


def test_the_last_sighting_is_found_also_among_some_states(ledger: Ledger) -> None:
    on = Sighting("vm", NOON, "running", Provenance.VM, "boot-1")
    off = Sighting("vm", NOON + timedelta(minutes=1), "stopped-free", Provenance.CLOUD)
    ledger.add(on, off, replace(on, remote="other", at=NOON + timedelta(hours=1)))
    assert ledger.last_sighting("vm") == off
    assert ledger.last_sighting("vm", "running", "starting") == on
    assert ledger.last_sighting("nobody") is None


WRITER = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from orchestrator.records.ledger import Ledger, SessionFact

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
at = datetime(2026, 8, 1, tzinfo=timezone.utc)
for start in range(0, count, 10):
    with Ledger.open(path) as ledger:
        ledger.add(SessionFact("shared", None, "azure-k80", at))
        for number in range(start, start + 10):
            ledger.add(SessionFact(f"{name}-{number}", None, "azure-k80", at))
            print(f"{name}-{number}", flush=True)
"""


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_eight_processes_make_one_ledger_and_write_to_it_at_once(path: Path) -> None:
    writers = [python(WRITER, str(path), f"w{number}", "30") for number in range(8)]
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0] * 8
    with Ledger.open(path) as ledger:
        assert len(ledger.sessions()) == 8 * 30 + 1
        assert "wal" in {suffix.name[-3:] for suffix in path.parent.iterdir()}


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_what_a_killed_writer_had_recorded_is_there(path: Path, lines: int) -> None:
    with python(WRITER, str(path), "w", "1000000") as writer:
        assert writer.stdout is not None
        told = {writer.stdout.readline().strip() for _ in range(lines)}
        writer.send_signal(signal.SIGKILL)
        told |= {line.strip() for line in writer.stdout if line.endswith("\n")}
    with Ledger.open(path) as ledger:
        assert told <= {session.id for session in ledger.sessions()}
        ledger.add(SESSION)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_reader_does_not_wait_for_a_writer(ledger: Ledger, path: Path) -> None:
    ledger.add(SESSION)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with Ledger.open(path) as reader:
            assert reader.sessions() == (SESSION,)


def test_a_ledger_in_use_that_cannot_write_ahead_yet_is_opened_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN")
        other.execute("SELECT * FROM session").fetchall()
        monkeypatch.setattr("orchestrator.records.ledgerschema.BUSY_TIMEOUT_S", 0.01)
        with Ledger.open(path) as ledger:
            assert ledger.sessions() == ()
        other.execute("COMMIT")
        with Ledger.open(path) as ledger:
            ledger.add(SESSION)
    assert path.read_bytes()[18:20] == b"\2\2"  # write-ahead; sqlite.org/fileformat2.html


def test_a_ledger_is_for_its_owners_eyes(ledger: Ledger, path: Path) -> None:
    ledger.add(SESSION)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


# Migration: files as an older trainshed left them.

SECOND = Step("0.9.0", ("ALTER TABLE session ADD COLUMN budget TEXT",))
BROKEN = Step("0.9.0", ("ALTER TABLE session ADD COLUMN budget TEXT", "NO SUCH STATEMENT"))
ENDLESS = """
import sys
from pathlib import Path
from orchestrator.records.ledgerschema import STEPS, Step, connect

count = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
connect(Path(sys.argv[1]), (STEPS[0], Step("0.9.0", (
    "ALTER TABLE session ADD COLUMN budget TEXT", f"CREATE TABLE numbers AS {count}"))))
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of version 1 made by hand, with as much of the schema as matters here."""
    path = tmp_path / "old ledger"
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        for statement in (
            "CREATE TABLE schema_step (version INTEGER PRIMARY KEY, trainshed TEXT NOT NULL)",
            "INSERT INTO schema_step VALUES (1, '0.1.0')",
            "CREATE TABLE session (id TEXT PRIMARY KEY, name TEXT, remote TEXT, started_at TEXT)",
            "INSERT INTO session VALUES ('s', NULL, 'r', '2026-08-01T12:00:00.000000Z')",
            f"PRAGMA application_id = {APPLICATION_ID}",
            "PRAGMA user_version = 1",
        ):
            file.execute(statement)
    return path


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as file:
        return int(file.execute("PRAGMA user_version").fetchone()[0])


def columns(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as file:
        return [name for _, name, *_ in file.execute("PRAGMA table_info(session)")]


def test_an_older_file_is_copied_and_then_migrated(old: Path) -> None:
    for _ in range(2):
        with closing(connect(old, (STEPS[0], SECOND))) as file:
            assert file.execute("SELECT * FROM session").fetchall() == [
                ("s", None, "r", "2026-08-01T12:00:00.000000Z", None)
            ]
    backup = old.with_name("old ledger.v1.bak")
    assert (version(old), version(backup)) == (2, 1)
    assert columns(backup) == ["id", "name", "remote", "started_at"]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert [file.name for file in sorted(old.parent.iterdir())] == [old.name, backup.name]


def test_facts_only_in_the_write_ahead_log_are_in_the_copy(old: Path) -> None:
    with closing(connect(old, STEPS[:1])) as other:
        other.execute("INSERT INTO session VALUES ('new', NULL, 'r', '')")
        with closing(connect(old, (STEPS[0], SECOND))):
            pass
    with closing(sqlite3.connect(old.with_name("old ledger.v1.bak"))) as backup:
        assert backup.execute("SELECT count(*) FROM session").fetchone() == (2,)


def test_a_migration_that_breaks_leaves_the_older_file(old: Path) -> None:
    with pytest.raises(LedgerError, match="cannot use the ledger"):
        connect(old, (STEPS[0], BROKEN))
    assert (version(old), columns(old)) == (1, ["id", "name", "remote", "started_at"])
    connect(old, (STEPS[0], SECOND)).close()
    assert version(old) == 2


def test_a_migration_killed_in_the_middle_is_done_by_the_next(old: Path) -> None:
    with python(ENDLESS, str(old)) as migration:
        deadline = time.monotonic() + 60
        while not old.with_name("old ledger.v1.bak").exists():
            assert migration.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        migration.kill()
    assert (version(old), columns(old)) == (1, ["id", "name", "remote", "started_at"])
    connect(old, (STEPS[0], SECOND)).close()
    assert version(old) == 2


@pytest.mark.parametrize("statement", [None, "PRAGMA user_version = 0", "VACUUM"])
def test_an_empty_file_becomes_a_ledger_without_a_copy(
    tmp_path: Path, statement: str | None
) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    if statement:
        with closing(sqlite3.connect(path)) as file:
            file.execute(statement)
    with Ledger.open(path) as ledger:
        ledger.add(*FACTS)
        assert everything(ledger) == FACTS
    assert list(tmp_path.glob("*.bak")) == []


def test_a_newer_file_is_refused_with_the_version_to_install(path: Path) -> None:
    connect(path, (*STEPS, SECOND)).close()
    before = path.read_bytes()
    with pytest.raises(
        LedgerError, match=f"has version {len(STEPS) + 1}, and this trainshed knows {len(STEPS)}"
    ) as caught:
        Ledger.open(path)
    assert caught.value.fix == "install trainshed 0.9.0 or later"
    assert path.read_bytes() == before


# Damage: every fault is a LedgerError that names the file.


def test_another_programs_sqlite_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE session (x)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="another program"):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_file_that_is_not_sqlite_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("remotes:\n" * 1000)
    with pytest.raises(LedgerError, match=r"ledger\.db is not a ledger") as caught:
        Ledger.open(path)
    assert "move it away" in caught.value.fix
    assert path.read_text() == "remotes:\n" * 1000


@pytest.fixture
def whole(path: Path) -> bytes:
    """The bytes of a ledger at `path` with some hundred facts."""
    with Ledger.open(path) as ledger:
        ledger.add(*FACTS)
        ledger.add(*MANY)
    return path.read_bytes()


def read_all(path: Path) -> tuple[Fact, ...]:
    with Ledger.open(path) as ledger:
        return everything(ledger)


@pytest.mark.parametrize("tenths", range(1, 10))
def test_a_cut_ledger_is_named_as_damaged(path: Path, whole: bytes, tenths: int) -> None:
    path.write_bytes(whole[: len(whole) * tenths // 10])
    with pytest.raises(LedgerError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "damaged" in str(caught.value)
    assert "of what the workspaces keep" in caught.value.fix


@pytest.mark.parametrize("tenths", range(10))
def test_a_ledger_with_holes_gives_all_its_facts_or_says_that_it_is_damaged(
    path: Path, whole: bytes, tenths: int
) -> None:
    start = len(whole) * tenths // 10
    path.write_bytes(whole[:start] + b"\xa5" * 4096 + whole[start + 4096 :])
    try:
        facts, told = read_all(path), ""
    except LedgerError as error:
        facts, told = (), error.render()
    assert facts == (*FACTS[:2], *MANY, *FACTS[2:]) or (str(path) in told and "fix:" in told)


def test_a_fact_edited_into_nonsense_is_named(path: Path, whole: bytes) -> None:
    path.write_bytes(whole.replace(b"2026-08-01T12:09", b"2026-99-01T12:09"))
    with Ledger.open(path) as ledger, pytest.raises(LedgerError, match="run_event nobody can read"):
        ledger.events("run-1")


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Ledger.open(folder / "ledger.db").close()
        (folder / "ledger.db").chmod(0o444)
        folder.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            for ledger in ("new.db", "sub/new.db"):
                with pytest.raises(LedgerError, match="cannot make the ledger") as caught:
                    Ledger.open(folder / ledger)
                assert "you can write to" in caught.value.fix
            with pytest.raises(LedgerError):
                Ledger.open(folder / "ledger.db")
        finally:
            os.seteuid(os.getuid())
            folder.chmod(0o755)


def test_a_path_that_cannot_be_a_file_is_a_ledger_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "ledger.db", tmp_path / ("x" * 300)):
        with pytest.raises(LedgerError) as caught:
            Ledger.open(path)
        assert str(path) in str(caught.value)
        assert caught.value.fix


def test_a_locked_ledger_says_who_to_wait_for(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.records.ledgerschema.BUSY_TIMEOUT_S", 0.01)
    with (
        Ledger.open(path) as impatient,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="was locked") as caught:
            impatient.add(SESSION)
        assert "wait" in caught.value.fix
        other.execute("ROLLBACK")
        impatient.add(SESSION)


def test_a_full_disk_takes_back_what_was_half_added(ledger: Ledger, path: Path) -> None:
    ledger.add(SESSION)
    ledger._connection.execute("PRAGMA max_page_count = 1")  # SQLite then allows no growth
    with pytest.raises(LedgerError, match="no room") as caught:
        ledger.add(*MANY)
    assert caught.value.fix == "free some disk space"
    assert (ledger.runs(), ledger.sessions()) == ((), (SESSION,))


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_ledger_that_is_set_aside_while_it_is_opened_is_told_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_made_again: bool
) -> None:
    path, aside, new = tmp_path / "ledger", tmp_path / "ledger.damaged", tmp_path / "new"
    Ledger.open(path).close()
    Ledger.open(new).close()
    real = sqlite3.connect

    def late(*words: object, **options: object) -> sqlite3.Connection:
        path.rename(aside)
        try:
            return real(*words, **options)  # type: ignore[call-overload, no-any-return]
        finally:
            if is_made_again:
                new.rename(path)

    monkeypatch.setattr(sqlite3, "connect", late)
    with pytest.raises(LedgerDamaged, match="was damaged and has been made again"):
        Ledger.open(path)
