"""What the commands do in a workspace, each a method; the CLI prints what they return.

The round trip and its steps are imported by the methods that need them: the others are quick.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orchestrator.config import find_jobs, find_remote, known_remotes, load_workspace
from orchestrator.console import Console
from orchestrator.cost import Cost, format_duration
from orchestrator.duration import parse_duration
from orchestrator.errors import (
    ConnectError,
    ConnectionLost,
    GradeBelow,
    RunFailed,
    TrainshedError,
    UsageError,
)
from orchestrator.home import ledger_file
from orchestrator.ledger import Ledger
from orchestrator.logview import last_lines
from orchestrator.mirror import LOST, UNKNOWN, Mirror, Mirrors, age, readable
from orchestrator.money import priced_runs
from orchestrator.shelf import Shelf
from orchestrator.spec import Job, Remote, Workspace
from orchestrator.tell import Silence
from orchestrator.verdict import Outcome
from remote.protocol import CHUNK_BYTES, Cancel, Done
from remote.tree import is_digest

if TYPE_CHECKING:
    from orchestrator.link import Call, Link
    from orchestrator.plan import Overrides
    from orchestrator.reach import HeadStart
    from orchestrator.roundtrip import Result, RoundTrip
    from orchestrator.snapshot import Snapshot
    from orchestrator.standing import Standing

# How many runs `train status` shows without --all, besides those that go on.
_RECENT = 10


@dataclass(frozen=True)
class StatusRow:
    """A run as `train status` shows it.

    Attributes:
        note: what the user should know beyond the state: not asked, not pulled.
    """

    mirror: Mirror
    remote: str
    cost: Cost | None
    note: str = ""


class Desk:
    """One command's work in one workspace.

    Args:
        ask: whether a person may be asked.
        accept: a host key's fingerprint trusted beforehand.
        begun: a connection to the remote that is asked first.
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
        self.ledger.close()

    def link(self, remote: Remote, ahead: Iterable[Call] = ()) -> Link:
        from orchestrator.reach import open_link

        self.console.doing(f"connecting to {remote.name}")
        asker = self.console.asker() if self._ask else None
        begun, self._begun = self._begun, None
        return open_link(remote, asker, self._accept, ahead, begun)

    def snapshot(self, jobs: tuple[Job, ...]) -> Snapshot:
        """What would go; secrets left out are told."""
        from orchestrator.snapshot import take_snapshot

        return take_snapshot(self.workspace, jobs, self.console)

    def find_run(self, text: str) -> Mirror:
        """A run by id, by the beginning of one, or a category's last.

        Raises:
            UsageError: none, or more than one.
        """
        exact = self._mirrors.get(text)
        if exact is not None and readable([exact], self.console):
            return exact
        job = text.strip("/")
        for mirror in self._runs_begun(f"{job}-"):
            if mirror.verdict != UNKNOWN and mirror.request.job == job:
                return mirror
        begun = tuple(self._runs_begun(text))
        if len(begun) == 1:
            return begun[0]
        if begun:
            names = ", ".join(m.run_id for m in reversed(begun[:5]))
            raise UsageError(
                f"{text!r} could be any of {len(begun)} runs", cause=names, fix="type more of it"
            )
        last = ", ".join(m.run_id for m in self._mirrors.latest(5)) or "none"
        raise UsageError(
            f"no run is or begins with {text!r}",
            cause=f"known here: {last}",
            fix="train status --all",
        )

    def _runs_begun(self, text: str) -> Iterator[Mirror]:
        """Runs whose ids begin with `text` and whose requests can be read, the last one first."""
        for mirror in self._mirrors.begun(text):
            yield from readable([mirror], self.console)

    def attach(self, mirror: Mirror) -> Result:
        """Follow a run to its end, pull, grade."""
        jobs = tuple(j for j in self.workspace.jobs if j.name == mirror.request.job)
        if not self.trip.is_home(mirror):
            remote = self._remote_of(mirror)
            with self.link(remote) as link:
                self.trip.follow(remote, link, [mirror]).close()
        return self.trip.settle(jobs, [mirror], best=True)

    def status(self, *, everything: bool, local: bool) -> list[StatusRow]:
        """Runs that go on and the last others, freshly asked where their remote answers."""
        recent = self._mirrors.all() if everything else self._mirrors.latest(_RECENT)
        chosen = {m for m in recent if m.was_heard_of or not m.settled}
        chosen |= {m for m in self._mirrors.unsettled() if not (m.ended or m.verdict == UNKNOWN)}
        shown = readable(sorted(chosen, key=Mirror.made_at), self.console)
        unsure = [] if local else [m for m in shown if not m.ended]
        errors = self._ask_about(unsure) if unsure else {}
        for mirror in shown:
            # An end that another command saw just before it was killed.
            if mirror.ended and not mirror.settled:
                self.trip.record_events(mirror)
        runs = priced_runs(self.ledger, {mirror.run_id for mirror in shown})
        costs = {run.usage.run_id: run.cost for run in runs}
        return [
            StatusRow(
                mirror,
                self._remote_name(mirror),
                costs.get(mirror.run_id),
                self._note(mirror, errors.get(mirror.run_id)),
            )
            for mirror in shown
        ]

    def show_log(self, mirror: Mirror, *, follow: bool, tail: int | None = None) -> None:
        """The copy first, then what the VM has beyond it.

        Args:
            tail: only so many lines of what is there now; without `follow` nothing else is read,
                here or there, and nothing is kept.
        """
        is_over = mirror.verdict == LOST or self._is_home(mirror)
        if is_over:
            self._show_copy(mirror, tail)
        elif follow:
            self._follow_log(mirror, tail)
        elif tail is not None:
            self._show_end(mirror, tail)
        else:
            self._show_copy(mirror, tail)
            try:
                with self.link(self._remote_of(mirror)) as link:
                    self.trip.look(link, [mirror], self.console)
            except TrainshedError as error:
                self.console.warn(f"this is the laptop's copy: {error}")

    def _follow_log(self, mirror: Mirror, tail: int | None) -> None:
        remote = self._remote_of(mirror)
        try:
            link = self.link(remote)
        except TrainshedError:
            self._show_copy(mirror, tail)
            raise
        if tail is not None:
            self._show_copy(mirror, tail)
        self.trip.follow(remote, link, [mirror], replay=tail is None, grade=False).close()

    def _show_end(self, mirror: Mirror, tail: int) -> None:
        from orchestrator.follow import read_end

        try:
            with self.link(self._remote_of(mirror)) as link:
                end = io.BytesIO(read_end(link, mirror))
        except TrainshedError as error:
            self._show_copy(mirror, tail)
            self.console.warn(f"this is the laptop's copy: {error}")
        else:
            end.seek(last_lines(end, tail))
            self.console.log(mirror.request.job, end.read())

    def _show_copy(self, mirror: Mirror, tail: int | None) -> None:
        if mirror.log.exists():
            job = mirror.request.job
            with mirror.log.open("rb") as copy:
                copy.seek(0 if tail is None else last_lines(copy, tail))
                while block := copy.read(CHUNK_BYTES):
                    self.console.log(job, block)

    def cancel(self, mirror: Mirror) -> str:
        """Ask it to end and wait for that; says what became of it."""
        if mirror.ended:
            return f"{mirror.run_id} has already ended: {mirror.verdict}"
        if mirror.verdict == UNKNOWN and not self._is_known_there(mirror):
            mirror.settle()
            return f"{mirror.run_id} was never sent; it is forgotten"
        remote = self._remote_of(mirror)
        with self.link(remote) as link:
            link.call(Cancel(mirror.run_id), Done)
            self.trip.follow(remote, link, [mirror], replay=False, grade=False).close()
        mirror.settle()
        return f"{mirror.run_id} {mirror.verdict}"

    def _is_known_there(self, mirror: Mirror) -> bool:
        """Whether the VM has a run of which this laptop never heard back."""
        with self.link(self._remote_of(mirror)) as link:
            self.trip.look(link, [mirror], Silence())
        return mirror.verdict != UNKNOWN

    def pull(self, names: Sequence[str], *, best: bool) -> Result:
        """Everything of these categories or runs that has ended and is not home yet."""
        names = [name.strip("/") for name in names]
        known = {job.name for job in self.workspace.jobs}
        runs = readable(self._mirrors.all(), self.console)
        wanted = {m.run_id for m in runs if not names or m.request.job in names}
        wanted |= {self.find_run(name).run_id for name in names if name not in known}
        mirrors = [m for m in runs if m.run_id in wanted]
        away = [m for m in mirrors if not self._is_home(m) and m.verdict != LOST]
        errors = self._ask_about(away, take_home=True)
        for mirror in away:
            error = errors.get(mirror.run_id)
            if error is not None:
                self.console.warn(f"{mirror.run_id}: {_why_unasked(mirror, error)}")
            elif not mirror.ended and mirror.verdict != UNKNOWN:
                self.console.warn(f"{mirror.run_id} is {mirror.verdict}, there is nothing to pull")
        jobs = {m.request.job for m in mirrors} | set(names)
        result = self.trip.settle(
            [job for job in self.workspace.jobs if job.name in jobs], mirrors, best=best
        )
        return replace(result, trouble=next(iter(errors.values()), result.trouble))

    def grade(self, categories: Sequence[str], *, again: bool = False) -> Result:
        """Grade the standing models, those that have changed or whose graders have; or all."""
        from orchestrator.roundtrip import Result

        jobs = self._with_model(categories)
        exam = self.trip.exam
        wanted = [(job, sha256) for job in jobs if (sha256 := exam.adopt(job)) is not None]
        verdicts = exam.grade(wanted, self.console, again=again)
        standings = tuple(map(exam.standing, jobs))
        if not verdicts:
            gaps = ", ".join(f"{standing.category}: {standing.gap}" for standing in standings)
            raise GradeBelow("there is nothing to grade", cause=gaps)
        return Result((), verdicts=tuple(verdicts), standings=standings)

    def ready(self, categories: Sequence[str]) -> tuple[Standing, ...]:
        """The standing models, graded if they were not or if the grader was broken."""
        jobs = self._with_model(categories)
        exam = self.trip.exam
        wanted = []
        for job in jobs:
            sha256, verdict = exam.adopt(job), exam.standing(job).verdict
            if sha256 and (verdict is None or verdict.outcome is Outcome.BROKEN):
                wanted.append((job, sha256))
        exam.grade(wanted, self.console)
        return tuple(map(exam.standing, jobs))

    def _with_model(self, categories: Sequence[str]) -> tuple[Job, ...]:
        """The categories named, or all that have a model."""

        jobs = find_jobs(self.workspace, categories)
        if categories:
            return jobs
        with_model = tuple(job for job in jobs if job.model is not None)
        return with_model or jobs

    def _ask_about(
        self, mirrors: Sequence[Mirror], *, take_home: bool = False
    ) -> dict[str, TrainshedError]:
        """Ask each remote once about its runs; why it could not be asked, by run id."""
        by_remote: dict[str, list[Mirror]] = {}
        for mirror in mirrors:
            by_remote.setdefault(self._remote_name(mirror), []).append(mirror)
        troubles: dict[str, TrainshedError] = {}
        remotes: dict[str, Remote] = {}
        known = {remote.name: remote for remote in known_remotes(self.workspace)}
        for name, mine in by_remote.items():
            try:
                remotes[name] = known.get(name) or self._remote_of(mine[0])
            except UsageError as error:
                troubles[name] = error
        ask = self._take_home_from if take_home else self._look_at
        troubles |= ask(remotes, by_remote)
        return {mirror.run_id: e for name, e in troubles.items() for mirror in by_remote[name]}

    def _look_at(
        self, remotes: dict[str, Remote], by_remote: dict[str, list[Mirror]]
    ) -> dict[str, TrainshedError]:
        """All at once; the ledger is this thread's alone."""
        from orchestrator.follow import first_look, look_at_all

        ways = {
            name: partial(self.link, remote, [first_look(by_remote[name])])
            for name, remote in remotes.items()
        }
        try:
            return look_at_all(ways, by_remote)
        finally:
            for name in remotes:
                for mirror in by_remote[name]:
                    self.trip.record_events(mirror)

    def _take_home_from(
        self, remotes: dict[str, Remote], by_remote: dict[str, list[Mirror]]
    ) -> dict[str, TrainshedError]:
        """One after the other: each may take all of the line."""
        from orchestrator.reach import HeadStart

        troubles: dict[str, TrainshedError] = {}
        for name, remote in remotes.items():
            mirrors = by_remote[name]
            with HeadStart(remote, self._accept) as self._begun:
                trip = self.trip  # its imports take as long as the line needs to come up
                try:
                    with self.link(remote, trip.ahead_of_catching_up(mirrors)) as link:
                        trip.catch_up(link, mirrors)
                except TrainshedError as error:
                    troubles[name] = error
        return troubles

    def _note(self, mirror: Mirror, error: TrainshedError | None) -> str:
        if error is not None:
            return _why_unasked(mirror, error)
        away = mirror.ended and mirror.verdict != LOST and not self._is_home(mirror)
        return "not here yet: train pull" if away else ""

    def _is_home(self, mirror: Mirror) -> bool:
        """As the round trip has it, which is asked only where something is missing."""
        seen, shelf = mirror.seen, Shelf(self.workspace.state)
        if seen is None or not mirror.ended:
            return False
        recorded = {fact.path for fact in self.ledger.artifacts(mirror.run_id)}
        made = seen.report.artifacts
        is_all_here = all(
            a.path in recorded and is_digest(a.sha256) and shelf.find(a.sha256) for a in made
        )
        return is_all_here or self.trip.is_home(mirror)

    def _remote_name(self, mirror: Mirror) -> str:
        """The name of the remote a run was sent to; empty where nobody recorded it."""
        fact = self.ledger.run(mirror.run_id)
        return fact.remote if fact else ""

    def _remote_of(self, mirror: Mirror) -> Remote:
        name = self._remote_name(mirror)
        if not name:
            raise UsageError(
                f"the ledger does not know where {mirror.run_id} was sent",
                cause=f"{self.ledger.path} has no record of it",
                fix="look with the TRAINSHED_HOME that it was started with",
            )
        return find_remote(self.workspace, name)


