"""The story of a session or a workspace, gathered from the ledger and from what lies beside it.

A run whose workspace is gone is in it all the same, without curves, use and code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from orchestrator.costs.account import stints, works
from orchestrator.costs.billing import Paid, Stint, Work, paid
from orchestrator.costs.cost import Total, sum_costs
from orchestrator.costs.money import priced_runs
from orchestrator.costs.sessions import Gain, Session, all_sessions, gains, tally
from orchestrator.errors import UsageError
from orchestrator.exams.book import hides_metrics
from orchestrator.records.ledger import Ledger, RunFact, VerdictFact
from orchestrator.stories.story import Chapter, Machine, Rise, Story, Trial, outside
from orchestrator.stories.sweeps import told_sweeps
from orchestrator.stories.trials import Trials
from orchestrator.sweeps.past import Past
from remote.runfolder import chief_id


@dataclass(frozen=True)
class Subject:
    """What a story is about.

    Attributes:
        session: None for all of the workspace.
        workspace: None for a session wherever its runs were.
    """

    session: Session | None
    workspace: Path | None


def find_subject(ledger: Ledger, text: str, workspace: Path | None) -> Subject:
    """A session by its id or name; `.` is this workspace; nothing the last session, or where there
    is none this workspace.

    Raises:
        UsageError: there is no such thing.
    """
    sessions = all_sessions(ledger)
    if text in ("", "."):
        if sessions and not text:
            return _of_session(ledger, sessions[-1])
        if workspace is None:
            lacking = "" if text else ", and no session yet"
            raise UsageError(f"there is no workspace here{lacking}", fix="go to your workspace")
        return Subject(None, workspace)
    for session in reversed(sessions):
        if text in (session.id, session.name):
            return _of_session(ledger, session)
    last = ", ".join(session.name for session in sessions[-5:]) or "none"
    raise UsageError(
        f"no session is called {text!r}", cause=f"the last ones: {last}", fix="train session list"
    )


def _of_session(ledger: Ledger, session: Session) -> Subject:
    exams = ledger.query("SELECT workspace FROM exam WHERE session_id = ?", session.id)
    return Subject(session, Path(exams[0][0]) if exams else None)


def tell_story(ledger: Ledger, subject: Subject, now: datetime) -> Story:
    """Up to now, or the session's end."""
    return _Chronicle(ledger, subject, now).story()


