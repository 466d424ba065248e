"""The story of a session, as it is gathered from what was recorded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.costs.sessions import all_sessions, tally
from orchestrator.errors import UsageError
from orchestrator.exams.book import ExamBook
from orchestrator.records.ledger import (
    AttemptFact,
    AttemptGrade,
    ExamEnd,
    ExamFact,
    ExamMark,
    Ledger,
    Reporter,
    RunEvent,
    SessionFact,
    VerdictFact,
)
from orchestrator.stories.chronicle import Subject, find_subject, tell_story
from orchestrator.stories.plots import machine_use, points_over_money, points_over_time, run_curves
from orchestrator.stories.story import Story, outside
from tests.tales import REMOTE, SESSION, START, TALE, Teller, Tried, at

NOW = at(200)


@pytest.fixture
def teller(tmp_path: Path) -> Teller:
    return Teller(tmp_path / "home")


@pytest.fixture
def ledger(teller: Teller) -> Iterator[Ledger]:
    with Ledger.open(teller.home / "ledger.sqlite3") as ledger:
        yield ledger


def story_of(ledger: Ledger, text: str = "", root: Path | None = None) -> Story:
    return tell_story(ledger, find_subject(ledger, text, root), NOW)


def test_a_session_tells_its_points_its_cost_and_what_a_point_cost(
    teller: Teller, ledger: Ledger
) -> None:
    teller.tell()
    story = story_of(ledger)
    own = tally(ledger, all_sessions(ledger)[0], NOW)

    assert (story.name, story.remote, story.points) == (SESSION, REMOTE, 23)
    assert story.cost.by_currency == (("USD", own.paid.amount),)
    assert (story.gained, story.per_point) == (own.gained, own.per_point)
    third = story.chapters[2]
    assert (third.category, third.runs, third.points) == ("category3", 3, 4)
    assert third.per_point == third.cost.by_currency[0][1] / 4


def test_points_rise_over_time_and_over_money(teller: Teller, ledger: Ledger) -> None:
    teller.tell()
    story = story_of(ledger)
    rises = [(rise.category, rise.points) for rise in story.rises if rise.category == "category2"]
    first = story.rises[0]

    assert rises == [("category2", 3), ("category2", 5)]
    # What idles is paid too, from the first minute on.
    assert first.spent is not None
    assert float(first.spent) == pytest.approx(0.9 * ((first.at - at(1)) / timedelta(hours=1)))
    assert sorted(rise.spent or 0 for rise in story.rises) == [r.spent for r in story.rises]
    assert points_over_time(story) is not None
    assert points_over_money(story) is not None


def test_points_from_before_a_session_are_not_its_gain(teller: Teller, ledger: Ledger) -> None:
    teller.tell(TALE[:2])
    ledger.add(
        VerdictFact(
            *("v-0", str(teller.root), "category1", "0" * 64, None, "graded", 3, "accuracy", 0.5),
            *((), True, "", 1, (), START - timedelta(days=1)),
        )
    )
    first = story_of(ledger).chapters[0]

    assert (first.before, first.points, story_of(ledger).gained) == (3, 5, 2 + 3)


def test_each_attempt_tells_what_changed_in_its_category(teller: Teller, ledger: Ledger) -> None:
    teller.tell()
    trials = story_of(ledger).trials
    third = [trial for trial in trials if trial.category == "category3"]

    assert [trial.change.since for trial in third] == ["", third[0].name, third[1].name]
    assert (third[1].change.added, third[1].change.removed) == (3, 3)
    assert '-    tf.keras.layers.Dense(32, activation="relu"),' in third[1].change.lines
    last = trials[-1]
    assert last.category == "category2"
    assert not any("category3/" in line for line in last.change.lines)
    assert all(len(trial.code) == 64 for trial in trials)


def test_code_that_is_not_kept_any_more_is_said_to_be_unknown(
    teller: Teller, ledger: Ledger
) -> None:
    teller.tell()
    shutil.rmtree(teller.root / ".train" / "code")
    third = [trial for trial in story_of(ledger).trials if trial.category == "category3"]

    assert "is not kept here" in third[1].change.why_unknown


def test_a_run_has_its_curves_its_versions_and_its_use(teller: Teller, ledger: Ledger) -> None:
    teller.tell()
    story = story_of(ledger)
    trial = story.trials[0]

    assert [name for name, _ in trial.curves] == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert (trial.epochs, dict(trial.versions)["tensorflow"]) == (30, "2.11.0")
    assert [plot.title for plot in run_curves(trial)] == ["loss", "accuracy"]
    assert [key.text for key in run_curves(trial)[0].keys] == ["training", "validation"]
    assert max(use.gpu_percent or 0 for use in trial.use) > 90
    assert story.graders == ("tensorflow 2.21.0, keras 3.12.0",)
    assert (story.machines[0].gpus, story.machines[0].gpu_memory_mib) == (1, 11_441)


def test_a_long_curve_is_thinned_and_its_last_epoch_stays(teller: Teller, ledger: Ledger) -> None:
    teller.tell((Tried("category1", 4, 6, 5, 2.19, 16, epochs=1000),))
    (trial,) = story_of(ledger).trials
    loss = dict(trial.curves)["loss"]

    assert (len(loss), loss[0].step, loss[-1].step, trial.epochs) == (120, 1, 1000, 1000)


def test_paid_time_in_which_nothing_ran_is_the_idle_time_of_the_bill(
    teller: Teller, ledger: Ledger
) -> None:
    teller.tell()
    (machine,) = story_of(ledger).machines

    assert machine.paid is not None
    assert sum((end - start for start, end in machine.idle), timedelta()) == machine.paid.idle
    plot = machine_use(story_of(ledger), machine)
    assert plot is not None
    assert [style for style, _ in plot.paths].count("idle") == len(machine.idle)


def test_what_lies_in_no_span_is_found_between_before_and_after() -> None:
    spans = [(at(5), at(7)), (at(1), at(3)), (at(2), at(4)), (at(20), at(30))]

    assert outside(spans, [(at(0), at(10))]) == ((at(0), at(1)), (at(4), at(5)), (at(7), at(10)))
    assert outside([(at(0), at(10))], [(at(0), at(10))]) == ()


def test_a_workspace_that_is_gone_still_tells_points_and_cost(
    teller: Teller, ledger: Ledger
) -> None:
    teller.tell()
    shutil.rmtree(teller.root)
    story = story_of(ledger)

    assert (story.points, story.chapters[0].runs) == (23, 1)
    assert not any(trial.curves or trial.use for trial in story.trials)


def test_the_last_session_is_told_or_one_by_name_or_all_of_the_workspace(
    teller: Teller, ledger: Ledger
) -> None:
    with pytest.raises(UsageError, match="no workspace here, and no session yet"):
        find_subject(ledger, "", None)
    assert find_subject(ledger, "", teller.root) == Subject(None, teller.root)
    teller.tell()
    ledger.add(SessionFact("s-2", None, "vm", at(150)))

    assert story_of(ledger).name == "s-2"
    assert story_of(ledger, SESSION).name == story_of(ledger, "s-1").name == SESSION
    whole = story_of(ledger, ".", teller.root)
    assert (whole.name, whole.is_session, len(whole.trials)) == ("mock", False, len(TALE))
    with pytest.raises(UsageError, match="no session is called 'x'") as failure:
        find_subject(ledger, "x", None)
    assert "evening, s-2" in failure.value.render()


def test_a_session_tells_its_runs_in_all_workspaces(teller: Teller, ledger: Ledger) -> None:
    teller.tell(TALE[:1])
    Teller(teller.home, "other").run(ledger, Tried("category1", 12, 2, 3, 0.9, 16))
    Teller(teller.home, "old/mock").run(ledger, Tried("category1", 15, 2, 4, 0.9, 16))
    story = story_of(ledger)

    assert {chapter.category: chapter.points for chapter in story.chapters} == {
        "mock 1/category1": 5,
        "mock 2/category1": 4,
        "other/category1": 3,
    }
    assert not any(trial.change.since for trial in story.trials)


def test_a_session_with_nothing_in_it_is_told(ledger: Ledger) -> None:
    ledger.add(SessionFact("s-1", None, "vm", at(150)))
    story = story_of(ledger)

    assert (story.trials, story.gained, story.points, story.goes_on) == ((), None, 0, True)
    assert points_over_time(story) is None
    assert machine_use(story, story.machines[0]) is None


def test_a_price_that_is_unknown_draws_no_points_over_money(teller: Teller, ledger: Ledger) -> None:
    ledger.add(SessionFact("s-1", None, REMOTE, START))
    teller.price = None
    teller.run(ledger, TALE[0])
    story = story_of(ledger)

    assert story.cost.by_currency == ()
    assert story.chapters[0].per_point is None
    assert story.rises[0].spent is None
    assert points_over_money(story) is None


def test_an_exam_that_goes_on_tells_no_metric_and_tells_all_after_its_end(
    teller: Teller, ledger: Ledger
) -> None:
    teller.tell(TALE[:3])
    book = ExamBook(teller.root, ledger)
    book.begin(7)
    book.keep(
        ExamFact("s-1", str(teller.root), 7, 3600 * 5, practice=False, pass_points=20),
        ExamMark("s-1", START, "", 0.0, 0.0),
        AttemptFact("s-1", "category3", 1, "ab" * 32, None, "cd" * 32, at(60), 3600.0),
        AttemptGrade("s-1", "category3", 1, "graded", 2, "accuracy", 0.71, "", at(61)),
    )
    story = story_of(ledger)

    assert story.hides
    assert story.trials[-1].name == "category3.1"
    assert [trial.points for trial in story.trials] == [5, 3, 2, 2]
    assert not any(t.metric or t.value for t in story.trials)
    book.keep(ExamEnd("s-1", at(70), 4200.0))
    assert not story_of(ledger).hides
    assert all(trial.metric and trial.value for trial in story_of(ledger).trials)


def test_an_exam_without_a_machine_of_its_own_tells_the_runs_of_its_workspace(
    teller: Teller, ledger: Ledger
) -> None:
    teller.tell(TALE[:3])
    ledger.add(
        SessionFact("exam-1", "mock exam", "", at(10)),
        ExamFact("exam-1", str(teller.root), 7, 3600 * 5, practice=True, pass_points=20),
    )
    story = story_of(ledger)

    assert (story.name, story.remote, story.hides) == ("mock exam", "", False)
    assert [trial.category for trial in story.trials] == ["category2", "category3"]
    assert story.rises[-1].spent == story.cost.by_currency[0][1]
    assert [machine.paid for machine in story.machines] == [None]


def test_of_a_model_that_was_not_pulled_it_is_said_why_it_has_no_points(
    teller: Teller, ledger: Ledger
) -> None:
    ledger.add(SessionFact("s-1", None, REMOTE, START))
    run_id = teller.run(ledger, Tried("category1", 4, 1, None, 1.0, 32))
    (trial,) = story_of(ledger).trials
    assert trial.reason == "exit code 1"

    ledger.add(RunEvent(run_id, "succeeded", at(60), Reporter.VM, exit_code=0))
    (trial,) = story_of(ledger).trials

    assert (trial.points, trial.reason) == (None, "its model is not here yet")


def test_what_a_vm_claims_of_its_use_cannot_leave_the_picture(
    teller: Teller, ledger: Ledger
) -> None:
    ledger.add(SessionFact("s-1", None, REMOTE, START))
    run_id = teller.run(ledger, Tried("category1", 4, 1, 5, 1.0, 32))
    usage = teller.root / ".train" / "runs" / run_id / "usage.jsonl"
    text = usage.read_text()
    odd = text.splitlines()[0]
    usage.write_text(
        odd.replace("2026", "9999") + "\n" + odd.replace("2026-11-21T", "") + "\n"
        + odd.replace(": 8.0,", ": 1e300,") + "\n"
    )  # fmt: skip
    (trial,) = story_of(ledger).trials

    assert [use.gpu_percent for use in trial.use] == [100.0]
