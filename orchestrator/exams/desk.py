"""What the commands in an exam do: hand in, look, finish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.clouds.power import Provenance
from orchestrator.costs.cost import PricedRun, Total, format_duration, sum_costs
from orchestrator.costs.money import priced_runs
from orchestrator.costs.paydesk import PayDesk
from orchestrator.costs.sessions import Tally, end, session_of, tally
from orchestrator.desk import Desk
from orchestrator.errors import Forbidden, TrainshedError, UsageError
from orchestrator.exams.advise import Advice, advise, submit_margin_s
from orchestrator.exams.book import Attempt, ExamBook, read_instant
from orchestrator.exams.exam import CATEGORIES, Reading, Score, Spent
from orchestrator.exams.places import grading_s, place_of, usual_remote
from orchestrator.exams.start import Clock
from orchestrator.exams.timespent import time_spent
from orchestrator.filelock import alone
from orchestrator.grades.verdict import Outcome, Verdict
from orchestrator.records.ledger import AttemptFact, AttemptGrade, ExamEnd, ExamFact
from orchestrator.screen.tell import Silence, Teller
from orchestrator.settings.config import find_jobs
from orchestrator.settings.spec import Job
from orchestrator.source.pastcode import PastCode
from orchestrator.source.snapshot import take_snapshot


@dataclass(frozen=True)
class HandedIn:
    """Attributes:
    why: why there is no grade yet; empty where there is one.
    same_as: an attempt before with the same model; empty for none.
    """

    exam: ExamFact
    attempt: Attempt
    score: Score
    left_s: float
    why: str = ""
    same_as: str = ""


@dataclass(frozen=True)
class Course:
    """What a category took, by the runs since the exam began."""

    category: str
    seconds: float
    cost: Total


@dataclass(frozen=True)
class ExamReport:
    """How an exam stands, or stood.

    Attributes:
        ended: whether it was finished.
        courses: one for each category.
        tally: of the session on its remote; None where it has none.
        advice: what to do next; empty when it is over.
        grading_s: what handing one model in takes.
    """

    exam: ExamFact
    started_at: datetime
    reading: Reading
    ended: bool
    score: Score
    attempts: tuple[Attempt, ...]
    courses: tuple[Course, ...]
    spent: Spent
    tally: Tally | None
    advice: tuple[Advice, ...] = ()
    submit_margin_s: float = 0.0
    grading_s: float = 0.0

    @property
    def left_s(self) -> float:
        return max(0.0, self.exam.lasts_s - self.reading.passed_s)


class ExamDesk:
    """One command's work in a workspace that has an exam."""

    def __init__(self, desk: Desk, now: Clock = read_instant) -> None:
        self._desk = desk
        self._now = now
        self._workspace = desk.workspace
        self._ledger = desk.ledger
        self.book = ExamBook(desk.workspace.root, desk.ledger)
        exam = self.book.exam()
        if exam is None:
            raise UsageError(
                f"{desk.workspace.root} has no exam",
                fix="to begin one: train exam start DIR; to grade without one: train grade",
            )
        self.exam = exam
        ended = self._ledger.exam_end(exam.session_id)
        self.ended = ended
        self._since = self._ledger.exam_marks(exam.session_id)[0].at

    def submit(self, category: str) -> HandedIn:
        """Hand in the model that stands in the folder: recorded, then graded.

        Raises:
            Forbidden: the exam is over.
            UsageError: there is no model, or no such category.
        """
        reading = self._read()
        self._refuse_late(reading)
        (job,) = find_jobs(self._workspace, (category,))
        if job.name not in CATEGORIES:
            raise UsageError(
                f"{job.name} is no category of the exam", fix=f"one of: {', '.join(CATEGORIES)}"
            )
        standings = self._desk.trip.exam
        standing = standings.standing(job)
        sha256 = standings.adopt(job)
        if sha256 is None or not standing.gradable:
            raise UsageError(f"{job.name}: {standing.gap}", fix=standing.fix)
        with alone(self._workspace.state / "handing-in"):
            before = [a for a in self.book.attempts(self.exam) if a.fact.category == job.name]
            fact = AttemptFact(
                session_id=self.exam.session_id,
                category=job.name,
                number=len(before) + 1,
                sha256=sha256,
                run_id=standing.run_id,
                snapshot=self._snapshot_of(job, standing.run_id),
                at=self._now().at,
                passed_s=reading.passed_s,
            )
            self.book.keep(fact)
        why = self.grade()
        attempt = next(a for a in self.book.attempts(self.exam) if a.fact == fact)
        score = self.book.score(self.exam)
        left_s = max(0.0, self.exam.lasts_s - reading.passed_s)
        same_as = next((a.fact.name for a in before if a.fact.sha256 == sha256), "")
        return HandedIn(self.exam, attempt, score, left_s, "" if attempt.grade else why, same_as)

    def grade(self) -> str:
        """Grade what was handed in and has no grade: it counts whenever that ends. Why some still
        has none, where it has.
        """
        open_ones = [a.fact for a in self.book.attempts(self.exam) if a.grade is None]
        jobs = {job.name: job for job in self._workspace.jobs}
        wanted = [(jobs[fact.category], fact.sha256) for fact in open_ones if fact.category in jobs]
        if not wanted:
            return "train.yaml does not have the category any more" if open_ones else ""
        try:
            verdicts = self._desk.trip.exam.grade(wanted, _Doing(self._desk.console))
        except UsageError as error:
            return f"{error}: {error.fix}"
        found = {(verdict.category, verdict.sha256): verdict for verdict in verdicts}
        why = ""
        # Another command may have graded the same meanwhile: the first grade counts.
        with alone(self._workspace.state / "handing-in"):
            still_open = {a.fact for a in self.book.attempts(self.exam) if a.grade is None}
            for fact in open_ones:
                verdict = found.get((fact.category, fact.sha256))
                if fact not in still_open:
                    continue
                if verdict is None or verdict.outcome is Outcome.BROKEN:
                    why = verdict.reason if verdict else "its file or its grader is gone"
                else:
                    self.book.keep(_grade(fact, verdict))
        return why

    def status(self) -> ExamReport:
        """How it stands, and what is worth doing next."""
        return self._report(self._read())

    def finish(self) -> ExamReport:
        """Grade what is left, end the exam and its session; again, it says the same."""
        reading = self._read()
        why = self.grade()
        if why:
            self._desk.console.warn(f"what was handed in is not all graded: {why}")
        if self.ended is None:
            passed_s = min(reading.passed_s, self.exam.lasts_s)
            self.ended = ExamEnd(self.exam.session_id, self._now().at, passed_s)
            self._close_session(self.ended.at)
            self.book.keep(self.ended)
        return self._report(Reading(self.ended.passed_s, reading.moved_s))

    def _read(self) -> Reading:
        if self.ended is not None:
            return Reading(self.ended.passed_s)
        return self.book.read_clock(self.exam, self._now())

    def _refuse_late(self, reading: Reading) -> None:
        if self.ended is not None:
            at = f"{self.ended.at.astimezone():%H:%M}"
            raise Forbidden(
                f"the exam was finished at {at}", fix="to grade without one: train grade CATEGORY"
            )
        if reading.passed_s >= self.exam.lasts_s:
            raise Forbidden(
                f"the exam is over: it lasted {format_duration(self.exam.lasts_s)}",
                cause="what was handed in before its end counts, nothing else",
                fix="train exam finish",
            )

    def _snapshot_of(self, job: Job, run_id: str | None) -> str:
        """Of the code that made a model, or else of the code as it is now."""
        run = self._ledger.run(run_id) if run_id else None
        if run is not None:
            return run.snapshot
        code = take_snapshot(self._workspace, (), self._desk.console).code
        PastCode(self._workspace.state).keep(code)
        return code.digest

    def _close_session(self, at: datetime) -> None:
        session = session_of(self._ledger, self.exam.session_id)
        if session.ended_at is not None:
            return
        if session.remote:
            try:
                with PayDesk(self._workspace, self._desk.console) as desk:
                    desk.finish(session.remote)
            except TrainshedError as error:
                self._desk.console.warn(f"{session.remote} could not be let go: {error}")
            else:
                return
        end(self._ledger, session, at, Provenance.ESTIMATED if session.remote else Provenance.VM)

    def _report(self, reading: Reading) -> ExamReport:
        attempts = self.book.attempts(self.exam)
        runs = self._runs()
        until = self.ended.at if self.ended else self._now().at
        session = session_of(self._ledger, self.exam.session_id)
        passed_s = min(reading.passed_s, self.exam.lasts_s)
        report = ExamReport(
            exam=self.exam,
            started_at=self._since,
            reading=reading,
            ended=self.ended is not None,
            score=self.book.score(self.exam),
            attempts=attempts,
            courses=tuple(_course(category, runs) for category in CATEGORIES),
            spent=time_spent(
                self._ledger, runs, attempts, session.remote, (self._since, until), passed_s
            ),
            tally=tally(self._ledger, session, until) if session.remote else None,
        )
        if self.ended is not None:
            return report
        standings = self._desk.trip.exam
        places = tuple(place_of(category, standings, attempts) for category in CATEGORIES)
        takes_s = grading_s(self._ledger)
        remote = session.remote or usual_remote(self._workspace, self._ledger)
        return replace(
            report,
            advice=advise(places, report.left_s, takes_s, remote),
            submit_margin_s=submit_margin_s(places, takes_s),
            grading_s=takes_s,
        )

    def _runs(self) -> tuple[PricedRun, ...]:
        facts = self._ledger.runs(workspace=str(self._workspace.root), since=self._since)
        ids = [fact.run_id for fact in facts]
        return priced_runs(self._ledger, ids) if ids else ()


class _Doing(Silence):
    """Tells what goes on, and nothing that stays."""

    def __init__(self, tell: Teller) -> None:
        self._tell = tell

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        self._tell.doing(text, done, total)


def _grade(fact: AttemptFact, verdict: Verdict) -> AttemptGrade:
    return AttemptGrade(
        session_id=fact.session_id,
        category=fact.category,
        number=fact.number,
        outcome=verdict.outcome.value,
        points=verdict.points,
        metric=verdict.metric,
        value=verdict.value,
        reason=verdict.reason,
        graded_at=verdict.graded_at,
    )


def _course(category: str, runs: Sequence[PricedRun]) -> Course:
    mine = [run for run in runs if run.category == category]
    return Course(
        category,
        sum(run.cost.seconds for run in mine),
        sum_costs(run.cost for run in mine),
    )
