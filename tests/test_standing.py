"""Which model stands in the exam folder, and when another takes its place."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.grades.grade import Grading, framework
from orchestrator.grades.standing import Exam
from orchestrator.grades.surroundings import Surroundings
from orchestrator.grades.verdict import Outcome
from orchestrator.records.ledger import (
    ArtifactFact,
    Ledger,
    Reporter,
    RunEvent,
    RunFact,
    VerdictFact,
)
from orchestrator.screen.tell import Silence
from orchestrator.settings.config import find_jobs
from orchestrator.settings.spec import Job, Workspace
from remote.runfolder import State

JOB = Job("a", "python3 a/a.py", ("a/mymodel.h5",))
PLAIN = Job("plain", "make", ("plain/table.csv",))
START = datetime(2026, 1, 31, tzinfo=UTC)


class Heard(Silence):
    """Keeps the steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)


class Setting:
    """A workspace with a grader, its ledger, and models of any worth.

    Attributes:
        model: the model's place in the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = Workspace(root, (JOB, PLAIN))
        self.ledger = Ledger.open(root / "ledger.sqlite3")
        self.exam = Exam(self.workspace, self.ledger)
        self.model = root / "a" / "mymodel.h5"
        self.model.parent.mkdir()
        (root / "a" / "grader.py").touch()
        self._seconds = count()
        self._start = START

    def pulled(self, content: str) -> str:
        """A model that a run made and that was pulled."""
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        file = self.root / "partial"
        file.write_text(content)
        self.exam.shelf.keep(file, sha256, "mymodel.h5")
        run_id = f"a-{secrets.token_hex(4)}"
        self.ledger.add(
            RunFact(
                run_id=run_id,
                workspace=str(self.root),
                category="a",
                remote="vm",
                snapshot="0" * 64,
                command=JOB.command,
                submitted_at=self._now(),
                price_per_hour=None,
                currency="",
                price_source="",
                params=(),
            ),
            ArtifactFact(run_id, "a/mymodel.h5", len(content), sha256, self._now()),
        )
        return sha256

    def ends(self, state: State, exit_code: int | None) -> None:
        """The last run, in this state."""
        run_id = self.ledger.runs()[-1].run_id
        self.ledger.add(RunEvent(run_id, state.value, self._now(), Reporter.VM, exit_code))

    def graded(
        self,
        content: str,
        points: int | None,
        value: float | None = None,
        *,
        outcome: Outcome = Outcome.GRADED,
        higher_is_better: bool = True,
        workspace: str = "",
        size_bytes: int = 10,
        grader: str = "",
    ) -> str:
        """A pulled model with a verdict.

        Args:
            grader: the grader's digest; "" for one of which nobody knows.
        """
        sha256 = self.pulled(content)
        self.ledger.add(
            VerdictFact(
                id=secrets.token_hex(8),
                workspace=workspace or str(self.root),
                category="a",
                sha256=sha256,
                run_id=None,
                outcome=outcome.value,
                points=points,
                metric="accuracy",
                value=value if points is None or value is not None else points / 5,
                thresholds=(0.2, 0.4, 0.6, 0.8, 1.0),
                higher_is_better=higher_is_better,
                reason="" if outcome is Outcome.GRADED else "it does not load",
                size_bytes=size_bytes,
                versions=(("grader", grader),) if grader else (),
                graded_at=self._now(),
            )
        )
        return sha256

    def later(self) -> None:
        """What comes now is newer than this moment."""
        self._start = datetime.now(UTC)

    def _now(self) -> datetime:
        return self._start + timedelta(seconds=next(self._seconds))


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path)
    yield setting
    setting.ledger.close()


def test_the_best_model_is_put_into_the_folder(setting: Setting) -> None:
    setting.graded("poor", 2)
    good = setting.graded("good", 4)
    setting.graded("fair", 3)

    assert setting.exam.promote(JOB) == good
    assert setting.model.read_text() == "good"
    standing = setting.exam.standing(JOB)
    assert standing.sha256 == good
    assert standing.is_graded
    assert standing.gap == ""
    assert standing.run_id is not None


def test_a_worse_model_never_replaces_a_better_one(setting: Setting) -> None:
    setting.graded("good", 4)
    setting.exam.promote(JOB)
    setting.graded("poor", 3)

    assert setting.exam.promote(JOB) is None
    assert setting.model.read_text() == "good"


def test_of_equals_the_one_that_stands_stays(setting: Setting) -> None:
    setting.graded("first", 4, 0.81)
    setting.exam.promote(JOB)
    setting.graded("again", 4, 0.81)

    assert setting.exam.promote(JOB) is None


@pytest.mark.parametrize(
    ("worse", "better", "higher_is_better"),
    [
        (0.81, 0.82, True),
        (3.5, 3.4, False),
        (math.nan, -1000.0, True),
        (math.nan, 1000.0, False),
    ],
)
def test_with_equal_points_the_better_metric_wins(
    setting: Setting, worse: float, better: float, higher_is_better: bool
) -> None:
    setting.graded("worse", 4, worse, higher_is_better=higher_is_better)
    setting.exam.promote(JOB)
    best = setting.graded("better", 4, better, higher_is_better=higher_is_better)

    assert setting.exam.promote(JOB) == best


def test_with_equal_metrics_the_smaller_file_wins(setting: Setting) -> None:
    setting.graded("large", 4, size_bytes=200)
    setting.exam.promote(JOB)
    small = setting.graded("small", 4, size_bytes=100)

    assert setting.exam.promote(JOB) == small


def test_a_grade_that_was_put_right_counts_and_the_old_one_does_not(setting: Setting) -> None:
    setting.graded("one", 5)
    setting.exam.promote(JOB)
    two = setting.graded("two", 3)
    setting.graded("one", 1)

    assert setting.exam.promote(JOB) == two


def test_a_broken_grading_says_nothing_about_a_model(setting: Setting) -> None:
    good = setting.graded("good", 4)
    setting.graded("good", None, outcome=Outcome.BROKEN)
    setting.graded("fair", 3)

    assert setting.exam.promote(JOB) == good
    assert not setting.exam.standing(JOB).is_graded
    assert setting.exam.ungraded(JOB) == []


def test_any_graded_model_replaces_an_invalid_one(setting: Setting) -> None:
    setting.model.write_text("junk")
    setting.graded("junk", None, outcome=Outcome.INVALID)
    assert setting.exam.promote(JOB) is None

    best = setting.graded("zero", 0)
    assert setting.exam.promote(JOB) == best


def test_grades_of_another_workspace_do_not_count(setting: Setting) -> None:
    mine = setting.graded("mine", 3)
    setting.graded("theirs", 5, workspace="/another")

    assert setting.exam.promote(JOB) == mine
    assert setting.exam.promote(JOB) is None
    assert setting.model.read_text() == "mine"


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


@pytest.mark.usefixtures("no_tensorflow")
def test_where_nothing_can_be_graded_the_last_model_is_placed_and_said_to_have_no_grade(
    setting: Setting,
) -> None:
    setting.pulled("first")
    setting.model.write_text("mine")
    last = setting.pulled("last")

    assert setting.exam.ungraded(JOB) == []
    assert setting.exam.promote(JOB) == last
    assert setting.model.read_text() == "last"
    assert setting.exam.shelf.find(hashlib.sha256(b"mine").hexdigest()) is not None
    assert setting.exam.promote(JOB) is None
    standing = setting.exam.standing(JOB)
    assert standing.gap == "not graded: TensorFlow is not installed here"
    assert standing.fix == f"{shlex.quote(sys.executable)} -m pip install 'tensorflow>=2.16'"


@pytest.mark.usefixtures("no_tensorflow")
def test_what_cannot_be_compared_takes_no_graded_models_place(setting: Setting) -> None:
    poor = setting.graded("poor", 0)
    setting.pulled("new")

    assert setting.exam.promote(JOB) == poor
    setting.pulled("newer")
    assert setting.exam.promote(JOB) is None
    assert setting.model.read_text() == "poor"
    assert setting.exam.standing(JOB).gap == ""


@pytest.mark.usefixtures("no_tensorflow")
def test_a_model_that_an_older_grader_gave_points_stays_where_nothing_can_be_graded(
    setting: Setting,
) -> None:
    setting.model.write_text("good")
    good = setting.graded("good", 5, grader="of another text")
    setting.pulled("last")

    assert setting.exam.promote(JOB) is None
    assert hashlib.sha256(setting.model.read_bytes()).hexdigest() == good


@pytest.mark.usefixtures("no_tensorflow")
def test_what_the_user_chose_stays_until_something_else_comes_home(setting: Setting) -> None:
    first = setting.pulled("first")
    setting.pulled("second")
    # Promotions bear the present time, so what is to be older must be.
    assert setting.exam.promote(JOB, latest=first) == first

    assert setting.exam.promote(JOB) is None
    setting.later()
    third = setting.pulled("third")
    assert setting.exam.promote(JOB) == third


@pytest.mark.usefixtures("no_tensorflow")
def test_a_model_known_to_be_worth_nothing_is_not_placed_as_the_last(setting: Setting) -> None:
    fair = setting.pulled("fair")
    setting.graded("junk", None, outcome=Outcome.INVALID)

    assert setting.exam.promote(JOB) == fair


@pytest.mark.usefixtures("no_tensorflow")
def test_without_a_grade_a_model_that_may_be_cut_short_takes_no_others_place(
    setting: Setting,
) -> None:
    cut = setting.pulled("half of a mod")
    setting.ends(State.FAILED, None)
    assert setting.exam.promote(JOB) is None
    empty = setting.exam.standing(JOB)
    assert (empty.sha256, empty.fix) == (None, "train pull a --latest")

    saved = setting.pulled("saved at the time limit")
    setting.ends(State.TIMED_OUT, 0)
    killed = setting.pulled("killed while it sav")
    setting.ends(State.TIMED_OUT, 137)
    assert setting.exam.promote(JOB) == saved
    assert setting.exam.promote(JOB, latest=cut) == cut
    assert setting.exam.shelf.find(killed) is not None


def test_a_model_with_points_needs_no_run_that_ended_well(setting: Setting) -> None:
    setting.graded("fair", 2)
    good = setting.graded("good", 4)
    setting.ends(State.FAILED, 1)
    away = setting.exam.standing(JOB)
    assert (away.sha256, away.fix) == (None, "train pull a")
    assert setting.exam.promote(JOB) == good


def test_a_broken_grader_keeps_no_model_from_its_folder(setting: Setting) -> None:
    model = setting.graded("one", None, outcome=Outcome.BROKEN)

    assert setting.exam.promote(JOB) == model
    assert setting.exam.standing(JOB).gap == "it does not load"


def test_what_closes_a_gap_is_said_with_it(setting: Setting) -> None:
    never = setting.exam.standing(JOB)
    assert (never.gap, never.fix) == (
        "no model in the folder, it was never run",
        "train a --remote NAME",
    )
    setting.graded("junk", None, outcome=Outcome.INVALID)
    failed = setting.exam.standing(JOB)
    assert (failed.gap, failed.fix) == ("no model in the folder", "train a --remote NAME")
    setting.graded("good", 4)
    away = setting.exam.standing(JOB)
    assert (away.gap, away.fix) == ("no model in the folder", "train pull a")
    setting.model.write_text("mine")
    mine = setting.exam.standing(JOB)
    assert (mine.gap, mine.fix) == ("not graded", "train grade a")
    setting.exam.promote(JOB)
    assert (setting.exam.standing(JOB).gap, setting.exam.standing(JOB).fix) == ("", "")


def test_the_latest_is_placed_better_or_not_and_recorded_as_such(setting: Setting) -> None:
    setting.graded("good", 4)
    setting.exam.promote(JOB)
    poor = setting.graded("poor", 1)

    assert setting.exam.promote(JOB, latest=poor) == poor
    assert setting.model.read_text() == "poor"
    reasons = [p.reason for p in setting.ledger.promotions(str(setting.root), "a")]
    assert reasons == ["best", "latest"]


@pytest.mark.parametrize("by_hand", ["made by hand", ""])
def test_what_stood_in_the_folder_is_kept_before_it_is_replaced(
    setting: Setting, by_hand: str
) -> None:
    setting.model.write_text(by_hand)
    mine = hashlib.sha256(by_hand.encode()).hexdigest()
    setting.graded("good", 4)
    setting.exam.promote(JOB)

    kept = setting.exam.shelf.find(mine)
    assert kept is not None
    assert kept.read_text() == by_hand
    assert setting.model.read_text() == "good"


def test_a_best_model_that_is_no_longer_kept_leaves_the_folder_as_it_is(setting: Setting) -> None:
    setting.graded("fair", 3)
    setting.exam.promote(JOB)
    gone = setting.graded("good", 4)
    kept = setting.exam.shelf.find(gone)
    assert kept is not None
    kept.unlink()

    assert setting.exam.promote(JOB) is None
    assert setting.model.read_text() == "fair"


def test_everything_without_a_verdict_is_to_be_graded_once(setting: Setting) -> None:
    setting.graded("known", 3)
    new = setting.pulled("new")
    setting.pulled("new")
    setting.model.write_text("mine")
    mine = hashlib.sha256(b"mine").hexdigest()
    broken = setting.graded("unlucky", None, outcome=Outcome.BROKEN)

    assert sorted(setting.exam.ungraded(JOB)) == sorted([new, mine, broken])


def test_without_a_grader_nothing_is_graded(setting: Setting) -> None:
    (setting.root / "a" / "grader.py").unlink()
    setting.model.write_text("mine")
    mine = setting.exam.adopt(JOB)
    assert mine is not None

    assert setting.exam.ungraded(JOB) == []
    assert setting.exam.grade([(JOB, mine)], Silence()) == []
    assert setting.exam.standing(JOB).gap == "no grader.py beside it"


def test_junk_is_graded_as_invalid_and_recorded(setting: Setting) -> None:
    sha256 = setting.pulled("junk")
    (verdict,) = setting.exam.grade([(JOB, sha256)], Silence())

    assert verdict.outcome is Outcome.INVALID
    (fact,) = setting.ledger.verdicts(str(setting.root), "a")
    assert (fact.sha256, fact.outcome) == (sha256, "invalid")
    assert fact.run_id is not None
    assert setting.exam.ungraded(JOB) == []
    assert setting.exam.promote(JOB) is None


class Gradings:
    """Grading processes that are scripts: each grades what it is given.

    Attributes:
        started: how many there were.
        answer: what they say.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = 0
        self.answer: dict[str, object] = {
            "outcome": "graded",
            "value": 0.5,
            "thresholds": [0.2, 0.4, 0.6, 0.8, 1.0],
            "versions": framework(),
        }
        monkeypatch.setattr(Grading, "_spawn", lambda grading: self._spawn(grading))

    def _spawn(self, grading: Grading) -> subprocess.Popen[bytes]:
        self.started += 1
        grading._noise.touch()
        return subprocess.Popen(
            (
                "/bin/sh",
                "-c",
                f"echo '{{}}'; while read x; do echo '{json.dumps(self.answer)}'; done",
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )


@pytest.fixture
def gradings(monkeypatch: pytest.MonkeyPatch) -> Gradings:
    return Gradings(monkeypatch)


# Only its beginning is looked at before the process is asked.
HDF5 = "\x89HDF\r\n\x1a\n"


def write_model(setting: Setting, content: str = "") -> str:
    """A file that is worth a question; its digest."""
    setting.model.write_bytes((HDF5 + content).encode("latin-1"))
    sha256 = setting.exam.adopt(JOB)
    assert sha256 is not None
    return sha256


def test_a_second_grade_of_the_same_model_comes_from_the_ledger(
    setting: Setting, gradings: Gradings
) -> None:
    (setting.model.parent / "heldout.npz").write_bytes(b"data")
    wanted = [(JOB, write_model(setting))]
    told = Heard()

    (first,) = setting.exam.grade(wanted, told)
    (second,) = setting.exam.grade(wanted, told)

    assert gradings.started == 1
    assert second == first
    assert second.points == 2
    assert told.steps == ["a is unchanged since it was graded; to do it again: --again"]
    assert len(setting.ledger.verdicts(str(setting.root), "a")) == 1


def test_a_script_edited_since_it_was_graded_does_not_make_it_graded_anew(
    setting: Setting, gradings: Gradings
) -> None:
    script = setting.model.parent / "a.py"
    script.write_text("EPOCHS = 1")
    wanted = [(JOB, write_model(setting))]
    (first,) = setting.exam.grade(wanted, Silence())
    script.write_text("EPOCHS = 20")
    (setting.model.parent / "new.py").touch()

    assert setting.exam.grade(wanted, Silence()) == [first]
    assert gradings.started == 1


def test_asked_to_grade_again_it_does(setting: Setting, gradings: Gradings) -> None:
    wanted = [(JOB, write_model(setting))]
    setting.exam.grade(wanted, Silence())
    setting.exam.grade(wanted, Silence(), again=True)

    assert gradings.started == 2


def _forge(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    data = setting.model.parent / "heldout.npz"
    before = data.stat()
    data.write_bytes(b"atad")
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Setting, pytest.MonkeyPatch], object]] = {
    "grader": lambda setting, _: (setting.model.parent / "grader.py").write_text("NEW = 1"),
    "model": lambda setting, _: write_model(setting, "retrained"),
    "data": lambda setting, _: (setting.model.parent / "heldout.npz").write_bytes(b"other"),
    "data of the same size and time": _forge,
    "data below": lambda setting, _: (setting.model.parent / "more" / "\udcff 'x").write_text("x"),
    "Python that the grader opened": lambda setting, _: (
        setting.model.parent / "opened.py"
    ).write_text("NEW = 1"),
    "Python from elsewhere": lambda setting, _: (
        setting.model.parent.parent / "far" / "far.py"
    ).write_text("NEW = 1"),
    "data behind a link": lambda setting, _: (setting.model.parent.parent / "far" / "x").touch(),
    "data removed": lambda setting, _: (setting.model.parent / "heldout.npz").unlink(),
    "versions": lambda _, monkeypatch: monkeypatch.setattr(
        "orchestrator.grades.standing.framework", lambda: "tensorflow 9.9, keras 9.9"
    ),
    "no versions": lambda _, monkeypatch: monkeypatch.setattr(
        "orchestrator.grades.standing.framework", lambda: ""
    ),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_grade_is_given_anew_when_anything_it_was_made_of_has_changed(
    setting: Setting, gradings: Gradings, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    (setting.model.parent / "heldout.npz").write_bytes(b"data")
    (setting.model.parent / "more").mkdir()
    (setting.model.parent.parent / "far").mkdir()
    (setting.model.parent / "link").symlink_to("../far")
    (setting.model.parent / "more" / "back").symlink_to("..")
    (setting.model.parent / "opened.py").touch()
    gradings.answer["sources"] = [os.path.realpath(setting.model.parent / "opened.py")]
    setting.exam.grade([(JOB, write_model(setting))], Silence())
    CHANGES[changed](setting, monkeypatch)
    sha256 = setting.exam.adopt(JOB)
    assert sha256 is not None
    setting.exam.grade([(JOB, sha256)], Silence())

    assert gradings.started == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": "invalid", "reason": "the model wanted more than 4.0 GiB of memory to predict"},
        {"outcome": "invalid", "reason": "the model took more than 120 s"},
        {"outcome": "broken", "reason": "the grading process ended with status -9"},
    ],
    ids=lambda answer: str(answer["outcome"]),
)
def test_what_may_have_failed_for_want_of_memory_or_time_is_tried_again(
    setting: Setting, gradings: Gradings, answer: dict[str, object]
) -> None:
    wanted = [(JOB, write_model(setting))]
    good = gradings.answer
    gradings.answer = {**answer, "versions": framework()}
    (failed,) = setting.exam.grade(wanted, Silence())
    gradings.answer = good
    (verdict,) = setting.exam.grade(wanted, Silence())

    assert failed.outcome is not Outcome.GRADED
    assert verdict.outcome is Outcome.GRADED


