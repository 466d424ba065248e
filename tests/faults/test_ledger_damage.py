"""The ledger: killed in a write, damaged, gone, of another version. Detected, kept, made again."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import LedgerDamaged, LedgerError
from orchestrator.records.ledger import TABLES, Ledger, SessionFact
from orchestrator.records.ledgerschema import STEPS
from orchestrator.records.rebuild import Rebuilt, rebuild
from tests.faults.points import chosen, tell
from tests.faults.scene import set_up, train_until_done
from tests.faults.statements import before_each_statement
from tests.faults.truth import Scene
from tests.forks import at_once, fork, killed_at_each_step
from tests.laptop import Finished, Laptop
from tests.servers import SshServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

SECTOR_BYTES = 512
PAGE_BYTES = 4096
NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
# They only read what is on the laptop, once all is home.
COMMANDS: tuple[tuple[str, ...], ...] = (("status", "--local"), ("cost", "--by", "run"), ("pull",))


@dataclass(frozen=True)
class Past:
    """A laptop that has trained, and what it says of that.

    Attributes:
        whole: the ledger's bytes.
        said: what each command says, by its words.
    """

    laptop: Laptop
    scene: Scene
    whole: bytes
    said: dict[tuple[str, ...], Any]

    @property
    def ledger(self) -> Path:
        return self.scene.ledger

    def restore(self) -> None:
        """As it was before anything was damaged."""
        for path in self.ledger.parent.glob(f"{self.ledger.name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(self.ledger.parent / "rebuilding", ignore_errors=True)
        self.ledger.write_bytes(self.whole)

    def aside(self) -> list[Path]:
        """What was set aside, without its side files."""
        found = self.ledger.parent.glob(f"{self.ledger.name}.damaged-*")
        return sorted(path for path in found if not path.name.endswith(("-wal", "-shm")))

    def commands(self) -> Iterator[Finished]:
        """Each says what it said before the damage."""
        for words, said in self.said.items():
            done = self.laptop.train(*words, "--json")
            assert done.returncode == 0, done.stderr
            assert "Traceback" not in done.stderr, done.stderr
            assert facts(json.loads(done.stdout)) == said, words
            yield done


def facts(said: Any) -> Any:  # noqa: ANN401  # whatever JSON can hold
    """Without what depends on the moment of asking."""
    if isinstance(said, dict):
        return {name: facts(value) for name, value in said.items() if name != "last_seen_s"}
    return [facts(value) for value in said] if isinstance(said, list) else said


@pytest.fixture(scope="module")
def lived_in(embedded_server: SshServer, tmp_path_factory: pytest.TempPathFactory) -> Past:
    with pytest.MonkeyPatch.context() as patch:
        file = tmp_path_factory.mktemp("ssh") / "config"
        file.write_text("Host *\n  IdentityFile none\n")
        patch.setenv("TRAINSHED_SSH_CONFIG", str(file))
        laptop, scene = set_up(
            tmp_path_factory.mktemp("laptop"), embedded_server, embedded_server.port
        )
        train_until_done(laptop)
    said = {words: facts(laptop.json(*words)) for words in COMMANDS}
    with closing(sqlite3.connect(scene.ledger)) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Past(laptop, scene, scene.ledger.read_bytes(), said)


@pytest.fixture
def past(lived_in: Past) -> Past:
    lived_in.restore()
    return lived_in


def test_a_sector_that_is_overwritten_anywhere_is_met_kept_and_made_up_for(past: Past) -> None:
    offsets = chosen(range(0, len(past.whole), SECTOR_BYTES), few=3)
    met = 0
    for offset in offsets:
        past.restore()
        end = offset + SECTOR_BYTES
        damaged = past.whole[:offset] + b"\xa5" * SECTOR_BYTES + past.whole[end:]
        past.ledger.write_bytes(damaged)
        said = "".join(done.stderr for done in past.commands())
        assert len(past.aside()) <= 1, offset
        for kept in past.aside():
            met += 1
            # SQLite itself may have written to it: prices that were settled meanwhile.
            assert kept.read_bytes()[offset:end] == b"\xa5" * SECTOR_BYTES, offset
            assert f"it is kept as {kept}" in said
            assert "lost: all grades" in said
            assert past.scene.lies() == [], offset
    assert met
    tell("a sector of the ledger overwritten", len(offsets), "kept, made again, the loss is named")


def test_a_ledger_cut_at_any_length_is_met_kept_and_made_up_for(past: Past) -> None:
    sizes = chosen(range(0, len(past.whole), SECTOR_BYTES), few=3)
    for size in sizes:
        past.restore()
        past.ledger.write_bytes(past.whole[:size])
        said = "".join(done.stderr for done in past.commands())
        if not past.whole[size:].strip(b"\0"):
            continue  # an empty page's end: nothing is lost, and nothing need be met
        (kept,) = past.aside()
        assert kept.stat().st_size == size
        assert f"it is kept as {kept}" in said, size
        assert past.scene.lies() == [], size
    tell("the ledger cut short", len(sizes), "kept, made again, the loss is named")


def a_text(past: Past) -> None:
    past.ledger.write_text("remotes:\n" * 1000)


def gone(past: Past) -> None:
    past.ledger.unlink()


def gone_but_for_its_wal(past: Past) -> None:
    past.ledger.unlink()
    past.ledger.with_name(f"{past.ledger.name}-wal").write_bytes(b"\xa5" * 5000)


def without_its_owner(past: Past) -> None:
    # The application id.  Source: sqlite.org/fileformat2.html
    past.ledger.write_bytes(past.whole[:68] + bytes(4) + past.whole[72:])


def of_no_version(past: Past) -> None:
    past.ledger.write_bytes(past.whole[:60] + b"\xff" * 4 + past.whole[64:])


def of_a_version_nobody_made(past: Past) -> None:
    past.ledger.write_bytes(past.whole[:60] + b"\x7f" * 4 + past.whole[64:])


def with_a_fact_that_is_none(past: Past) -> None:
    with closing(sqlite3.connect(past.ledger)) as file:
        file.execute("DROP TRIGGER run_unchanged")
        file.execute("UPDATE run SET submitted_at = 'yesterday'")
        file.commit()


def without_a_table(past: Past) -> None:
    with closing(sqlite3.connect(past.ledger)) as file:
        file.execute("DROP TABLE artifact")
        file.commit()


@pytest.mark.parametrize(
    "damage",
    [
        a_text,
        gone,
        gone_but_for_its_wal,
        without_its_owner,
        of_no_version,
        of_a_version_nobody_made,
        with_a_fact_that_is_none,
        without_a_table,
    ],
)
def test_a_ledger_that_is_no_such_thing_is_kept_and_made_up_for(
    past: Past, damage: Callable[[Past], None]
) -> None:
    damage(past)
    left = past.ledger.read_bytes() if past.ledger.exists() else None
    said = "".join(done.stderr for done in past.commands())
    assert said.count("warning: ") == 1, said
    assert "1 runs, 2 of the files they made" in said
    assert "lost: all grades" in said
    assert [kept.read_bytes() for kept in past.aside()] == ([left] if left else [])
    assert past.scene.lies() == []
    tell(f"a ledger {damage.__name__.replace('_', ' ')}", 1, "kept, made again, the loss is named")


def test_what_lies_beside_a_ledger_that_is_gone_does_not_get_into_the_new_one(past: Past) -> None:
    wal = past.ledger.with_name(f"{past.ledger.name}-wal")
    with closing(sqlite3.connect(past.ledger, isolation_level=None)) as file:
        file.execute("INSERT INTO session VALUES ('only in the wal', NULL, 'r', '2026')")
        sides = wal.read_bytes()
        # As a kill leaves it: the last connection to close would write it back.
        past.ledger.rename(past.ledger.with_name("elsewhere"))
        wal.rename(wal.with_name("elsewhere-wal"))
    wal.write_bytes(sides)
    said = "".join(done.stderr for done in past.commands())
    (kept,) = past.ledger.parent.glob("*.damaged-*-wal")
    assert kept.read_bytes() == sides
    assert f"it is kept as {kept.name.removesuffix('-wal')}" in said.replace(f"{kept.parent}/", "")
    with closing(sqlite3.connect(past.ledger)) as file:
        assert file.execute("SELECT * FROM session").fetchall() == []


def test_of_many_commands_that_meet_the_damage_one_makes_it_good(past: Past) -> None:
    past.ledger.write_bytes(b"\xa5" * len(past.whole))

    def status(number: int) -> None:
        done = past.laptop.train("status", "--local", "--json")
        assert done.returncode == 0, done.stderr
        assert facts(json.loads(done.stdout)) == past.said["status", "--local"]

    assert at_once(6, status) == [0] * 6
    assert len(past.aside()) == 1
    assert past.scene.lies() == []
    tell("a damaged ledger opened by six at once", 1, "one of them makes it again")


WRITE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from orchestrator.records.ledger import Ledger, SessionFact

with Ledger.open(Path(sys.argv[1])) as ledger:
    for number in range(3):
        ledger.add(SessionFact(f"{number}", None, "far", datetime.now(UTC)))
        print(number, flush=True)
"""


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_writer_killed_at_any_call_of_the_system_leaves_whole_facts(
    tmp_path: Path, call: str
) -> None:
    """Inside SQLite's own transaction, on the first pages of a file as well as later."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")

    def write(path: Path, number: int) -> subprocess.CompletedProcess[str]:
        path.parent.mkdir()
        inject = f"inject={call}:signal=SIGKILL:when={number}"
        trace = ("strace", "-f", "-o", str(path.with_name("trace")), "-e", f"trace={call}")
        return subprocess.run(
            [*trace, "-e", inject, sys.executable, "-c", WRITE, str(path)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )

    whole = tmp_path / "whole" / "ledger.sqlite3"
    done = write(whole, 60_000)
    if "ptrace" in done.stderr.lower():
        pytest.skip("this process may not be traced")
    assert done.stdout == "0\n1\n2\n", done.stderr
    calls = whole.with_name("trace").read_text().count(f"{call}(")
    steps = chosen(range(1, calls + 1), few=3)
    for step in steps:
        path = tmp_path / str(step) / "ledger.sqlite3"
        done = write(path, step)
        assert done.returncode == -signal.SIGKILL, done.stderr
        with Ledger.open(path) as ledger:
            ledger.check()
            found = {session.id for session in ledger.sessions()}
        assert set(done.stdout.split()) <= found <= {"0", "1", "2"}, step
    tell(f"SIGKILL of a writer to the ledger at {call}", len(steps), "whole facts, none forgotten")


def rebuild_here(past: Past) -> Rebuilt | None:
    return rebuild(past.ledger, past.laptop.root)


def test_making_it_again_can_be_killed_at_any_step(past: Past) -> None:
    def damage(step: int) -> None:
        past.restore()
        past.ledger.write_bytes(b"\xa5" * len(past.whole))

    count = 0
    for step in killed_at_each_step(lambda step: rebuild_here(past), damage):
        count += 1
        rebuild_here(past)
        with Ledger.open(past.ledger) as ledger:
            assert len(ledger.runs()) == 1, step
        (kept,) = past.aside()
        assert kept.read_bytes() == b"\xa5" * len(past.whole), step
        assert past.scene.lies() == [], step
    tell("SIGKILL while the ledger is made again", count, "the next command does it")


def test_who_has_it_open_when_it_is_set_aside_does_not_write_to_the_old_one(past: Past) -> None:
    with Ledger.open(past.ledger) as ledger:
        # In a page that the next fact does not touch.
        page = past.whole.index(b"a/curve.txt") // PAGE_BYTES * PAGE_BYTES
        damaged = past.whole[:page] + b"\xa5" * SECTOR_BYTES + past.whole[page + SECTOR_BYTES :]
        past.ledger.write_bytes(damaged)
        assert rebuild_here(past) is not None
        with pytest.raises(LedgerDamaged, match="has been made again"):
            ledger.add(SessionFact("s", None, "far", NOON))


def test_sessions_and_paid_time_are_made_again_and_a_spoilt_record_of_them_is_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite3"
    made_of(VERSIONS[-1], tmp_path / "old" / "ledger.sqlite3")
    with Ledger.open(tmp_path / "old" / "ledger.sqlite3") as old, Ledger.open(path) as ledger:
        terms = old.terms(old.sessions()[0].id)
        assert terms is not None
        ledger.add(*old.sessions(), terms, *old.stints(), *old.stint_ends())
        facts = (ledger.sessions(), ledger.stints(), ledger.stint_ends())
    kept = path.with_name("sessions.jsonl")
    assert kept.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"no ledger")
    again = rebuild(path, None)
    assert again is not None
    assert again.unread == 0
    with Ledger.open(path) as ledger:
        assert (ledger.sessions(), ledger.stints(), ledger.stint_ends()) == facts

    kept.write_text(kept.read_text()[:-9])
    path.write_bytes(b"no ledger")
    again = rebuild(path, None)
    assert again is not None
    assert any("lost: 1 of the records of sessions" in line for line in again.lines())
    with Ledger.open(path) as ledger:
        assert ledger.stints() == facts[1]
        assert ledger.stint_ends() == ()


def test_what_no_workspace_keeps_is_named(past: Past) -> None:
    (run_id,) = past.laptop.states()
    recorded = past.laptop.root / ".train" / "runs" / run_id / "recorded.json"
    kept, text = recorded.with_name("kept"), recorded.read_text()
    listed = past.ledger.with_name("workspaces")
    lines = listed.read_text()
    try:
        recorded.rename(kept)
        listed.write_text(f'{lines}"/no such folder"\nno JSON\n')
        past.ledger.unlink()
        done = past.laptop.ok("status", "--local")
        assert f"lost: where 1 runs were sent, and their prices: {run_id}" in done.stderr
        assert "lost: the runs of folders that are not there: /no such folder" in done.stderr
        recorded.write_text(text[: len(text) // 2])
        past.ledger.unlink()
        assert f"prices: {run_id}" in past.laptop.ok("status", "--local").stderr
    finally:
        kept.replace(recorded)
        listed.write_text(lines)


def test_a_folder_in_its_place_and_a_newer_one_are_refused_and_left_alone(past: Past) -> None:
    with closing(sqlite3.connect(past.ledger)) as file:
        newer = len(STEPS) + 1
        file.execute("INSERT INTO schema_step VALUES (?, '9.9.9')", (newer,))
        file.execute(f"PRAGMA user_version = {newer}")
        file.commit()
    before = past.ledger.read_bytes()
    for words in COMMANDS:
        done = past.laptop.train(*words)
        assert done.returncode == 2
        assert "fix:   install trainshed 9.9.9 or later" in done.stderr
    assert past.ledger.read_bytes() == before
    past.ledger.unlink()
    past.ledger.mkdir()
    done = past.laptop.train("status", "--local")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is a folder" in done.stderr
    assert "fix:   move it away; a ledger is made" in done.stderr
    assert past.aside() == []
    tell("a ledger of a newer version, or a folder", 2, "refused, and left as it is")


def test_one_that_is_locked_is_waited_for_and_not_taken_for_damaged(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.records.ledgerschema.BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(past.ledger, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match="was locked") as caught:
            Ledger.open(past.ledger)
        assert not isinstance(caught.value, LedgerDamaged)
        with pytest.raises(LedgerError, match="was locked"):
            rebuild_here(past)
    assert past.aside() == []


def kill_at(step: int) -> Callable[[], None]:
    left = itertools.count(step, -1)

    def kill() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


# Files as older versions left them; each has the same past.
VERSIONS = tuple(sorted((Path(__file__).parent / "ledgers").glob("*.sql")))


def made_of(sql: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as file:
        file.executescript(sql.read_text("utf-8"))
    return path


def everything(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with Ledger.open(path) as ledger:
        ledger.check()
        return {name: ledger.query(f"SELECT * FROM {name}") for name, _ in TABLES.values()}


def test_there_is_a_file_of_every_version() -> None:
    assert [sql.stem for sql in VERSIONS] == [f"v{n}" for n in range(1, len(STEPS) + 1)]


@pytest.mark.parametrize("sql", VERSIONS, ids=lambda sql: sql.stem)
def test_a_ledger_of_each_version_is_brought_up_to_date_or_left_by_a_kill_at_any_step(
    sql: Path, tmp_path: Path
) -> None:
    path = made_of(sql, tmp_path / "whole" / "ledger.sqlite3")
    before = sql.stem
    now = everything(path)
    newest = everything(made_of(VERSIONS[-1], tmp_path / "newest" / "ledger.sqlite3"))
    assert all(newest.values())
    # What came with a later version is empty.
    assert {name for name, rows in now.items() if rows} == {
        name for name in now if f"CREATE TABLE {name} " in sql.read_text("utf-8")
    }
    assert all(rows in ([], newest[name]) for name, rows in now.items())

    def migrate(step: int) -> None:
        before_each_statement(kill_at(step))
        Ledger.open(tmp_path / str(step) / "ledger.sqlite3").close()

    def prepare(step: int) -> None:
        made_of(sql, tmp_path / str(step) / "ledger.sqlite3")

    for step in itertools.count():
        prepare(step)
        pid = fork(lambda step=step: migrate(step))  # type: ignore[misc]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 0:
            break
        assert code == -signal.SIGKILL
        path = tmp_path / str(step) / "ledger.sqlite3"
        with closing(sqlite3.connect(path)) as file:
            (version,) = file.execute("PRAGMA user_version").fetchone()
            (steps,) = file.execute("SELECT max(version) FROM schema_step").fetchone()
        assert version == steps
        assert f"v{version}" in (before, VERSIONS[-1].stem)
        assert everything(path) == now
    assert step > 5
    tell(f"SIGKILL while a ledger {before} is migrated", step, "the old one or the new, whole")
