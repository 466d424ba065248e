"""Which model stands in the exam folder, and when another takes its place."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.ledger import ArtifactFact, Ledger, RunFact, VerdictFact
from orchestrator.spec import Job, Workspace
from orchestrator.standing import Exam, find_jobs
from orchestrator.tell import Silence
from orchestrator.verdict import Outcome

JOB = Job("a", "python3 a/a.py", ("a/mymodel.h5",))
PLAIN = Job("plain", "make", ("plain/table.csv",))
START = datetime(2026, 1, 31, tzinfo=UTC)


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
    ) -> str:
        """A pulled model with a verdict."""
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
                versions=(),
                graded_at=self._now(),
            )
        )
        return sha256

    def _now(self) -> datetime:
        return START + timedelta(seconds=next(self._seconds))


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
    setting.graded("theirs", 5, workspace="/another")

    assert setting.exam.promote(JOB) is None
    assert not setting.model.exists()


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


def test_an_empty_folder_is_told_apart_from_an_ungraded_model(setting: Setting) -> None:
    assert setting.exam.standing(JOB).gap == "no model in the folder"
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