class _Chronicle:
    def __init__(self, ledger: Ledger, subject: Subject, now: datetime) -> None:
        self._ledger = ledger
        self._session = subject.session
        self._workspace = subject.workspace
        self._now = now
        self._facts = self._runs()
        ids = [fact.run_id for fact in self._facts]
        self._priced = priced_runs(ledger, ids, now) if ids else ()
        session, began = subject.session, [fact.submitted_at for fact in self._facts]
        self._began_at = session.started_at if session else min(began, default=now)
        self._window = session.window(now) if session else (self._began_at, now)
        roots = {Path(fact.workspace) for fact in self._facts}
        self._roots = sorted(roots | ({subject.workspace} if subject.workspace else set()))
        self._places = sorted({(fact.workspace, fact.category) for fact in self._facts})

    def _runs(self) -> tuple[RunFact, ...]:
        """Those submitted in the session; in an exam, those of its workspace while it lasted."""
        if self._session is None:
            return self._ledger.runs(workspace=str(self._workspace))
        since, until = self._session.window(self._now)
        if self._workspace is None:
            found = self._ledger.runs(since=since)
            return tuple(fact for fact in found if fact.session_id == self._session.id)
        found = self._ledger.runs(workspace=str(self._workspace), since=since)
        return tuple(fact for fact in found if fact.submitted_at <= until)

    def story(self) -> Story:
        session = self._session
        found = gains(self._ledger, self._priced, self._began_at)
        gained = sum(gain.points for gain in found.values()) if found else None
        cost = self._cost()
        hidden = {root for root in self._roots if hides_metrics(root)}
        gather = Trials(self._ledger, self._facts, self._priced, hidden, self._now)
        trials = gather.all(self._label, self._roots if self._workspace else ())
        workers = gather.workers()
        sweeps = tuple(told_sweeps(self._facts, self._label))
        return Story(
            name=session.name if session else self._roots[0].name,
            remote=session.remote if session else "",
            is_session=session is not None,
            began_at=self._began_at,
            until=self._window[1],
            told_at=self._now,
            goes_on=session is not None and session.ended_at is None,
            hides=bool(hidden),
            currency=cost.by_currency[0][0] if len(cost.by_currency) == 1 else "",
            cost=cost,
            budget=session.budget if session else None,
            budget_currency=session.currency if session else "",
            gained=gained,
            per_point=_per_point(cost, gained),
            chapters=tuple(self._chapter(place, found.get(place)) for place in self._places),
            rises=tuple(self._rises(found)),
            trials=trials,
            workers=workers,
            machines=tuple(self._machines((*workers, *trials))),
            graders=self._graders(),
            sweeps=tuple(one for one in sweeps if isinstance(one, Past)),
            untold_sweeps=tuple(one for one in sweeps if isinstance(one, str)),
        )

    def _label(self, workspace: str, category: str) -> str:
        """Of a category; with its workspace where there are several, but not where that lies."""
        if len(self._roots) == 1:
            return category
        root = Path(workspace)
        alike = [one for one in self._roots if one.name == root.name]
        number = f" {alike.index(root) + 1}" if len(alike) > 1 else ""
        return f"{root.name}{number}/{category}"

    def _cost(self) -> Total:
        if self._session is None or not self._stints:
            return sum_costs(run.cost for run in self._priced)
        one = tally(self._ledger, self._session, self._now)
        if one.paid.amount is None:
            return Total((), 1, one.paid.is_estimated)
        return Total(((one.currency, one.paid.amount),), 0, one.paid.is_estimated)

    @cached_property
    def _stints(self) -> tuple[Stint, ...]:
        """Of the session's machine, in its time."""
        if self._session is None or not self._session.remote:
            return ()
        found = stints(self._ledger, self._session.remote, self._now)
        start, end = self._window
        return tuple(one for one in found if one.started_at <= end and one.ended_at >= start)

    @cached_property
    def _works(self) -> tuple[Work, ...]:
        assert self._session is not None
        return works(self._ledger, self._session.remote, self._began_at, self._now)

    def _spent(self, at: datetime) -> Decimal | None:
        if self._stints:
            window = self._began_at, min(at, self._window[1])
            return sum((paid(one, window) for one in self._stints), Paid()).amount
        ended = [run for run in self._priced if run.usage.ended_at and run.usage.ended_at <= at]
        total = sum_costs(run.cost for run in ended)
        if total.unknown_runs or len(total.by_currency) > 1:
            return None
        return dict(total.by_currency).popitem()[1] if total.by_currency else Decimal(0)

    def _chapter(self, place: tuple[str, str], gain: Gain | None) -> Chapter:
        mine = [run for run in self._priced if (run.workspace, run.category) == place]
        cost = sum_costs(run.cost for run in mine)
        # The times of a gang's hosts are the same time.
        chiefs = [run for run in mine if run.usage.run_id == chief_id(run.usage.run_id)]
        known = [] if gain is None else [gain.brought, gain.before or 0]
        return Chapter(
            category=self._label(*place),
            runs=len(chiefs),
            seconds=sum(run.cost.seconds for run in chiefs),
            cost=cost,
            before=gain.before if gain else None,
            points=max(known, default=None),
            per_point=_per_point(cost, gain.points if gain else None),
        )

    def _verdicts(self) -> Iterator[VerdictFact]:
        """On the models of these runs."""
        ids = {fact.run_id for fact in self._facts}
        for place in self._places:
            for fact in self._ledger.verdicts(*place):
                if fact.run_id in ids and fact.outcome != "broken":
                    yield fact

    def _rises(self, found: Mapping[tuple[str, str], Gain]) -> Iterator[Rise]:
        best = {place: gain.before or 0 for place, gain in found.items()}
        for fact in sorted(self._verdicts(), key=lambda fact: fact.graded_at):
            place = fact.workspace, fact.category
            if fact.points is not None and fact.points > best[place]:
                best[place] = fact.points
                spent = self._spent(fact.graded_at)
                yield Rise(fact.graded_at, self._label(*place), fact.points, spent)

    def _graders(self) -> tuple[str, ...]:
        told = {dict(fact.versions).get("framework", "") for fact in self._verdicts()}
        return tuple(sorted(told - {""}))

    def _machines(self, trials: Sequence[Trial]) -> Iterator[Machine]:
        own = self._session.remote if self._session else ""
        for remote in sorted({fact.remote for fact in self._facts} | ({own} - {""})):
            stint = self._ledger.last_stint(remote)
            last = next((f for f in reversed(self._facts) if f.remote == remote), None)
            known = stint or last
            told = next((t for t in reversed(trials) if t.remote == remote and t.gpus), None)
            machine = Machine(
                remote=remote,
                gpus=told.gpus if told else 0,
                gpu_memory_mib=told.gpu_memory_mib if told else None,
                per_hour=known.price_per_hour if known else None,
                currency=known.currency if known else "",
                price_source=known.price_source if known else "",
                region=stint.region if stint else "",
                spot=stint.spot if stint else False,
                paid=None,
            )
            yield self._with_paid_time(machine) if remote == own and self._stints else machine

    def _with_paid_time(self, machine: Machine) -> Machine:
        total = sum((paid(one, self._window, self._works) for one in self._stints), Paid())
        start, end = self._window
        on = tuple((max(s.started_at, start), min(s.ended_at, end)) for s in self._stints)
        busy = [span for work in self._works for span in (work.setup, work.trained) if span]
        return replace(machine, paid=total, paid_spans=on, idle=outside(busy, on))


def _per_point(cost: Total, gained: int | None) -> Decimal | None:
    if not gained or cost.unknown_runs or len(cost.by_currency) != 1:
        return None
    return cost.by_currency[0][1] / gained
