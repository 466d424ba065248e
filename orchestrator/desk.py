"""What the commands do in a workspace, each a method; the CLI prints what they return.

The round trip and its steps are imported by the methods that need them: the others are quick.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orchestrator.declared import is_home
from orchestrator.errors import (
    ConnectError,
    ConnectionLost,
    GradeBelow,
    Interrupted,
    Refused,
    TrainshedError,
    UsageError,
)
from orchestrator.finding import find_run
from orchestrator.grades.verdict import Outcome
from orchestrator.logs import show_all, show_copy, show_end
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import LOST, UNKNOWN, Mirror, Mirrors, readable
from orchestrator.records.shelf import Shelf
from orchestrator.screen.console import Console
from orchestrator.screen.tell import Silence
from orchestrator.settings.config import find_jobs, load_workspace
from orchestrator.settings.home import ledger_file
from orchestrator.settings.spec import Job, Limits, Remote, Workspace
from orchestrator.status import StatusRow, status_rows, why_unasked
from remote.protocol import Cancel, Done, Hello
from remote.runfolder import State

if TYPE_CHECKING:
    from orchestrator.asking import Asking
    from orchestrator.costs.sessions import Tally
    from orchestrator.grades.settling import Result
    from orchestrator.grades.standing import Standing
    from orchestrator.plan import Order
    from orchestrator.roundtrip import RoundTrip
    from orchestrator.vm.link import Call, Link
    from orchestrator.vm.reach import HeadStart

# How many runs `train status` shows without --all, besides those that go on.
_RECENT = 10
# How much of what a run wrote is shown again to who attaches to it.
_ATTACH_LINES = 20


class Desk:
    """One command's work in one workspace.

    Args:
        ask: whether a person may be asked.
        accept: a host key's fingerprint trusted beforehand.
        begun: a connection to the remote that is asked first.

    Attributes:
        stops_after: the remote that is stopped once the work is done; nobody calls it idle.
    """

    def __init__(
        self,
        workspace: Workspace,
        console: Console,
        *,
        ask: bool = True,
        accept: str = "",
        begun: HeadStart | None = None,
    ) -> None:
        self.workspace = workspace
        self.console = console
        self._ask = ask
        self._accept = accept
        self.ledger = Ledger.open(ledger_file())
        self._mirrors = Mirrors(workspace.state)
        self._begun = begun
        self.stops_after = ""
        self._foreseen: set[str] = set()
        self._met: dict[str, tuple[Remote, Hello, float]] = {}

    @cached_property
    def trip(self) -> RoundTrip:
        from orchestrator.roundtrip import RoundTrip

        return RoundTrip(self.workspace, self.ledger, self.link, self.console)

    @classmethod
    def here(cls, *, ask: bool = True, accept: str = "", logs_to_stdout: bool = False) -> Self:
        """In the workspace of the current folder."""
        workspace = load_workspace(Path.cwd())
        return cls(workspace, Console(to_stdout=logs_to_stdout), ask=ask, accept=accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._met:
                self._keep_account()
        finally:
            self.ledger.close()

    def link(self, remote: Remote, ahead: Iterable[Call] = ()) -> Link:
        from orchestrator.vm.reach import open_link

        self.console.doing(f"connecting to {remote.name}")
        asker = self.console.asker() if self._ask else None
        begun, self._begun = self._begun, None
        link = open_link(remote, asker, self._accept, ahead, begun)
        # A status asks many at once, and only the main thread has the ledger.
        self._met[remote.name] = (remote, link.hello, link.clock_off_s)
        return link

    def _keep_account(self) -> None:
        """Of the machines that were met: that they are on, and which of them for nothing."""
        from orchestrator.costs.meeting import Met, keep_account

        busy = {
            self.ledger.remote_of(mirror.run_id)
            for mirror in self._mirrors.unsettled()
            if not (mirror.ended or mirror.is_known_unsent)
        }
        busy.add(self.stops_after)
        met = [Met(*each) for each in tuple(self._met.values())]
        keep_account(self.ledger, met, busy, self.console)

    def find_run(self, text: str, *, itself: bool = False) -> Mirror:
        """A run by id, by the beginning of one, or a category's last.

        Args:
            itself: also where it was moved; else it is the one that goes on for it.
        """
        mirror = find_run(self._mirrors, text, self.console)
        if itself or mirror.successor is None:
            return mirror
        self.console.step(f"{mirror.run_id} was moved, and goes on as {mirror.last.run_id}")
        return mirror.last

    def check_budget(self, order: Order) -> None:
        """Before anything is sent.

        Raises:
            Forbidden: the session is over, or what is to be run does not fit into a budget.
        """
        # Most have neither, and wait for nothing.
        if order.remote.budget == Limits() and not self.ledger.open_sessions(order.remote.name):
            return
        from orchestrator.costs.fitting import fit

        for warning in fit(self.ledger, order):
            self.console.warn(warning)

    def check(self, order: Order) -> None:
        """All that is looked at before anything is sent.

        Raises:
            Forbidden: as `check_budget`.
        """
        self.foresee(order)
        self.check_budget(order)

    def foresee(self, order: Order) -> None:
        """Warn of what would be trained for nothing, or unseen, before it costs anything.

        Of several hosts' orders what is the same is said once.
        """
        from orchestrator.outlook import misfits
        from orchestrator.unwatched import unwatched

        for warning in (*misfits(order, self.ledger), *unwatched(order)):
            if warning not in self._foreseen:
                self._foreseen.add(warning)
                self.console.warn(warning)

    @classmethod
    def foresee_here(cls, order: Order) -> None:
        """The same before there is a machine to work with."""
        with cls(order.workspace, Console()) as desk:
            desk.foresee(order)

    def attach(self, mirror: Mirror) -> Result:
        """Follow a run, and all of its gang, to the end, pull, grade."""
        jobs = tuple(j for j in self.workspace.jobs if j.name == mirror.request.job)
        gang = self._mirrors.gang(mirror)
        if away := [each for each in gang if not self._is_home(each)]:
            if len({self.ledger.remote_of(each.run_id) for each in gang}) > 1:
                from orchestrator.pools.pooltrip import follow_gang

                follow_gang(self.trip, gang, [self._remote_of(each) for each in gang])
                return self.trip.settle(jobs, gang, best=True)
            remote = self._remote_of(mirror)
            with self.link(remote) as link:
                self.console.step(
                    f"following {mirror.run_id} from its last {_ATTACH_LINES} lines on; for all: "
                    f"train logs {mirror.run_id}"
                )
                self.trip.follow(remote, link, away, tail=_ATTACH_LINES).close()
        return self.trip.settle(jobs, gang, best=True)

    def status(self, *, everything: bool, local: bool) -> list[StatusRow]:
        """Runs that go on and the last others, freshly asked where their remote answers."""
        shown = readable(self.recent(everything=everything), self.console)
        # One that was moved is first to be ended, and to look at it could start it again.
        unsure = [m for m in shown if not (m.ended or m.is_known_unsent or m.successor)]
        unsure = [] if local else unsure
        errors = self._look(unsure) if unsure else {}
        for mirror in shown:
            # An end that another command saw just before it was killed.
            if mirror.ended and not mirror.settled:
                self.trip.record_events(mirror)
        return status_rows(self.workspace, self.ledger, shown, errors)

    def recent(self, *, everything: bool = False) -> list[Mirror]:
        """Runs that go on and the last others, or all, as they were made."""
        recent = self._mirrors.all() if everything else self._mirrors.latest(_RECENT)
        chosen = {m for m in recent if m.was_heard_of or not m.settled}
        chosen |= {m for m in self._mirrors.unsettled() if m.goes_on}
        return sorted(chosen, key=Mirror.made_at)

    def open_sessions(self) -> list[Tally]:
        """Those that go on and what each came to by now, as far as this laptop knows."""
        # An exam without a remote is a session of no machine.
        begun = [fact for fact in self.ledger.open_sessions() if fact.remote]
        if not begun:
            return []
        from orchestrator.costs.sessions import session_of, tally

        now = datetime.now(UTC)
        return [tally(self.ledger, session_of(self.ledger, fact.id), now) for fact in begun]

    def show_log(self, mirror: Mirror, *, follow: bool, tail: int | None = None) -> None:
        """The copy first, then what the VM has beyond it.

        Args:
            tail: only so many lines of what is there now; without `follow` nothing else is read,
                here or there, and nothing is kept.
        """
        if mirror.verdict == LOST or mirror.is_known_unsent or self._is_home(mirror):
            show_copy(mirror, self.console, tail)
        elif follow:
            self._follow_log(mirror, tail)
        elif tail is not None:
            show_end(lambda: self.link(self._remote_of(mirror)), mirror, self.console, tail)
        else:
            look = partial(self.trip.look, mirrors=[mirror], tell=self.console)
            show_all(lambda: self.link(self._remote_of(mirror)), look, mirror, self.console)

    def _follow_log(self, mirror: Mirror, tail: int | None) -> None:
        remote = self._remote_of(mirror)
        try:
            link = self.link(remote)
        except TrainshedError:
            show_copy(mirror, self.console, tail)
            raise
        self.trip.follow(remote, link, [mirror], tail=tail, grade=False).close()

    def cancel(self, mirror: Mirror, *, forget: bool = False) -> str:
        """Ask it, and all of its gang, to end and wait for that; says what became of it.

        Args:
            forget: whether a run that nobody heard of is given up without asking its VM, and one
                that its VM had where that cannot be asked any more.
        """
        gang = self._mirrors.gang(mirror)
        going = [each for each in gang if not each.ended]
        mirror = max(going, key=lambda each: each.goes_on, default=mirror)
        if mirror.ended:
            if mirror.verdict == State.CANCELLED.value:
                mirror.settle()  # whoever cancelled it may have been cut off before
            return f"{mirror.run_id} has already ended: {mirror.verdict}"
        if mirror.verdict == UNKNOWN and (
            forget or all(each.is_known_unsent or self._never_came(each) for each in gang)
        ):
            for each in gang:
                each.settle()
            return f"{mirror.run_id} was never {'heard of' if forget else 'sent'}; it is forgotten"
        try:
            self._ask_to_end([each for each in gang if not each.ended])
        except (UsageError, ConnectError, ConnectionLost) as error:
            if not forget:
                error.fix = "; ".join(
                    part
                    for part in (
                        error.fix,
                        f"if that machine is gone: train cancel {mirror.run_id} --forget",
                    )
                    if part
                )
                raise
            for each in gang:
                if not each.ended:
                    each.miss()
                self.trip.record_events(each)
                each.settle()
            return (
                f"{mirror.run_id} is given up, its VM could not be asked ({error}); if that "
                "machine still exists, the run may go on there and cost money"
            )
        for each in gang:
            each.settle()
        return "\n".join(f"{each.run_id} {each.verdict}" for each in gang)

    def _ask_to_end(self, mirrors: Sequence[Mirror]) -> None:
        # Those of a gang on a pool are each on another one.
        there: dict[str, list[Mirror]] = {}
        for mirror in mirrors:
            there.setdefault(self.ledger.remote_of(mirror.run_id), []).append(mirror)
        asked = []
        failure: TrainshedError | None = None
        try:
            with ExitStack() as stack:
                for runs in there.values():
                    try:
                        remote = self._remote_of(runs[0])
                        link = stack.enter_context(self.link(remote))
                        runs = [run for run in runs if self._is_asked(link, run)]
                    except (UsageError, ConnectError, ConnectionLost, Refused) as error:
                        failure = error  # the others are to end all the same
                    else:
                        asked.append((remote, link, runs))
                for remote, link, runs in asked:
                    self.trip.follow(remote, link, runs, tail=0, grade=False).close()
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"interrupted; {mirrors[0].run_id} was asked to end, and may save before it does",
                fix=f"train status\ntrain cancel {mirrors[0].run_id}",
            ) from None
        if failure is not None:
            raise failure

    def _is_asked(self, link: Link, mirror: Mirror) -> bool:
        """False where its VM knows no such run, and this laptop has not heard of it either."""
        try:
            link.call(Cancel(mirror.run_id), Done)
        except Refused as no:
            if no.code != "unknown-run" or mirror.was_heard_of:
                raise
            return False
        return True

    def _never_came(self, mirror: Mirror) -> bool:
        """Whether its VM, asked now, knows nothing of a run of which this laptop never heard.

        Raises:
            TrainshedError: the VM could not be asked.
        """
        try:
            with self.link(self._remote_of(mirror)) as link:
                self.trip.look(link, [mirror], Silence())
        except (UsageError, ConnectError, ConnectionLost) as error:
            raise type(error)(
                f"it is not known whether {mirror.run_id} was started: {error}",
                cause="the command that sent it was cut off before the VM answered",
                fix=f"if that machine is gone: train cancel {mirror.run_id} --forget",
            ) from error
        return mirror.verdict == UNKNOWN

    def pull(self, names: Sequence[str], *, best: bool) -> Result:
        """Everything of these categories or runs that has ended and is not home yet; of the trials
        of sweeps only those that are named.
        """
        names = [name.strip("/") for name in names]
        known = {job.name for job in self.workspace.jobs}
        runs = readable(self._mirrors.all(), self.console)
        meant = [m for m in runs if not names or m.request.job in names]
        wanted = {m.run_id for m in meant if not (m.is_trial and self._may_be_away(m))}
        named = {self.find_run(name).run_id for name in names if name not in known}
        wanted |= named
        mirrors = [m for m in runs if m.run_id in wanted]
        away = [m for m in mirrors if self._may_be_away(m)]
        errors = self._take_home(away)
        for mirror in away:
            error = errors.get(mirror.run_id)
            if error is not None:
                self.console.warn(f"{mirror.run_id}: {why_unasked(mirror, error)}")
            elif mirror.goes_on and mirror.request.outputs:
                self.console.warn(f"{mirror.run_id} is {mirror.verdict}, there is nothing to pull")
            elif mirror.run_id in named and mirror.is_gone and not self._is_home(mirror):
                errors[mirror.run_id] = self._gone(mirror)
            if mirror.verdict == UNKNOWN and isinstance(error, UsageError):
                # Its remote was removed: as far as anybody knows, there is nothing to pull.
                del errors[mirror.run_id]
        if not away:
            self.console.step("everything is home")
        jobs = {m.request.job for m in mirrors} | set(names)
        result = self.trip.settle(
            [job for job in self.workspace.jobs if job.name in jobs], mirrors, best=best
        )
        return replace(
            result,
            trouble=next(iter(errors.values()), result.trouble),
            old=frozenset(m.run_id for m in mirrors if m not in away),
        )

    def _gone(self, mirror: Mirror) -> TrainshedError:
        remote, request = self.ledger.remote_of(mirror.run_id), mirror.request
        again = ["train", request.job, "--remote", remote]
        for pair in request.params.items():
            again += ["-p", "=".join(pair)]
        return Refused(
            f"{remote} has nothing of {mirror.run_id} any more",
            cause="train gc dropped it there, or somebody removed it",
            fix=f"to train it again: {shlex.join(again)}",
        )

    def _may_be_away(self, mirror: Mirror) -> bool:
        """Whether its VM may have something that is not here, and may be asked for it."""
        if mirror.successor is not None and not mirror.ended:
            return False
        if mirror.verdict == UNKNOWN:
            return not (mirror.is_known_unsent or (mirror.settled and not mirror.was_heard_of))
        return mirror.verdict != LOST and not self._is_home(mirror)

    def grade(self, categories: Sequence[str], *, again: bool = False) -> Result:
        """Grade the standing models, those that have changed or whose graders have; or all."""
        from orchestrator.grades.settling import Result

        jobs = self._with_model(categories)
        exam = self.trip.exam
        wanted = [(job, sha256) for job in jobs if (sha256 := exam.adopt(job)) is not None]
        verdicts = exam.grade(wanted, self.console, again=again)
        standings = tuple(map(exam.standing, jobs))
        if not verdicts:
            gaps = ", ".join(f"{standing.category}: {standing.gap}" for standing in standings)
            fix = next((standing.fix for standing in standings if standing.fix), "")
            raise GradeBelow("there is nothing to grade", cause=gaps, fix=fix)
        return Result((), verdicts=tuple(verdicts), standings=standings)

    def ready(self, categories: Sequence[str]) -> tuple[Standing, ...]:
        """The standing models, graded if they were not or if the grader was broken."""
        from orchestrator.grades.grade import can_grade

        jobs = self._with_model(categories)
        exam = self.trip.exam
        wanted = []
        for job in jobs:
            sha256, verdict = exam.adopt(job), exam.standing(job).verdict
            if sha256 and (verdict is None or verdict.outcome is Outcome.BROKEN):
                wanted.append((job, sha256))
        if can_grade():
            exam.grade(wanted, self.console)
        return tuple(map(exam.standing, jobs))

    def shown(self, standings: Iterable[Standing]) -> tuple[Standing, ...]:
        """As the user may see them: in an exam without their metrics."""
        from orchestrator.exams.book import hides_metrics

        if not hides_metrics(self.workspace.root):
            return tuple(standings)
        return tuple(
            replace(one, verdict=one.verdict.hidden if one.verdict else None) for one in standings
        )

    def shown_of(self, result: Result) -> Result:
        """The same of a whole result."""
        from orchestrator.exams.book import hides_metrics

        if not hides_metrics(self.workspace.root):
            return result
        return replace(
            result,
            verdicts=tuple(verdict.hidden for verdict in result.verdicts),
            standings=self.shown(result.standings),
            made={run_id: verdict.hidden for run_id, verdict in result.made.items()},
        )

    def _with_model(self, categories: Sequence[str]) -> tuple[Job, ...]:
        """The categories named, or all that have a model."""
        jobs = find_jobs(self.workspace, categories)
        if categories:
            return jobs
        with_model = tuple(job for job in jobs if job.model is not None)
        return with_model or jobs

    def _look(self, mirrors: Sequence[Mirror]) -> dict[str, TrainshedError]:
        """Learn where runs stand; why a remote could not be asked, by run id."""
        from orchestrator.asking import Asking

        asking = Asking(self.workspace, self.ledger, mirrors)
        self._check_accept(asking)
        try:
            return asking.look(self.link)
        finally:
            # Here, because the remotes are asked by other threads, and the ledger is this one's.
            for mirror in mirrors:
                self.trip.record_events(mirror)

    def _take_home(self, mirrors: Sequence[Mirror]) -> dict[str, TrainshedError]:
        """Bring home what has ended; why a remote could not be asked, by run id."""
        from orchestrator.asking import Asking
        from orchestrator.vm.reach import HeadStart

        def take(remote: Remote, mine: Sequence[Mirror]) -> None:
            with HeadStart(remote, self._accept) as self._begun:
                trip = self.trip  # its imports take as long as the line needs to come up
                with self.link(remote, trip.ahead_of_catching_up(mine)) as link:
                    trip.catch_up(link, mine)

        asking = Asking(self.workspace, self.ledger, mirrors)
        self._check_accept(asking)
        return asking.take_home(take)

    def _check_accept(self, asking: Asking) -> None:
        if self._accept and len(asking.remotes) > 1:
            raise UsageError(
                f"--accept-host-key is for one machine, and {len(asking.remotes)} would be asked: "
                f"{', '.join(asking.remotes)}",
                fix=f"train doctor {min(asking.remotes)} --accept-host-key {self._accept}",
            )

    def _is_home(self, mirror: Mirror) -> bool:
        return is_home(mirror, self.ledger, Shelf(self.workspace.state))

    def _remote_of(self, mirror: Mirror) -> Remote:
        from orchestrator.asking import remote_of

        return remote_of(self.workspace, self.ledger, mirror)
