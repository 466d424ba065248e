"""What the advice in an exam knows: the tries at the same problem, what goes on, where to train."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.costs.money import priced_runs
from orchestrator.exams import start as examstart
from orchestrator.exams.advise import Deed, Place, Try
from orchestrator.exams.exam import CATEGORIES
from orchestrator.exams.places import place_of, usual_remote
from orchestrator.grades.standing import Exam
from orchestrator.records.ledger import Ledger, Reporter, RunEvent, RunFact, VerdictFact
from orchestrator.records.mirror import Mirrors
from orchestrator.screen.console import Console
from orchestrator.settings.config import load_workspace
from remote import clock
from remote.protocol import RunReport
from remote.runfolder import RunRequest, RunState, State
from tests.exams import HOUR_S, Clocks, at_exam, stand_in_problems
from tests.laptop import Laptop

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
CARS, WEATHER = "# miles per gallon\n", "# degrees\n"
REMOTE = "  {}: {{host: 203.0.113.7, user: me, gpus: 0}}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TRAINSHED_HOME, with one remote."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "remotes.yaml").write_text("remotes:\n" + REMOTE.format("vm"))
    monkeypatch.setenv("TRAINSHED_HOME", str(home))
    return home


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with Ledger.open(home / "ledger.sqlite3") as ledger:
        yield ledger


def begin(tmp_path: Path, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exam of five hours, with stand-ins for its problems."""
    monkeypatch.setattr(
        examstart, "make_problems", lambda folder, seed, tell: stand_in_problems(folder)
    )
    terms = examstart.ExamTerms(5 * HOUR_S, seed=7)
    return examstart.start_exam(tmp_path / "exam", terms, Console(), now=clocks).root


class Sitting:
    """A workspace whose category1 asks one problem."""

    def __init__(self, root: Path, ledger: Ledger, problem: str) -> None:
        stand_in_problems(root, ["category1"])
        grader = root / "category1" / "grader.py"
        grader.write_text(problem)
        self.digest = hashlib.sha256(problem.encode()).hexdigest()
        self.ledger = ledger
        self.exam = Exam(load_workspace(root), ledger)
        self.runs = 0

    def ran(self, points: int, minutes: float, end: State = State.SUCCEEDED) -> str:
        """A run to its end, and a grade of what it made."""
        root, self.runs = str(self.exam.workspace.root), self.runs + 1
        run_id = f"{Path(root).name}-{self.runs}"
        at = START + timedelta(hours=self.runs)
        ended = at + timedelta(minutes=minutes)
        self.ledger.add(
            RunFact(run_id, root, "category1", "vm", "0" * 64, "true", at, None, "", ""),
            RunEvent(run_id, "setting-up", at, Reporter.VM),
            RunEvent(run_id, "running", at, Reporter.VM),
            RunEvent(run_id, end.value, ended, Reporter.VM),
            VerdictFact(
                run_id, root, "category1", f"{self.runs:064}", run_id, "graded", points, "accuracy",
                points / 5, (1, 2, 3, 4, 5), True, "", 1, (("grader", self.digest),), ended,
            ),
        )  # fmt: skip
        priced_runs(self.ledger, [run_id])
        return run_id

    def place(self) -> Place:
        return place_of("category1", self.exam, ())


def test_tries_at_the_same_problem_count_wherever_they_were(ledger: Ledger, tmp_path: Path) -> None:
    first, now = (Sitting(tmp_path / name, ledger, CARS) for name in ("first", "now"))
    first.ran(2, 5)
    first.ran(4, 10)
    now.ran(3, 6)

    assert now.place().tries == (Try(0, 2, 300.0), Try(0, 3, 360.0), Try(2, 4, 600.0))


def test_another_problem_behind_the_same_category_teaches_nothing(
    ledger: Ledger, tmp_path: Path
) -> None:
    Sitting(tmp_path / "first", ledger, WEATHER).ran(5, 1)
    now = Sitting(tmp_path / "now", ledger, CARS)

    assert now.place().tries == ()


@pytest.mark.parametrize("end", [State.CANCELLED, State.TIMED_OUT, State.FAILED])
def test_a_run_that_was_killed_is_no_try_and_does_not_go_on(
    ledger: Ledger, tmp_path: Path, end: State
) -> None:
    now = Sitting(tmp_path / "now", ledger, CARS)
    # What it had saved by then came home, and was graded.
    now.ran(3, 1, end)

    place = now.place()
    assert (place.tries, place.running) == ((), "")


def test_a_run_that_goes_on_is_waited_for_and_a_lost_one_is_not(
    ledger: Ledger, tmp_path: Path
) -> None:
    now = Sitting(tmp_path / "now", ledger, CARS)
    mirror = Mirrors(now.exam.workspace.state).make(
        RunRequest("category1-1", "category1", "0" * 64, "true")
    )
    # Its VM was never heard of.
    assert now.place().running == ""
    state = RunState(State.RUNNING, clock.now())
    mirror.see(RunReport("category1-1", "category1", alive=True, stamp="1", state=state), "boot")
    assert now.place().running == "category1-1"

    # Its supervisor was killed.
    mirror.see(RunReport("category1-1", "category1", alive=False, stamp="2", state=state), "boot")
    assert now.place().running == ""


def test_the_remote_of_the_last_run_is_named_else_the_only_one(
    home: Path, ledger: Ledger, tmp_path: Path
) -> None:
    now = Sitting(tmp_path / "now", ledger, CARS)
    root = now.exam.workspace.root
    assert usual_remote(load_workspace(root), ledger) == "vm"

    (home / "remotes.yaml").write_text("remotes:\n" + REMOTE.format("a") + REMOTE.format("vm"))
    assert usual_remote(load_workspace(root), ledger) == ""
    now.ran(1, 1)
    assert usual_remote(load_workspace(root), ledger) == "vm"

    # It was taken from the list since.
    (home / "remotes.yaml").write_text("remotes:\n" + REMOTE.format("a"))
    assert usual_remote(load_workspace(root), ledger) == "a"


def test_the_advice_in_one_command_is_one_that_can_be_given(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks, monkeypatch)
    laptop = Laptop(root, home)
    for category, words in (("", ["train"]), ("category1", ["train", *CATEGORIES[1:]])):
        if category:
            (root / category / "mymodel.h5").write_text("a model")
        with at_exam(root, clocks) as desk:
            advice = desk.status().advice
        (told,) = (one.command for one in advice if one.deed is Deed.TRAIN)

        assert shlex.split(told) == [*words, "--remote", "vm"]
        done = laptop.ok(*shlex.split(told)[1:], "--dry-run")
        assert all(f"python3 {name}/job.py" in done.stdout for name in words[1:] or CATEGORIES)
        assert category == "" or f"python3 {category}/job.py" not in done.stdout
