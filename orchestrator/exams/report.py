"""What exams and the history report, as tables for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.costs.cost import format_duration, format_total
from orchestrator.costs.statement import tally_json, tally_line
from orchestrator.exams.exam import Score
from orchestrator.grades.verdict import of_five
from orchestrator.screen.costs import cost_json, cost_text
from orchestrator.screen.table import Cell, Table
from orchestrator.sweeps.trial import short

if TYPE_CHECKING:
    from orchestrator.exams.advise import Advice
    from orchestrator.exams.book import Attempt
    from orchestrator.exams.desk import ExamReport, HandedIn
    from orchestrator.exams.start import Begun
    from orchestrator.history import Entry

Json = dict[str, Any]

# Digits of a digest that people are shown; `train history --restore` takes as few.
_DIGITS = 12

_CLOCK = "the clock goes on with the laptop closed, and a clock that is set back gives no time back"


def begun_blocks(begun: Begun) -> Iterator[str]:
    exam = begun.exam
    for category, brief in begun.briefs.items():
        yield f"--- {category} ---\n{_unbroken(brief)}\n"
    kind = "practice exam" if exam.practice else "exam"
    yield (
        f"the {kind} in {begun.root} has begun, seed {exam.seed}: "
        f"{format_duration(exam.lasts_s)}, until {begun.ends_at.astimezone():%H:%M}; {_CLOCK}"
    )


def _unbroken(brief: str) -> str:
    """With each paragraph and each point of a list on one line, to be broken where it is shown."""
    lines: list[str] = []
    for line in brief.strip().splitlines():
        begins = not line.strip() or line.startswith(("- ", "#"))
        if begins or not lines or not lines[-1] or lines[-1].startswith("#"):
            lines.append(line)
        else:
            lines[-1] += f" {line.strip()}"
    return "\n".join(lines)


def begun_json(begun: Begun) -> Json:
    exam = begun.exam
    return {
        "folder": str(begun.root),
        "session": exam.session_id,
        "seed": exam.seed,
        "practice": exam.practice,
        "lasts_s": exam.lasts_s,
        "ends_at": begun.ends_at.isoformat(),
        "briefs": begun.briefs,
    }


def handed_in_line(handed: HandedIn) -> str:
    attempt = handed.attempt
    best = handed.score.marks[attempt.fact.category].points
    text = f"{attempt.fact.name}: {outcome_text(attempt, hides=not handed.exam.practice)}"
    if handed.same_as:
        text += f", the same model as {handed.same_as}"
    if handed.why:
        text += f"; handed in, and counts as soon as it is graded: {handed.why}"
    elif best is not None:
        text += f"; the best that counts has {of_five(best)}"
    return f"{text}; {format_duration(handed.left_s)} left"


def outcome_text(attempt: Attempt, *, hides: bool) -> str:
    grade = attempt.grade
    if grade is None:
        return "not graded yet"
    if grade.points is None:
        return f"{grade.outcome}: {grade.reason}"
    text = f"{of_five(grade.points)} points"
    return text if hides or grade.value is None else f"{text}, {grade.metric} {grade.value:.4g}"


def handed_in_json(handed: HandedIn) -> Json:
    category = handed.attempt.fact.category
    return {
        **attempt_json(handed.attempt, hides=not handed.exam.practice),
        "best_points": handed.score.marks[category].points,
        "not_graded": handed.why or None,
        "left_s": handed.left_s,
    }


def attempt_json(attempt: Attempt, *, hides: bool) -> Json:
    fact, grade = attempt.fact, attempt.grade
    shown = grade is not None and not hides
    return {
        "attempt": fact.name,
        "category": fact.category,
        "at": fact.at.isoformat(),
        "passed_s": fact.passed_s,
        "sha256": fact.sha256,
        "run": fact.run_id,
        "code": fact.snapshot,
        "outcome": grade.outcome if grade else None,
        "points": attempt.points,
        "reason": grade.reason if grade else None,
        "metric": grade.metric if grade and shown else None,
        "value": grade.value if grade and shown else None,
    }


def exam_blocks(report: ExamReport) -> Iterator[Table | str]:
    """How it stands; of a finished one, how it ended."""
    if report.reading.moved_s:
        how = "forward" if report.reading.moved_s > 0 else "back"
        yield (
            f"this laptop's clock was set {how} by {format_duration(abs(report.reading.moved_s))}; "
            "the exam's own clock was not, and what has passed stays passed"
        )
    table = Table("category", ">points", ">attempts", ">trained", ">cost")
    courses = {course.category: course for course in report.courses}
    for category, mark in report.score.marks.items():
        course = courses[category]
        table.add_row(
            category,
            "0, nothing handed in" if not mark.attempts else of_five(mark.score),
            str(mark.attempts),
            format_duration(course.seconds) if course.seconds else "",
            format_total(course.cost) if course.seconds else "",
        )
    yield table
    yield _spent_line(report)
    if report.tally is not None:
        yield tally_line(report.tally)
    if report.ended:
        yield verdict_line(report.score)
        return
    points = f"{report.score.points} of {report.score.out_of} points so far"
    if report.left_s <= 0:
        yield f"the time is up; {points}"
    elif report.left_s <= report.submit_margin_s:
        yield f"{format_duration(report.left_s)} left, {points}; time to hand in what stands"
    else:
        margin = format_duration(report.submit_margin_s)
        yield (
            f"{format_duration(report.left_s)} left, {points}; "
            f"keep the last {margin} free to hand in what stands: handing one in takes about "
            f"{format_duration(report.grading_s)}, and may take three times as long"
        )
    yield advice_table(report.advice)


def verdict_line(score: Score) -> str:
    word = "passed" if score.passed else "not passed"
    return f"{word} with {score.points} of {score.out_of} points; the rule: {score.rule}"


def _spent_line(report: ExamReport) -> str:
    spent = report.spent
    # An exam without a machine of its own knows nothing of one that idles.
    idle_s = spent.idle if report.tally is not None else 0.0
    passed = format_duration(min(report.reading.passed_s, report.exam.lasts_s))
    parts = {
        "training": spent.training,
        "waiting (queue, setup, grading)": spent.waiting,
        "with a paid machine idle": idle_s,
        "for the rest, coding": spent.coding,
    }
    words = [f"{format_duration(took_s)} {what}" for what, took_s in parts.items() if took_s >= 1]
    return f"{passed} went into: {', '.join(words)}" if words else "it has just begun"


def advice_table(advice: Iterable[Advice]) -> Table:
    table = Table("next", ">takes", "~why")
    for number, one in enumerate(advice):
        takes = format_duration(one.takes_s) if one.takes_s else ""
        table.add_row(Cell(one.command, "" if number else "bold"), takes, one.why)
    return table


def exam_json(report: ExamReport) -> Json:
    score = report.score
    hides = not (report.exam.practice or report.ended)
    courses = {course.category: course for course in report.courses}
    return {
        "session": report.exam.session_id,
        "seed": report.exam.seed,
        "practice": report.exam.practice,
        "started_at": report.started_at.isoformat(),
        "lasts_s": report.exam.lasts_s,
        "passed_s": min(report.reading.passed_s, report.exam.lasts_s),
        "left_s": report.left_s,
        "clock_moved_s": report.reading.moved_s,
        "ended": report.ended,
        "points": score.points,
        "out_of": score.out_of,
        "passed": score.passed if report.ended else None,
        "rule": score.rule,
        "categories": [
            {
                "category": category,
                "points": mark.score,
                "attempts": mark.attempts,
                "trained_s": courses[category].seconds,
                "cost": {c: f"{a:f}" for c, a in courses[category].cost.by_currency},
                "unknown_runs": courses[category].cost.unknown_runs,
            }
            for category, mark in score.marks.items()
        ],
        "attempts": [attempt_json(attempt, hides=hides) for attempt in report.attempts],
        "spent_s": {**vars(report.spent), "idle": report.spent.idle if report.tally else None},
        "session_cost": tally_json(report.tally) if report.tally else None,
        "submit_margin_s": report.submit_margin_s,
        "advice": [{**vars(one), "deed": one.deed.value} for one in report.advice],
    }


def history_table(entries: Iterable[Entry], *, hides: bool) -> Table:
    listed = tuple(entries)
    # A column of which no row has anything is not worth its place.
    varied = ("~params",) if any(entry.params for entry in listed) else ()
    names = ("what", "at", "state", *varied, ">points", "~metric", ">time", ">cost")
    table = Table(*names, "code", "model")
    for entry in listed:
        seconds = entry.cost.seconds if entry.cost else 0.0
        shown = not hides and entry.value is not None
        table.add_row(
            entry.name,
            f"{entry.at.astimezone():%Y-%m-%d %H:%M}",
            "handed in" if entry.is_attempt else entry.state,
            *(", ".join(f"{name}={short(text)}" for name, text in entry.params) for _ in varied),
            "" if entry.points is None else of_five(entry.points),
            f"{entry.metric} {entry.value:.4g}" if shown else entry.reason,
            format_duration(seconds) if seconds else "",
            cost_text(entry.cost),
            entry.snapshot[:_DIGITS],
            (entry.model or "")[:_DIGITS],
        )
    return table


def entry_json(entry: Entry, *, hides: bool) -> Json:
    return {
        "at": entry.at.isoformat(),
        "category": entry.category,
        "what": "attempt" if entry.is_attempt else "run",
        "name": entry.name,
        "state": entry.state or None,
        "points": entry.points,
        "metric": None if hides else entry.metric or None,
        "value": None if hides else entry.value,
        "reason": entry.reason,
        "cost": cost_json(entry.cost),
        "params": dict(entry.params),
        "code": entry.snapshot,
        "model": entry.model,
    }
