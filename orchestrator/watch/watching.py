"""Gathers what `train watch` shows: from the mirrors, the ledger, the folders and the feeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Generic, Self, TypeVar

from orchestrator.costs.cost import format_duration
from orchestrator.costs.statement import open_line
from orchestrator.desk import Desk
from orchestrator.exams.book import hides_metrics
from orchestrator.exams.desk import ExamDesk, ExamReport
from orchestrator.exams.report import verdict_line
from orchestrator.grades.counting import present_grades
from orchestrator.grades.verdict import Outcome, of_five
from orchestrator.records.ledger import VerdictFact
from orchestrator.records.mirror import Mirror, Mirrors, readable, run_moment
from orchestrator.screen.costs import cost_text
from orchestrator.screen.grades import metric_text, points_text
from orchestrator.screen.printable import printable
from orchestrator.screen.runs import fold_gangs, reason_text, state_text
from orchestrator.screen.tell import Silence
from orchestrator.settings.config import find_remote, load_workspace
from orchestrator.status import StatusRow, status_rows
from orchestrator.vm.link import Link
from orchestrator.watch.board import Board, CategoryView, RunDetail, RunView
from orchestrator.watch.feed import Feed
from orchestrator.watch.rundetail import epoch_text, epochs_of, left_text, run_detail
from remote.runfolder import State

T = TypeVar("T")

# Clocks and sums that go on by themselves, and take a while to make.
_SESSIONS_S = 5.0
_STANDINGS_S = 60.0


class Watching:
    """Of one workspace; for one thread, which has the desk's ledger too."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._workspace = desk.workspace
        self._mirrors = Mirrors(desk.workspace.state)
        self._feeds: dict[str, Feed] = {}
        self._recorded: dict[str, str] = {}
        self._categories: _Kept[tuple[CategoryView, ...]] = _Kept(self._look_up, _STANDINGS_S)
        self._exam: _Kept[_Exam | None] = _Kept(self._look_at_exam, _STANDINGS_S)
        self._sessions: _Kept[tuple[str, ...]] = _Kept(self._tally, _SESSIONS_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for feed in self._feeds.values():
            feed.close()

    def board(self, chosen: str = "") -> Board:
        """What there is to be seen now; it waits for no VM.

        Args:
            chosen: a run's id; where there is none such, one that runs, or waits, or the last.
        """
        mirrors = readable(self._desk.recent(), Silence())
        self._follow([m for m in mirrors if m.goes_on])
        for mirror in mirrors:
            self._record(mirror)
        rows = fold_gangs(status_rows(self._workspace, self._desk.ledger, mirrors, {}))
        runs = tuple(_run_view(row) for row in reversed(rows))
        place = self._place(mirrors)
        exam = self._exam.get(place)
        chiefs = [row.mirror for row in rows]
        shown = _chosen(chiefs, chosen)
        return Board(
            printable(self._workspace.root.name),
            tuple(_with_run(view, runs) for view in self._categories.get(place)),
            runs,
            remotes=tuple(view for feed in self._feeds.values() if (view := feed.view())),
            sessions=self._sessions.get(place),
            exam=exam.clock_text() if exam else "",
            advice=exam.advice if exam else "",
            detail=None if shown is None else self._detail(shown, chiefs),
        )

    def _follow(self, mirrors: Sequence[Mirror]) -> None:
        """A feed for each remote; one without a run that goes on closes its connection."""
        by_remote: dict[str, list[Mirror]] = {name: [] for name in self._feeds}
        for mirror in mirrors:
            if name := self._desk.ledger.remote_of(mirror.run_id):
                by_remote.setdefault(name, []).append(mirror)
        for name, mine in by_remote.items():
            if name not in self._feeds:
                self._feeds[name] = Feed(name, partial(self._connect, name))
            self._feeds[name].follow(mine)

    def _connect(self, name: str) -> Link:
        """As the config has it by now: a machine that was restarted may have another address."""
        return self._desk.link(find_remote(load_workspace(self._workspace.root), name))

    def _record(self, mirror: Mirror) -> None:
        """What a feed has heard of a run is told to the ledger, once."""
        seen = mirror.seen
        if seen is not None and self._recorded.get(mirror.run_id) != seen.report.stamp:
            self._desk.trip.record_events(mirror)
            self._recorded[mirror.run_id] = seen.report.stamp

    def _place(self, mirrors: Iterable[Mirror]) -> object:
        """Is another when a model, what the ledger has, or a run's state is."""
        ledger = self._desk.ledger.path
        files = [ledger, ledger.with_name(f"{ledger.name}-wal")]
        files += [self._workspace.root / job.model for job in self._workspace.jobs if job.model]
        return [_stamp(file) for file in files], [mirror.verdict for mirror in mirrors]

    def _look_up(self) -> tuple[CategoryView, ...]:
        exam = self._desk.trip.exam
        jobs = [job for job in self._workspace.jobs if job.model]
        return tuple(
            CategoryView(one.category, points_text(one.verdict), metric_text(one))
            for one in self._desk.shown(exam.standing(job) for job in jobs)
        )

    def _look_at_exam(self) -> _Exam | None:
        if self._desk.ledger.exam(str(self._workspace.root)) is None:
            return None
        return _Exam(ExamDesk(self._desk).status(), time.monotonic())

    def _tally(self) -> tuple[str, ...]:
        return tuple(printable(open_line(tally)) for tally in self._desk.open_sessions())

    def _detail(self, mirror: Mirror, mirrors: Iterable[Mirror]) -> RunDetail:
        """Compared with the best run of its category that was made before it, by their grades, or
        where none has a grade, with the last that went well.
        """
        moment = run_moment(mirror.run_id)
        best = self._best_before(mirror.request.job, moment)
        if best is not None:
            earlier = self._mirrors.get(best.run_id or "")
            return run_detail(mirror, earlier, f"best ({of_five(best.points or 0)})")
        before = [
            other
            for other in mirrors
            if other.request.job == mirror.request.job
            and run_moment(other.run_id) < moment
            and other.verdict == State.SUCCEEDED.value
        ]
        return run_detail(mirror, before[-1] if before else None, "earlier")

    def _best_before(self, category: str, moment: str) -> VerdictFact | None:
        graded = [
            fact
            for job in self._workspace.jobs
            if job.name == category
            for fact in present_grades(self._workspace, self._desk.ledger, job)
            if fact.outcome == Outcome.GRADED.value
            and fact.run_id is not None
            and run_moment(fact.run_id) < moment
        ]
        hides = hides_metrics(self._workspace.root)
        return max(graded, key=lambda fact: _worth(fact, hides=hides), default=None)


class _Exam:
    """How an exam stood when it was last looked at, and its clock since."""

    def __init__(self, report: ExamReport, at_s: float) -> None:
        self._report = report
        self._at_s = at_s
        first = next(iter(report.advice), None)
        self.advice = f"{first.command}   {first.why}" if first else ""

    def clock_text(self) -> str:
        report = self._report
        if report.ended:
            return f"exam: {verdict_line(report.score)}"
        points = f"{report.score.points} of {report.score.out_of} points handed in"
        left_s = report.left_s - (time.monotonic() - self._at_s)
        if left_s <= 0:
            return f"exam: the time is up, {points}"
        return f"exam: {format_duration(left_s)} left, {points}"


class _Kept(Generic[T]):
    """A value that is made anew when what it was made of is another, or when it is too old."""

    def __init__(self, make: Callable[[], T], limit_s: float) -> None:
        self._make = make
        self._limit_s = limit_s
        self._known: tuple[object, float, T] | None = None

    def get(self, place: object) -> T:
        now_s = time.monotonic()
        if (
            self._known is None
            or self._known[0] != place
            or now_s - self._known[1] >= self._limit_s
        ):
            self._known = (place, now_s, self._make())
        return self._known[2]


def _run_view(row: StatusRow) -> RunView:
    mirror, epochs = row.mirror, epochs_of(row.mirror)
    points = "" if row.points is None else of_five(row.points)
    return RunView(
        run_id=mirror.run_id,
        category=mirror.request.job,
        state=state_text(mirror),
        remote=row.remote,
        epoch=epoch_text(epochs),
        left="" if mirror.ended else left_text(epochs),
        time=format_duration(row.cost.seconds) if row.cost and row.cost.seconds else "",
        cost=cost_text(row.cost).removesuffix(" so far"),
        note=printable(points or row.note or reason_text(mirror)),
        has_ended=mirror.ended,
    )


def _with_run(view: CategoryView, runs: Iterable[RunView]) -> CategoryView:
    """With the state of its last run; `runs` begin with the last."""
    run = next((run for run in runs if run.category == view.name), None)
    if run is None:
        return view
    return replace(view, state=run.progress, run_id=run.run_id, remote=run.remote)


def _chosen(mirrors: Sequence[Mirror], run_id: str) -> Mirror | None:
    if not mirrors:
        return None
    running = State.RUNNING.value
    # The last of the best of these.
    return max(
        reversed(mirrors),
        key=lambda mirror: (mirror.run_id == run_id, mirror.verdict == running, mirror.goes_on),
    )


def _worth(fact: VerdictFact, *, hides: bool) -> tuple[int, float]:
    """Of those with as many points the better metric, unless that is not to be known."""
    if hides or fact.value is None:
        return fact.points or 0, 0.0
    return fact.points or 0, fact.value if fact.higher_is_better else -fact.value


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
