"""What the commands do in a workspace, each a method; the CLI prints what they return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from orchestrator.config import find_remote, known_remotes, load_workspace
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
from orchestrator.home import data_folder
from orchestrator.ledger import Ledger
from orchestrator.link import Link
from orchestrator.machines import open_link
from orchestrator.mirror import LOST, UNKNOWN, Mirror, age
from orchestrator.money import priced_runs
from orchestrator.plan import Overrides
from orchestrator.roundtrip import Result, RoundTrip
from orchestrator.snapshot import Snapshot, take_snapshot
from orchestrator.spec import Job, Remote, Workspace
from orchestrator.standing import Standing, find_jobs
from orchestrator.tell import Silence
from orchestrator.verdict import Outcome
from remote.protocol import Cancel, Done

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
    """

    def __init__(
        self, workspace: Workspace, console: Console, *, ask: bool = True, accept: str = ""
    ) -> None:
        self.workspace = workspace
        self.console = console
        self._ask = ask
        self._accept = accept
        self.ledger = Ledger.open(data_folder() / "ledger.sqlite3")
        self.trip = RoundTrip(workspace, self.ledger, self.link, console)

    @classmethod
    def here(cls, *, ask: bool = True, accept: str = "", logs_to_stdout: bool = False) -> Self:
        """In the workspace of the current folder."""
        workspace = load_workspace(Path.cwd())
        return cls(workspace, Console(to_stdout=logs_to_stdout), ask=ask, accept=accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()

    def remote(self, name: str) -> Remote:
        """The remote of this name; without one, says which there are."""
        if name:
            return find_remote(self.workspace, name)
        known = ", ".join(remote.name for remote in known_remotes(self.workspace))
        raise UsageError(
            "no remote was named",
            cause=f"known remotes: {known or 'none'}",
            fix="train --remote NAME" if known else "train remote add NAME --host ADDRESS",
        )

    def link(self, remote: Remote) -> Link:
        self.console.doing(f"connecting to {remote.name}")
        return open_link(remote, self.console.asker() if self._ask else None, self._accept)

    def snapshot(self, jobs: tuple[Job, ...]) -> Snapshot:
        """What would go; secrets left out are told."""
        snapshot = take_snapshot(self.workspace, jobs, self.console)
        for secret in snapshot.secrets:
            self.console.warn(f"left out, it looks like a secret: {secret}")
        return snapshot

    def find_run(self, text: str) -> Mirror:
        """A run by id, by the beginning of one, or a category's last.

        Raises:
            UsageError: none, or more than one.
        """
        mirrors = self.trip.runs()
        exact = [m for m in mirrors if m.run_id == text]
        category = [m for m in mirrors if m.request.job == text.strip("/") and m.verdict != UNKNOWN]
        begun = [m for m in mirrors if m.run_id.startswith(text)]
        if exact or category:
            return (exact or category)[-1]
        if len(begun) == 1:
            return begun[0]
        if begun:
            names = ", ".join(m.run_id for m in begun[-5:])
            raise UsageError(
                f"{text!r} could be any of {len(begun)} runs", cause=names, fix="type more of it"
            )
        last = ", ".join(m.run_id for m in mirrors[-5:]) or "none"
        raise UsageError(
            f"no run is or begins with {text!r}",
            cause=f"known here: {last}",
            fix="train status --all",
        )

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
        mirrors = sorted(self.trip.runs(), key=_submitted)
        recent = mirrors if everything else mirrors[-_RECENT:]
        mirrors = [m for m in mirrors if m.was_heard_of or not m.settled]
        shown = [m for m in mirrors if m in recent or not (m.ended or m.verdict == UNKNOWN)]
        errors = {} if local else self._ask_about([m for m in shown if not m.ended])
        for mirror in shown:
            # An end that another command saw just before it was killed.
            if mirror.ended and not mirror.settled:
                self.trip.record_events(mirror)
        costs = {run.usage.run_id: run.cost for run in priced_runs(self.ledger)}
        return [
            StatusRow(
                mirror,
                self.trip.remote_of(mirror),
                costs.get(mirror.run_id),
                self._note(mirror, errors.get(mirror.run_id)),
            )
            for mirror in shown
        ]

    def show_log(self, mirror: Mirror, *, follow: bool) -> None:
        """The copy first, then what the VM has beyond it."""
        is_over = mirror.verdict == LOST or self.trip.is_home(mirror)
        if follow and not is_over:
            remote = self._remote_of(mirror)
            try:
                link = self.link(remote)
            except TrainshedError:
                self.console.log(mirror.request.job, _bytes(mirror.log))
                raise
            self.trip.follow(remote, link, [mirror]).close()
            return
        self.console.log(mirror.request.job, _bytes(mirror.log))
        if is_over:
            return
        try:
            with self.link(self._remote_of(mirror)) as link:
                self.trip.look(link, [mirror], self.console)
        except TrainshedError as error:
            self.console.warn(f"this is the laptop's copy: {error}")

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
            self.trip.follow(remote, link, [mirror], replay=False).close()
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
        runs = self.trip.runs()
        wanted = {m.run_id for m in runs if not names or m.request.job in names}
        wanted |= {self.find_run(name).run_id for name in names if name not in known}
        mirrors = [m for m in runs if m.run_id in wanted]
        away = [m for m in mirrors if not self.trip.is_home(m) and m.verdict != LOST]
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

    def grade(self, categories: Sequence[str]) -> Result:
        """Grade the standing models anew; the grader may have changed."""
        jobs = self._with_model(categories)
        exam = self.trip.exam
        wanted = [(job, sha256) for job in jobs if (sha256 := exam.adopt(job)) is not None]
        verdicts = exam.grade(wanted, self.console)
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
        errors: dict[str, TrainshedError] = {}
        by_remote: dict[str, list[Mirror]] = {}
        for mirror in mirrors:
            by_remote.setdefault(self.trip.remote_of(mirror), []).append(mirror)
        for mine in by_remote.values():
            try:
                with self.link(self._remote_of(mine[0])) as link:
                    if take_home:
                        self.trip.catch_up(link, mine)
                    else:
                        self.trip.look(link, mine, Silence())
            except TrainshedError as error:
                errors |= {mirror.run_id: error for mirror in mine}
        return errors

    def _note(self, mirror: Mirror, error: TrainshedError | None) -> str:
        if error is not None:
            return _why_unasked(mirror, error)
        away = mirror.ended and mirror.verdict != LOST and not self.trip.is_home(mirror)
        return "not here yet: train pull" if away else ""

    def _remote_of(self, mirror: Mirror) -> Remote:
        name = self.trip.remote_of(mirror)
        if not name:
            raise UsageError(
                f"the ledger does not know where {mirror.run_id} was sent",
                cause=f"{self.ledger.path} has no record of it",
                fix="look with the TRAINSHED_HOME that it was started with",
            )
        return self.remote(name)


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


def _submitted(mirror: Mirror) -> float:
    return (mirror.folder / "request.json").stat().st_mtime


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
