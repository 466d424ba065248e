"""Exams: begun, handed in to, looked at, finished; grading itself is in `test_mock_exam.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.costs.commands import parse_terms
from orchestrator.errors import Forbidden, GradeBelow, UsageError
from orchestrator.exams import start as examstart
from orchestrator.exams.book import journal, read_instant
from orchestrator.exams.commands import submit
from orchestrator.exams.exam import CATEGORIES
from orchestrator.exams.report import begun_blocks, exam_blocks, exam_json, handed_in_line
from orchestrator.exams.start import Begun, ExamTerms, start_exam
from orchestrator.grades.standing import Exam
from orchestrator.grades.verdict import Outcome, Verdict
from orchestrator.records.ledger import ExamFact, Ledger
from orchestrator.records.ledgerschema import sessions_file
from orchestrator.screen.console import Console
from orchestrator.settings.home import ledger_file, remotes_file
from orchestrator.settings.spec import Job
from tests.exams import HOUR_S, Clocks, at_exam, stand_in_problems

NOBODY = ExamTerms(5 * HOUR_S, seed=7)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TRAINSHED_HOME; problems are stand-ins, and a model's points are its first digit."""
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(
        examstart, "make_problems", lambda folder, seed, tell: stand_in_problems(folder)
    )
    monkeypatch.setattr(Exam, "grade", by_first_digit)
    return tmp_path / "home"


def by_first_digit(
    exam: Exam, wanted: Sequence[tuple[Job, str]], *_: object, **__: object
) -> list[Verdict]:
    return [_verdict(exam, job, sha256) for job, sha256 in wanted]


def _verdict(exam: Exam, job: Job, sha256: str) -> Verdict:
    kept = exam.shelf.find(sha256)
    assert kept is not None
    text = kept.read_text()
    outcome = Outcome(text) if text in ("invalid", "broken") else Outcome.GRADED
    points = int(text[0]) if outcome is Outcome.GRADED else None
    return Verdict(
        job.name, outcome, points, "accuracy", points and points / 5, (1, 2, 3, 4, 5), True,
        "" if points is not None else "no good", sha256, 1, datetime.now(UTC), "",
    )  # fmt: skip


def begin(tmp_path: Path, clocks: Clocks, terms: ExamTerms = NOBODY) -> Path:
    start_exam(tmp_path / "exam", terms, Console(), now=clocks)
    return tmp_path / "exam"


def put(root: Path, category: str, model: str) -> None:
    (root / category / "mymodel.h5").write_text(model)


def hand_in(root: Path, clocks: Clocks, category: str, model: str) -> str:
    """What is said to it."""
    put(root, category, model)
    with at_exam(root, clocks) as desk:
        return handed_in_line(desk.submit(category))


def test_an_exam_begins_in_a_fresh_folder_with_five_briefs(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UsageError, match="is not empty"):
        start_exam(tmp_path / "mine", NOBODY, Console(), now=clocks)

    begun = start_exam(tmp_path / "exam", NOBODY, Console(), now=clocks)

    assert isinstance(begun, Begun)
    assert tuple(begun.briefs) == CATEGORIES
    with pytest.raises(UsageError, match="has an exam that goes on"):
        begin(tmp_path, clocks)
    with at_exam(begun.root, clocks) as desk:
        desk.finish()
    with pytest.raises(UsageError, match="had its exam"):
        begin(tmp_path, clocks)


def test_a_start_that_was_cut_off_is_gone_on_with(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def cut(folder: Path, seed: int, tell: object) -> None:
        (folder / "category1").mkdir(parents=True)
        drawn.append(seed)
        raise KeyboardInterrupt

    clocks, anything = Clocks(), replace(NOBODY, seed=None)
    with monkeypatch.context() as patch:
        patch.setattr(examstart, "make_problems", cut)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path, clocks, anything)
    with pytest.raises(UsageError, match=f"was about to begin with seed {drawn[0]}"):
        begin(tmp_path, clocks, replace(NOBODY, seed=10**7))
    root = begin(tmp_path, clocks, anything)

    with at_exam(root, clocks) as desk:
        report = desk.status()
    assert report.left_s == pytest.approx(5 * HOUR_S, abs=5)
    # Problems of two seeds would be no exam.
    assert report.exam.seed == drawn[0]