def judge(result: Result, *, runs: bool = True) -> None:
    """Raise what a command's exit code has to tell of how it went.

    Args:
        runs: whether a run that did not succeed is such a thing.

    Raises:
        RunFailed, GradeBelow, or what kept something from coming home.
    """
    failed = [m for m in result.mirrors if m.verdict != "succeeded"] if runs else []
    if failed:
        words = ", ".join(f"{m.run_id} {m.verdict}" for m in failed)
        raise RunFailed(words, fix=f"train logs {failed[0].run_id}")
    if result.trouble is not None:
        raise result.trouble
    empty = [m for m in result.mirrors if m.model_is_missing] if runs else []
    if empty:
        raise RunFailed(
            f"{empty[0].run_id} succeeded, but made no model",
            cause=f"train.yaml declares: {', '.join(empty[0].request.outputs)}",
            fix="let the script save the model under that name, beside itself",
        )
    bad = [v for v in result.verdicts if v.outcome is not Outcome.GRADED]
    if bad:
        raise GradeBelow("; ".join(f"{v.category} {v.outcome.value}: {v.reason}" for v in bad))


def refuse_unready(standings: Iterable[Standing]) -> None:
    """Raise GradeBelow unless every model has points to show."""
    bad = [standing for standing in standings if not standing.is_graded]
    if bad:
        missing = [standing.category for standing in bad if standing.sha256 is None]
        raise GradeBelow(
            "not ready: " + "; ".join(f"{standing.category}: {standing.gap}" for standing in bad),
            fix=f"train {missing[0]} --remote NAME" if missing else "",
        )


def overrides(gpus: int | None, time_limit: str, params: Sequence[str]) -> Overrides:
    """The command line's word over train.yaml.

    Raises:
        UsageError: not a duration, or not K=V.
    """
    from orchestrator.plan import Overrides

    limit_s = None
    if time_limit:
        try:
            limit_s = parse_duration(time_limit)
        except ValueError as error:
            raise UsageError(f"--time-limit: {error}", fix="--time-limit 40m") from None
    given = {}
    for param in params:
        name, equals, value = param.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--param takes NAME=VALUE, not {param!r}", fix="--param lr=0.001")
        given[name] = value
    return Overrides(gpus, limit_s, given)


def _why_unasked(mirror: Mirror, error: TrainshedError) -> str:
    if not isinstance(error, ConnectError | ConnectionLost):
        return str(error)
    seen = mirror.seen
    last = f"last seen {format_duration(age(seen))} ago" if seen else "never seen"
    return f"unreachable ({last}): {error}"