def test_a_grade_of_which_the_surroundings_are_not_known_is_given_anew(
    setting: Setting, gradings: Gradings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [(JOB, write_model(setting))]
    with monkeypatch.context() as earlier_release:
        marks = Surroundings.marks
        old = {"beside": "0" * 64, "sources": "[]"}
        earlier_release.setattr(Surroundings, "marks", lambda *given: {**marks(*given), **old})
        setting.exam.grade(wanted, Silence())
    setting.exam.grade(wanted, Silence())

    assert gradings.started == 2


def test_a_grader_edited_while_it_grades_is_not_taken_for_the_one_that_graded(
    setting: Setting, gradings: Gradings
) -> None:
    class Editing(Silence):
        def doing(self, text: str, done: int = 0, total: int = 0) -> None:
            (setting.model.parent / "grader.py").write_text("NEW = 1")

    sha256 = write_model(setting)
    setting.exam.grade([(JOB, sha256)], Editing())

    assert setting.exam.ungraded(JOB) == [sha256]


def test_the_ledger_answers_where_tensorflow_is_not_installed(
    setting: Setting, gradings: Gradings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [(JOB, write_model(setting))]
    setting.exam.grade(wanted, Silence())
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    assert [verdict.points for verdict in setting.exam.grade(wanted, Silence())] == [2]
    with pytest.raises(UsageError, match="grading needs TensorFlow"):
        setting.exam.grade(wanted, Silence(), again=True)


def test_an_empty_folder_is_told_apart_from_an_ungraded_model(setting: Setting) -> None:
    assert setting.exam.standing(JOB).gap == "no model in the folder, it was never run"
    assert setting.exam.adopt(JOB) is None
    setting.model.write_text("mine")
    assert setting.exam.standing(JOB).gap == "not graded"


def test_a_job_without_a_model_has_no_standing(setting: Setting) -> None:
    with pytest.raises(UsageError, match="plain declares no model"):
        setting.exam.standing(PLAIN)
    assert setting.exam.promote(PLAIN) is None
    assert setting.exam.ungraded(PLAIN) == []


def test_categories_are_found_by_name_each_once_in_the_order_asked_for(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, (JOB, PLAIN))

    assert find_jobs(workspace, ()) == (JOB, PLAIN)
    assert find_jobs(workspace, ["plain/", "a", "plain"]) == (PLAIN, JOB)


def test_an_unknown_category_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        find_jobs(Workspace(tmp_path, (JOB, PLAIN)), ["plian"])
    assert raised.value.fix == "did you mean plain?"
    assert "a, plain" in raised.value.cause

    with pytest.raises(UsageError, match="has no jobs"):
        find_jobs(Workspace(tmp_path), ())