def test_an_exam_does_not_begin_in_a_workspace(home: Path, tmp_path: Path) -> None:
    root = begin(tmp_path, Clocks())
    with pytest.raises(UsageError, match=f"lies in the workspace {root}") as raised:
        begin(root, Clocks())

    assert raised.value.fix == f"cd {tmp_path}; the same command again"
    assert not (root / "exam").exists()


def test_points_are_told_at_once_and_the_metric_only_in_practice(
    home: Path, tmp_path: Path
) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)

    said = hand_in(root, clocks, "category1", "3")
    assert said == "category1.1: 3 of 5 points; the best that counts has 3 of 5; 5 h 00 min left"
    with at_exam(root, clocks) as desk:
        report = desk.status()
    shown = json.dumps(exam_json(report))
    assert "accuracy" not in shown
    assert "0.6" not in shown

    practice = start_exam(
        tmp_path / "practice", ExamTerms(HOUR_S, 7, practice=True), Console(), now=clocks
    )
    assert "accuracy 0.6" in hand_in(practice.root, clocks, "category1", "3")


def test_the_best_counts_and_every_attempt_is_recorded(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    for model in ("2", "4", "1 more"):
        hand_in(root, clocks, "category2", model)

    assert hand_in(root, clocks, "category2", "invalid") == (
        "category2.4: invalid: no good; the best that counts has 4 of 5; 5 h 00 min left"
    )
    with at_exam(root, clocks) as desk:
        report = desk.status()
    assert [(a.fact.name, a.points) for a in report.attempts] == [
        ("category2.1", 2), ("category2.2", 4), ("category2.3", 1), ("category2.4", None)
    ]  # fmt: skip
    assert report.score.points == 4


def test_after_the_end_nothing_is_taken_and_what_was_handed_in_counts(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    clocks.slept_s = 5 * HOUR_S - 5
    put(root, "category1", "5")
    with monkeypatch.context() as patch:
        # It is recorded before it is graded, and the grading is cut off.
        patch.setattr(Exam, "grade", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with at_exam(root, clocks) as desk, pytest.raises(KeyboardInterrupt):
            desk.submit("category1")
    clocks.slept_s = 5 * HOUR_S + 1

    put(root, "category2", "5")
    with at_exam(root, clocks) as desk, pytest.raises(Forbidden, match="the exam is over") as no:
        desk.submit("category2")
    assert no.value.exit_code == 6
    with at_exam(root, clocks) as desk:
        assert [one.command for one in desk.status().advice] == ["train exam finish"]
        report = desk.finish()

    assert [mark.score for mark in report.score.marks.values()] == [5, 0, 0, 0, 0]
    assert report.reading.passed_s == 5 * HOUR_S
    with at_exam(root, clocks) as desk, pytest.raises(Forbidden, match="was finished at"):
        desk.submit("category2")


def test_a_clock_that_is_set_back_gives_no_time_and_is_told(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    clocks.slept_s, clocks.set_s = 4 * HOUR_S, -4 * HOUR_S

    with at_exam(root, clocks) as desk:
        report = desk.status()
    assert report.left_s == pytest.approx(HOUR_S, abs=5)
    assert "this laptop's clock was set back by 4 h 00 min" in str(next(iter(exam_blocks(report))))

    # Over a reboot, too, and with the exam's file gone: the ledger knows what had passed.
    clocks.boot, clocks.set_s = "boot-2", -30 * HOUR_S
    clocks._began, clocks.slept_s = datetime.now(UTC), 0.0
    journal(root).unlink()
    with at_exam(root, clocks) as desk:
        assert desk.status().left_s <= HOUR_S


def test_a_lost_ledger_costs_nothing_that_was_handed_in(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    hand_in(root, clocks, "category1", "4")
    for file in home.iterdir():
        file.unlink()

    # Its last line is cut short, and one in the middle is spoilt.
    lines = journal(root).read_text().splitlines()
    journal(root).write_text("\n".join([*lines[:4], "[7", *lines[4:]]) + '\n["Exam')
    with at_exam(root, clocks) as desk:
        assert desk.status().score.points == 4
    hand_in(root, clocks, "category2", "3")
    with at_exam(root, clocks) as desk:
        assert desk.finish().score.points == 7


def test_a_grade_whose_attempt_was_spoilt_does_not_stop_the_rest(
    home: Path, tmp_path: Path
) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    for category in CATEGORIES[:2]:
        hand_in(root, clocks, category, "4")
    for file in home.iterdir():
        file.unlink()
    lines = journal(root).read_text().splitlines()
    spoilt = next(n for n, line in enumerate(lines) if "AttemptFact" in line)
    journal(root).write_text("\n".join([*lines[:spoilt], *lines[spoilt + 1 :]]))

    with at_exam(root, clocks) as desk:
        assert desk.status().score.points == 4


def test_what_was_broken_is_graded_when_the_grader_is_mended(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)

    said = hand_in(root, clocks, "category3", "broken")

    assert said == (
        "category3.1: not graded yet; handed in, and counts as soon as it is graded: no good; "
        "5 h 00 min left"
    )
    with at_exam(root, clocks) as desk:
        assert [a.grade for a in desk.status().attempts] == [None]


def test_it_is_passed_by_the_rule_that_is_told(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    for category in CATEGORIES:
        hand_in(root, clocks, category, "4")
    clocks.slept_s = HOUR_S
    with at_exam(root, clocks) as desk:
        report = desk.finish()
        again = desk.finish()

    assert again == report
    assert list(exam_blocks(report))[-1] == (
        "passed with 20 of 25 points; "
        "the rule: at least 20 of 25 points, and none of 0 in a category"
    )
    assert report.spent.coding == pytest.approx(HOUR_S, abs=5)
    with Ledger.open(ledger_file()) as ledger:
        assert ledger.session_end(report.exam.session_id) is not None


def test_status_says_first_what_stands_then_a_plain_model_everywhere(
    home: Path, tmp_path: Path
) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    hand_in(root, clocks, "category1", "3")
    put(root, "category2", "2")
    with at_exam(root, clocks) as desk:
        report = desk.status()

    assert [one.command for one in report.advice] == [
        "train submit category2",
        f"train {' '.join(CATEGORIES[2:])} --remote NAME",
        "train category1 --remote NAME",
    ]
    # No machine is this exam's, so nothing is known of one that idles.
    assert "idle" not in "".join(str(block) for block in exam_blocks(report))
    assert exam_json(report)["spent_s"]["idle"] is None


def test_the_only_remote_there_is_stands_in_the_advice(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    remotes_file().parent.mkdir(parents=True, exist_ok=True)
    remotes_file().write_text("remotes: {azure-k80: {host: 203.0.113.7}}\n")
    with at_exam(root, clocks) as desk:
        first, *_ = desk.status().advice
    assert first.command == "train --remote azure-k80"


def test_only_a_category_with_a_model_can_be_handed_in(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    with at_exam(root, clocks) as desk:
        with pytest.raises(UsageError, match="category1: no model in the folder"):
            desk.submit("category1")
        with pytest.raises(UsageError, match="no category is named 'category9'"):
            desk.submit("category9")
        assert not desk.status().attempts


def test_marks_do_not_pile_up(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    for minute in range(10):
        clocks.slept_s = minute * 30.0
        with at_exam(root, clocks) as desk:
            desk.status()

    with Ledger.open(ledger_file()) as ledger:
        exam = ledger.exam(str(root))
        assert exam is not None
        assert len(ledger.exam_marks(exam.session_id)) == 1 + math.floor(9 * 30 / 60)


@pytest.mark.parametrize(
    ("text", "hours"), [("5", 5), ("0.5", 0.5), ("1h30m", 1.5), ("20m", 1 / 3)]
)
def test_hours_are_whole_or_parts_or_any_duration(text: str, hours: float) -> None:
    terms = parse_terms("", text, "", "", any_price=False)

    assert terms.lasts_s == pytest.approx(hours * HOUR_S)


@pytest.mark.parametrize("text", ["-1", "1,5", ".5", "1e3", "1.5h", "0.0"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--hours"):
        parse_terms("", text, "", "", any_price=False)


def test_the_same_model_again_is_told_so(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    for model in ("2", "3"):
        hand_in(root, clocks, "category1", model)

    assert hand_in(root, clocks, "category1", "2").startswith(
        "category1.3: 2 of 5 points, the same model as category1.1; the best that counts has 3"
    )


def test_a_hand_in_that_is_invalid_is_recorded_and_ends_with_1(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = start_exam(tmp_path / "exam", NOBODY, Console()).root
    put(root, "category1", "invalid")
    monkeypatch.chdir(root)
    with pytest.raises(GradeBelow, match=r"category1\.1 brings no points: it is invalid"):
        submit.callback("category1", as_json=False)  # type: ignore[misc]

    with at_exam(root, read_instant) as desk:
        assert [a.fact.name for a in desk.status().attempts] == ["category1.1"]


def test_where_the_time_went_leaves_out_what_took_none(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    clocks.slept_s = 600.0
    with at_exam(root, clocks) as desk:
        said = [block for block in exam_blocks(desk.status()) if isinstance(block, str)]
    assert said[0] == "10 min went into: 10 min for the rest, coding"

    # With less time than handing in may take there is none to keep free.
    clocks.slept_s = 5 * HOUR_S - 100
    with at_exam(root, clocks) as desk:
        said = [block for block in exam_blocks(desk.status()) if isinstance(block, str)]
    assert said[1] == "2 min left, 0 of 25 points so far; time to hand in what stands"


def test_a_brief_is_broken_where_it_is_shown_and_not_where_it_was_written() -> None:
    brief = (
        "# Cars\nOne sentence,\nand another.\n\n"
        "- **Data**: `x` is\n  float32.\n- **Input**: `(9,)`\n\nRules: none.\n"
    )
    exam = ExamFact("s", "/e", 7, HOUR_S, False, 20)
    begun = Begun(exam, Path("/e"), datetime.now(UTC), {"category1": brief}, "")

    assert next(iter(begun_blocks(begun))) == (
        "--- category1 ---\n# Cars\nOne sentence, and another.\n\n"
        "- **Data**: `x` is float32.\n- **Input**: `(9,)`\n\nRules: none.\n"
    )


def test_what_another_command_has_graded_meanwhile_keeps_that_grade(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    put(root, "category1", "3")
    put(root, "category2", "4")
    others: list[object] = []

    def slowly(exam: Exam, wanted: Sequence[tuple[Job, str]], *_: object) -> list[Verdict]:
        if not others:
            others.append(exam)
            with at_exam(root, clocks) as other:
                other.submit("category2")
        return by_first_digit(exam, wanted)

    monkeypatch.setattr(Exam, "grade", slowly)
    with at_exam(root, clocks) as desk:
        desk.submit("category1")
        points = {
            attempt.fact.category: attempt.grade.points
            for attempt in desk.book.attempts(desk.exam)
            if attempt.grade is not None
        }
    assert points == {"category1": 3, "category2": 4}


def test_looking_at_an_exam_writes_nothing_beside_the_ledger(home: Path, tmp_path: Path) -> None:
    clocks = Clocks()
    root = begin(tmp_path, clocks)
    beside = sessions_file(ledger_file())
    before = beside.read_bytes()
    for _ in range(2):
        with at_exam(root, clocks) as desk:
            desk.status()
    assert beside.read_bytes() == before
