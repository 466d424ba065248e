"""What the commands about runs say: enough to know, and nothing twice."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.grades.settling import Troubles, settle
from orchestrator.grades.standing import Exam
from orchestrator.records.ledger import ArtifactFact, Ledger, RunFact, VerdictFact
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.screen.console import Console
from orchestrator.settings.spec import Job, Workspace
from orchestrator.status import status_rows
from remote import clock
from remote.protocol import RunReport
from remote.runfolder import Artifact, RunRequest, RunState, State
from tests.laptop import LIMIT_S, Laptop, is_awaited, make_laptop, wait_until, without_patience
from tests.servers import Relay, SshServer
from tests.vm import Told

# Writes a hundred lines before it waits.
SCRIPT = """\
import os, pathlib, time
for number in range(100):
    print("line", number, flush=number == 99)
go = os.environ["PARAM_until"]
pathlib.Path(go + ".awaited").touch()
while not os.path.exists(go):
    time.sleep(0.01)
pathlib.Path("a/mymodel.h5").write_text("a model")
"""


@pytest.fixture
def laptop(tmp_path: Path, embedded_server: SshServer) -> Laptop:
    return make_laptop(tmp_path, embedded_server)


def start(laptop: Laptop, tmp_path: Path) -> str:
    """A detached run that has written its lines."""
    laptop.add_job("a", script=SCRIPT)
    go = tmp_path / "go"
    laptop.ok("a", "-r", "vm", "--detach", "-p", f"until={go}")
    wait_until(lambda: is_awaited(go), "the script")
    (run_id,) = laptop.states()
    return run_id


def test_who_attaches_sees_the_last_lines_and_how_to_see_all(
    laptop: Laptop, tmp_path: Path
) -> None:
    run_id = start(laptop, tmp_path)
    (tmp_path / "go").touch()
    said = laptop.ok("attach", "a").stderr

    assert f"• following {run_id} from its last 20 lines on; for all: train logs {run_id}" in said
    shown = [line for line in said.splitlines() if line.startswith("a │ ")]
    assert shown == [f"a │ line {number}" for number in range(80, 100)]
    assert len(laptop.ok("logs", "a").stdout.splitlines()) == 100


def test_cancel_shows_nothing_of_the_log(laptop: Laptop, tmp_path: Path) -> None:
    run_id = start(laptop, tmp_path)
    done = laptop.ok("cancel", "a")

    assert "line" not in done.stderr
    assert done.stdout == f"{run_id} cancelled\n"


def test_following_from_the_last_lines_on_shows_each_once(laptop: Laptop, tmp_path: Path) -> None:
    start(laptop, tmp_path)
    with laptop.start("logs", "a", "-f", "-n", "2") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "line 98\n"
        (tmp_path / "go").touch()
        assert process.stdout.read() == "line 99\n"


def test_what_was_submitted_is_whole_in_json(laptop: Laptop, tmp_path: Path) -> None:
    laptop.add_job("a")
    (run,) = laptop.json("a", "-r", "vm", "--detach", "-p", f"until={tmp_path / 'go'}")["runs"]
    (tmp_path / "go").touch()
    laptop.ok("attach", "a")

    assert (run["remote"], run["state"]) == ("vm", "queued")
    assert abs(clock.parse(run["queued_at"]) - datetime.now(UTC)).total_seconds() < 60


def test_each_submission_says_what_was_sent(laptop: Laptop) -> None:
    folder = laptop.add_job("a")
    (folder / "note.txt").write_text(os.urandom(8).hex())  # no other test has sent it
    first = laptop.ok("--remote", "vm").stderr
    again = laptop.ok("--remote", "vm").stderr
    (folder / "note.txt").write_text("x" + os.urandom(8).hex())
    changed = laptop.ok("--remote", "vm").stderr

    assert "nothing to send" not in first
    assert first.count("synced code: ") == 1
    assert "• nothing to send, all 3 files are there\n" in again
    assert "synced code: sent 1 of 3 files, 17 B" in changed
    assert "nothing to send" not in changed


def test_a_pull_with_nothing_new_tells_no_old_stories(laptop: Laptop) -> None:
    laptop.add_job("a")
    laptop.ok("--remote", "vm", "-p", "model=one")
    laptop.ok("--remote", "vm", "-p", "model=two")
    done = laptop.ok("pull")

    assert without_patience(done.stderr) == "• everything is home\n"
    heading, _, row = done.stdout.splitlines()
    assert heading.startswith("category ")
    assert row.startswith("a ")
    assert len(laptop.json("pull")["runs"]) == 2


def test_a_pull_of_something_new_tells_of_that(laptop: Laptop) -> None:
    laptop.add_job("a")
    laptop.ok("a", "-r", "vm", "--detach")
    wait_until(lambda: "not here yet" in laptop.ok("status").stdout, "the end")
    done = laptop.ok("pull")

    assert "everything is home" not in done.stderr
    assert "time" in done.stdout.splitlines()[0]
    assert "together: " in done.stdout


def test_a_dry_run_says_what_would_be_sent_and_executed(laptop: Laptop) -> None:
    laptop.add_job("a", time_limit="5m")
    shown = laptop.ok("--dry-run", "--gpus", "3", "-p", "lr=0.1").stdout
    lines = shown.splitlines()

    assert any(line.startswith("together: 2 files, ") for line in lines)
    row = lines[-1].split("   ")
    assert [cell.strip() for cell in row if cell] == [
        "a",
        "python3 a/job.py",
        "3",
        "5 min",
        "a/mymodel.h5",
        "lr=0.1",
    ]
    assert "2 min" in laptop.ok("--dry-run", "--time-limit", "2m").stdout


@pytest.mark.parametrize(
    "words", [("-p", "9=1"), ("--time-limit", "4"), ("--remote", "vmm"), ("b",)]
)
def test_a_dry_run_refuses_what_the_run_would(laptop: Laptop, words: tuple[str, ...]) -> None:
    laptop.add_job("a")
    dry, real = laptop.train("run", *words, "--dry-run"), laptop.train("run", "-r", "vm", *words)

    assert dry.returncode == real.returncode == 2
    assert without_patience(dry.stderr) == without_patience(real.stderr)


def test_a_table_for_a_pipe_has_no_spaces_at_its_line_ends(laptop: Laptop) -> None:
    laptop.add_job("a")
    laptop.ok("--remote", "vm")
    lines = laptop.ok("status").stdout.splitlines()

    assert lines[0].split() == ["run", "state", "remote", "seen", "ended", "time", "cost"]
    assert all(line == line.rstrip() for line in lines)
    assert lines[2].count(" ago") == 2


def test_a_reconnection_goes_to_where_the_config_says_the_remote_is_now(
    laptop: Laptop, tmp_path: Path, embedded_server: SshServer
) -> None:
    laptop.add_job("a")
    go = tmp_path / "go"
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(Relay(embedded_server.port))
        with Relay(embedded_server.port) as old:
            laptop.add_remote(embedded_server, "far", port=old.port)
            known = laptop.home / "known_hosts"
            lines = known.read_text()
            known.write_text(lines + lines.replace(f":{old.port} ", f":{new.port} "))
            following = stack.enter_context(laptop.start("a", "-r", "far", "-p", f"until={go}"))
            wait_until(lambda: is_awaited(go), "the script")
            remotes = laptop.home / "remotes.yaml"
            remotes.write_text(remotes.read_text().replace(str(old.port), str(new.port)))
        go.touch()
        _, said = following.communicate(timeout=LIMIT_S)

    assert following.returncode == 0, said
    assert "connected to far again" in said


# Models and their points, without a framework

JOB = Job("a", "true", ("a/mymodel.h5",))


def run_fact(workspace: Workspace, run_id: str) -> RunFact:
    now = datetime.now(UTC)
    return RunFact(run_id, str(workspace.root), "a", "vm", "", "true", now, None, "", "")


class Bench:
    """Two runs whose models have grades.

    Attributes:
        digests: of their models, the better one's first.
    """

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root, (JOB,))
        (root / "a").mkdir(parents=True)
        (root / "a" / "grader.py").touch()
        self.ledger = Ledger.open(root / "ledger.sqlite3")
        self.exam = Exam(self.workspace, self.ledger)
        self.mirrors: list[Mirror] = []
        self.digests: list[str] = []
        for run_id, points in (("a-1", 4), ("a-2", 2)):
            self.digests.append(self._add(run_id, points))

    def _add(self, run_id: str, points: int) -> str:
        model = self.workspace.root / "a" / "mymodel.h5"
        model.write_text(run_id)
        sha256 = self.exam.adopt(JOB)
        assert sha256 is not None
        mirror = Mirrors(self.workspace.state).make(RunRequest(run_id, "a", "0" * 64, "true"))
        made = (Artifact("a/mymodel.h5", 3, sha256),)
        state = RunState(State.SUCCEEDED, clock.now(), ended_at=clock.now())
        mirror.see(RunReport(run_id, "a", alive=False, stamp="1", state=state, artifacts=made), "")
        now = datetime.now(UTC)
        self.mirrors.append(mirror)
        self.ledger.add(
            run_fact(self.workspace, run_id),
            ArtifactFact(run_id, "a/mymodel.h5", 3, sha256, now),
            VerdictFact(
                id=run_id,
                workspace=str(self.workspace.root),
                category="a",
                sha256=sha256,
                run_id=run_id,
                outcome="graded",
                points=points,
                metric="accuracy",
                value=points / 5,
                thresholds=(0.1, 0.3, 0.5, 0.7, 0.9),
                higher_is_better=True,
                reason="",
                size_bytes=3,
                versions=(),
                graded_at=now,
            ),
        )
        return sha256


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "exam")
    yield bench
    bench.ledger.close()


@pytest.mark.parametrize(
    ("first", "best", "change"),
    [
        (0, False, " (4 -> 2 points; the better one: train pull a --best)"),
        (1, False, " (2 -> 4 points)"),
        (1, True, " (the best, 4 of 5)"),
    ],
)
def test_a_model_that_takes_anothers_place_is_told_with_the_points(
    bench: Bench, first: int, best: bool, change: str
) -> None:
    bench.exam.shelf.place(bench.digests[first], bench.workspace.root / "a" / "mymodel.h5")
    told = Told()
    last = [bench.mirrors[1 - first]]
    settle(bench.exam, [JOB], last, [], Troubles(told), told, best=best)

    placed = bench.digests[1 - first]
    assert told.steps == [f"a/mymodel.h5 is now the model {placed[:12]}{change}"]


def test_the_last_run_made_counts_whatever_order_the_run_ids_have(bench: Bench) -> None:
    first, last = bench.mirrors
    for mirror, at in ((first, 2_000_000_000), (last, 1_000_000_000)):
        os.utime(mirror.folder / "request.json", (at, at))
    told = Told()
    settle(bench.exam, [JOB], bench.mirrors, [], Troubles(told), told, best=False)

    assert bench.exam.standing(JOB).sha256 == bench.digests[0]


def test_status_knows_the_points_of_what_each_run_made(bench: Bench) -> None:
    rows = status_rows(bench.workspace, bench.ledger, bench.mirrors, {})

    assert [row.points for row in rows] == [4, 2]


def test_a_file_that_is_no_model_of_another_category_keeps_its_points_in_its_own(
    bench: Bench,
) -> None:
    fact = bench.ledger.verdicts(str(bench.workspace.root), "a")[0]
    bench.ledger.add(replace(fact, id="b", category="b", outcome="invalid", points=None))
    both = replace(bench.workspace, jobs=(JOB, Job("b", "true", ("b/mymodel.h5",))))

    run = Mirrors(both.state).make(RunRequest("b-1", "b", "0" * 64, "true"))

    rows = status_rows(both, bench.ledger, [*bench.mirrors, run], {})

    assert [row.points for row in rows] == [4, 2, None]


def test_status_shows_no_points_that_another_grader_gave(bench: Bench) -> None:
    fact = bench.ledger.verdicts(str(bench.workspace.root), "a")[0]
    other = replace(fact, id="new", points=5, versions=(("grader", "0" * 64),))
    bench.ledger.add(other)

    rows = status_rows(bench.workspace, bench.ledger, bench.mirrors, {})

    assert [row.points for row in rows] == [4, 2]


def test_what_goes_on_is_told_ever_more_seldom_and_what_is_new_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console = Console()
    told = []

    class Waits:
        """In the place of the ticker's clock: ten minutes, then the end."""

        def wait(self, seconds: float) -> bool:
            nonlocal now
            now += seconds
            console.doing("a running" if now < 300 else "a saving")
            if said := capsys.readouterr().err:
                told.append((now, said.split(" (")[0].strip()))
            return now >= 600

    monkeypatch.setattr(console, "_end", Waits())
    console._tick()

    assert len(told) < 40
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(told)]
    assert gaps[0] < 3
    assert max(gaps) <= 61
    first_new = next(at for at, text in told if text == "a saving")
    assert first_new - 300 < 3
