"""The main job, step by step: from the laptop's folder to graded models and their cost.

Read `train` aloud and you know what the program does. Each step can be cut at any point; the same
command again goes on from what is there. What grades is imported once the VM is at work.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from orchestrator.ahead import Ahead, LastSent, look_ahead
from orchestrator.cost import PricedRun
from orchestrator.errors import (
    AgentBroken,
    ConnectionLost,
    Interrupted,
    ModelDamaged,
    Refused,
    TrainshedError,
    UsageError,
)
from orchestrator.events import run_events
from orchestrator.filelock import alone
from orchestrator.follow import Follower, OnEnd, first_look, look, reconnect
from orchestrator.ledger import ArtifactFact, Ledger, Reporter, RunEvent, RunFact
from orchestrator.link import Call, Link
from orchestrator.mirror import LOST, UNKNOWN, Mirror, Mirrors, readable, why_lost
from orchestrator.money import priced_runs
from orchestrator.plan import Overrides, make_request, make_run_id, same_work
from orchestrator.pull import accept, first_fetch, pull
from orchestrator.size import format_size
from orchestrator.snapshot import Snapshot, take_snapshot
from orchestrator.spec import Job, Remote, Workspace
from orchestrator.sync import submit
from orchestrator.tell import Silence, Teller
from orchestrator.verdict import Verdict
from remote.protocol import RunReport
from remote.runfolder import Artifact, RunRequest, RunState, State

if TYPE_CHECKING:
    from orchestrator.examiner import Examiner
    from orchestrator.standing import Exam, Standing

_SUBMIT_RETRY_LIMIT_S = 20.0


@dataclass(frozen=True)
class Order:
    """What the user asked for.

    Attributes:
        best: whether the best model or this run's goes into the folder.
    """

    workspace: Workspace
    jobs: tuple[Job, ...]
    remote: Remote
    overrides: Overrides = field(default_factory=Overrides)
    detach: bool = False
    best: bool = True


@dataclass(frozen=True)
class Result:
    """How it went, for the report.

    Attributes:
        runs: with what they cost; one that goes on costs up to now.
        verdicts: of the models that were graded now.
        standings: of the categories asked for, after it all.
        trouble: the first thing that kept something from coming home: a remote that could not be
            asked, or a file that was not what the VM had hashed.
        made: what each run's own model is worth, by run id, whether it stands or not.
    """

    mirrors: tuple[Mirror, ...]
    runs: tuple[PricedRun, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    standings: tuple[Standing, ...] = ()
    trouble: TrainshedError | None = None
    made: Mapping[str, Verdict] = field(default_factory=dict)


class Connect(Protocol):
    """Gives a link to a remote; called again when a line is lost."""

    def __call__(self, remote: Remote, ahead: Iterable[Call] = ()) -> Link:
        """`ahead`: calls sent along, as `Link` has them."""


class RoundTrip:
    """Everything the steps have in common."""

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        connect: Connect,
        tell: Teller,
    ) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.connect = connect
        self.tell = tell
        self.mirrors = Mirrors(workspace.state)
        self._trouble: TrainshedError | None = None
        self._troubled: set[str] = set()
        self._examiner: Examiner | None = None
        self._graded: list[Verdict] = []
        self._resumed: set[str] = set()

    @cached_property
    def exam(self) -> Exam:
        from orchestrator.standing import Exam

        return Exam(self.workspace, self.ledger)

    def train(self, order: Order) -> Result:
        """Sync, queue, follow, pull, grade, promote.

        Raises:
            TrainshedError: each step's own; runs that were started go on whatever happens here.
        """
        snapshot = take_snapshot(order.workspace, order.jobs, self.tell)
        mirrors = self.plan_runs(order, snapshot)

        last = LastSent(order.workspace.state / "sent" / order.remote.name)
        ahead = Ahead()
        if all(mirror.seen is None for mirror in mirrors):
            ahead = look_ahead(snapshot, tuple(mirror.request for mirror in mirrors), last)
        link = self.connect(order.remote, ahead.calls)
        try:
            self.tell.step(f"connected to {order.remote.name}: {link.hello.system}")
            if known := [mirror for mirror in mirrors if mirror.seen is not None]:
                # Of an interrupted command; since then they may have ended, or the VM been renewed.
                # What they wrote meanwhile is told when they are followed.
                self._look(link, known, Silence(), self.take_home)
                mirrors = self.plan_runs(order, snapshot)
            open_ones = tuple(mirror for mirror in mirrors if not mirror.ended)
            if open_ones:
                link = self.submit(order.remote, link, snapshot, open_ones, ahead.told)
                last.keep(snapshot.code)
            if order.detach:
                return Result(mirrors)
            link = self.follow(order.remote, link, open_ones)
        finally:
            link.close()

        return self.settle(order.jobs, mirrors, best=order.best)

    def submit(
        self,
        remote: Remote,
        link: Link,
        snapshot: Snapshot,
        mirrors: tuple[Mirror, ...],
        sent: str = "",
    ) -> Link:
        """Send what the VM lacks and start the runs; the link returned is the one that works.

        Args:
            sent: what to tell if the VM lacks nothing.

        Raises:
            ConnectionLost: there was no way back to the VM for a while.
        """
        while True:
            try:
                requests = tuple(mirror.request for mirror in mirrors)
                submit(link, snapshot, requests, self.tell, sent)
            except ConnectionLost as lost:
                link.close()
                # Nothing may have been started yet, so somebody should soon know.
                link = reconnect(
                    lambda: self.connect(remote), lost, self.tell, limit_s=_SUBMIT_RETRY_LIMIT_S
                )
            else:
                self._mark_submitted(link, mirrors)
                return link

    def _mark_submitted(self, link: Link, mirrors: Iterable[Mirror]) -> None:
        """The VM has them, which is paid for from now on, even if it never speaks again."""
        for mirror in mirrors:
            if mirror.seen is None:
                report = RunReport(mirror.run_id, mirror.request.job, alive=True, stamp="")
                mirror.see(report, link.hello.boot_id, link.clock_off_s)
                now = datetime.now(UTC)
                queued = RunEvent(mirror.run_id, State.QUEUED.value, now, Reporter.LAPTOP)
                self.ledger.add(queued)
                self.tell.step(f"submitted {mirror.run_id}")

    def plan_runs(self, order: Order, snapshot: Snapshot) -> tuple[Mirror, ...]:
        """A run for each job, recorded before anything is sent: the one of a command that was
        interrupted before it gave its result, if it asked for the same work; else a new one.
        """
        # Two commands at once would each make one.
        with alone(order.workspace.state / "planning"):
            known = readable(self.mirrors.unsettled(), self.tell)
            return tuple(self._plan_run(job, order, snapshot, known) for job in order.jobs)

    def _plan_run(
        self, job: Job, order: Order, snapshot: Snapshot, known: Iterable[Mirror]
    ) -> Mirror:
        request = make_request(job, order.remote, snapshot, order.overrides)
        mirror = self._unfinished(request, order.remote, known)
        if mirror is None:
            run_id = make_run_id(job.name, datetime.now(UTC), secrets.token_hex(2))
            mirror = self.mirrors.make(request._replace(run_id=run_id))
        elif mirror.run_id not in self._resumed:
            self._resumed.add(mirror.run_id)
            self.tell.step(f"going on with {mirror.run_id}")
        self.ledger.add(self._run_fact(mirror, order.remote))
        return mirror

    def follow(
        self,
        remote: Remote,
        link: Link,
        mirrors: Sequence[Mirror],
        *,
        replay: bool = True,
        grade: bool = True,
    ) -> Link:
        """Until all have ended; each one's outputs are pulled as soon as it has, and graded.

        Args:
            replay: whether the logs are told from their beginning, when another command has
                followed these runs before.
            grade: whether models are graded as they come; else they are when it is settled.

        Raises:
            Interrupted: the user pressed Ctrl-C; the runs go on.
        """
        follower = Follower(lambda: self.connect(remote), mirrors, self.tell, self.take_home)
        if replay:
            follower.replay()
        try:
            with self._examining(mirrors) if grade else nullcontext():
                return follower.follow(link)
        except KeyboardInterrupt:
            raise _detached(mirrors, remote) from None

    @contextmanager
    def _examining(self, mirrors: Sequence[Mirror]) -> Iterator[None]:
        """Grade what comes home in the block, in a process that is ready by then.

        Raises:
            Interrupted: the user did not wait for the last of it.
        """
        examiner = self._make_examiner(mirrors)
        if examiner is None:
            yield
            return
        with examiner as self._examiner:
            try:
                for mirror in mirrors:
                    self._examine(mirror)
                yield
                try:
                    examiner.finish()
                except KeyboardInterrupt:
                    raise _left_ungraded() from None
            finally:
                self._graded += examiner.verdicts
                self._examiner = None

    def _make_examiner(self, mirrors: Sequence[Mirror]) -> Examiner | None:
        """None where nothing can be graded, or not yet: `settle` tells what is in the way."""
        from orchestrator.examiner import Examiner
        from orchestrator.grade import can_grade

        names = {mirror.request.job for mirror in mirrors}
        jobs = [job for job in self.workspace.jobs if job.name in names]
        if not any(map(self.exam.grader_path, jobs)) or not can_grade():
            return None
        with suppress(OSError):
            return Examiner(self.workspace, self.ledger.path, self.tell)
        return None

    def _examine(self, mirror: Mirror) -> None:
        """Have its category's models graded that are here and have no verdict."""
        if self._examiner is None:
            return
        # What keeps a model from being looked at is told by `settle`.
        with suppress(OSError, TrainshedError):
            for job in self.workspace.jobs:
                if job.name == mirror.request.job:
                    for sha256 in self.exam.ungraded(job):
                        self._examiner.examine(job, sha256)

    def catch_up(self, link: Link, mirrors: Sequence[Mirror]) -> None:
        """Take home what has ended by now, without waiting for the rest."""
        self._look(link, mirrors, self.tell, self.take_home)

    def ahead_of_catching_up(self, mirrors: Sequence[Mirror]) -> tuple[Call, ...]:
        """What `catch_up` asks first, as far as it is known before the VM has said a word."""
        first = mirrors[0]
        if first.verdict == UNKNOWN or (first.folder / "partial").exists():
            return (first_look(mirrors),)
        return (first_look(mirrors), *first_fetch(first.run_id, first.request.outputs))

    def look(self, link: Link, mirrors: Sequence[Mirror], tell: Teller) -> None:
        """Learn where they stand and what they wrote, and take nothing home."""
        self._look(link, mirrors, tell, lambda link, mirror: None)

    def take_home(self, link: Link, mirror: Mirror) -> None:
        """Record how a run ended, and pull its outputs."""
        seen = mirror.seen
        assert seen is not None
        self.record_events(mirror)
        state = seen.report.state
        if mirror.verdict == LOST:
            self.tell.warn(f"{mirror.run_id} is lost: {why_lost(seen)}")
            return
        if state is not None:
            self.tell.step(f"{mirror.run_id} {_ending(state)}")
        request = mirror.request
        sound = accept(seen.report.artifacts, request.outputs)
        if len(sound) < len(seen.report.artifacts):
            self.tell.warn(f"{link.name} offered files that {request.job} does not declare")
        for artifact in sound:
            try:
                self._pull(link, mirror, artifact)
            except AgentBroken:
                raise
            except (ModelDamaged, UsageError, Refused) as trouble:
                # One bad file never keeps the other runs from being followed and pulled.
                self._note(trouble, [mirror])
        if not sound and state is not None and state.state is State.SUCCEEDED:
            wanted = ", ".join(request.outputs)
            self.tell.warn(f"{mirror.run_id} made none of its outputs: {wanted}")
        self._examine(mirror)

    def settle(self, jobs: Iterable[Job], mirrors: Sequence[Mirror], *, best: bool) -> Result:
        """Grade what has no verdict yet, then put the right model into each folder."""
        jobs = tuple(jobs)
        try:
            tried = {(verdict.category, verdict.sha256) for verdict in self._graded}
            wanted = [
                (job, sha256)
                for job in jobs
                for sha256 in self.exam.ungraded(job)
                if (job.name, sha256) not in tried
            ]
            verdicts = [*self._graded, *self.exam.grade(wanted, self.tell)]
        except KeyboardInterrupt:
            raise _left_ungraded() from None
        for job in jobs:
            mine = [m for m in mirrors if m.request.job == job.name]
            try:
                self._place(job, mine, best=best)
            except (ModelDamaged, UsageError) as trouble:
                self._note(trouble, mine)
        for mirror in mirrors:
            # With trouble it will not get better by itself: the same command is then a new run.
            if mirror.ended and (mirror.run_id in self._troubled or self.is_home(mirror)):
                mirror.settle()
        ids = {mirror.run_id for mirror in mirrors}
        runs = priced_runs(self.ledger, ids)
        standings = tuple(self.exam.standing(job) for job in jobs if job.model is not None)
        made = {
            mirror.run_id: verdict
            for job in jobs
            for mirror in mirrors
            if mirror.request.job == job.name
            and (verdict := self._verdict_of(job, mirror)) is not None
        }
        return Result(tuple(mirrors), runs, tuple(verdicts), standings, self._trouble, made)

    def record_events(self, mirror: Mirror) -> None:
        """Add to the ledger what the VM has reported of this run."""
        seen, fact = mirror.seen, self.ledger.run(mirror.run_id)
        if seen is not None and fact is not None:
            events = run_events(mirror.run_id, seen, fact.submitted_at, mirror.last_use_at())
            self.ledger.add(*events)

    def is_home(self, mirror: Mirror) -> bool:
        """Whether it has ended, and all it made is on the shelf."""
        seen = mirror.seen
        if seen is None or not mirror.ended:
            return False
        recorded = {fact.path for fact in self.ledger.artifacts(mirror.run_id)}
        return all(
            artifact.path in recorded and self.exam.shelf.find(artifact.sha256)
            for artifact in accept(seen.report.artifacts, mirror.request.outputs)
        )

    def remote_of(self, mirror: Mirror) -> str:
        """The name of the remote a run was sent to."""
        fact = self.ledger.run(mirror.run_id)
        return fact.remote if fact else ""

    def _unfinished(
        self, request: RunRequest, remote: Remote, known: Iterable[Mirror]
    ) -> Mirror | None:
        for mirror in known:
            if (
                same_work(mirror.request, request)
                and not mirror.settled
                and mirror.verdict != LOST
                and self.remote_of(mirror) in ("", remote.name)
            ):
                return mirror
        return None

    def _pull(self, link: Link, mirror: Mirror, artifact: Artifact) -> None:
        shelf, partial = self.exam.shelf, mirror.folder / "partial"
        # Another `train` may follow the same run; both would write to the same partial file.
        with alone(mirror.folder / "pulling"):
            path = pull(link, mirror.run_id, artifact, partial, shelf, self.tell)
            known = {fact.path for fact in self.ledger.artifacts(mirror.run_id)}
            if artifact.path not in known:
                now = datetime.now(UTC)
                self.ledger.add(
                    ArtifactFact(
                        mirror.run_id, artifact.path, artifact.size_bytes, artifact.sha256, now
                    )
                )
        size = format_size(artifact.size_bytes)
        self.tell.step(f"pulled {artifact.path}, {size}, sha256 {path.parent.name[:12]} verified")

    def _verdict_of(self, job: Job, mirror: Mirror) -> Verdict | None:
        for fact in self.ledger.artifacts(mirror.run_id):
            if fact.path == str(job.model):
                return self.exam.verdict_on(job, fact.sha256)
        return None

    def _note(self, trouble: TrainshedError, mirrors: Iterable[Mirror]) -> None:
        self.tell.warn(f"{trouble}: {trouble.cause}" if trouble.cause else str(trouble))
        self._trouble = self._trouble or trouble
        self._troubled |= {mirror.run_id for mirror in mirrors}

    def _place(self, job: Job, mirrors: Sequence[Mirror], *, best: bool) -> None:
        latest = None
        for mirror in mirrors:
            for fact in self.ledger.artifacts(mirror.run_id):
                if fact.path == str(job.model):
                    latest = fact.sha256
                else:
                    self._place_other(job, mirror, fact)
        if best and self.exam.grader_path(job) is not None:
            latest = None
        elif latest is None:
            return
        moved = self.exam.promote(job, latest=latest)
        if moved is not None:
            self.tell.step(f"{job.model} is now the model {moved[:12]}")

    def _place_other(self, job: Job, mirror: Mirror, fact: ArtifactFact) -> None:
        """Outputs that are not the model go beside the run's log: only the model is compared,
        and a file of the workspace is never overwritten by one from a VM.
        """
        target = mirror.folder / "outputs" / fact.path
        if target.exists():
            return
        try:
            self.exam.shelf.place(fact.sha256, target)
        except OSError as error:
            raise UsageError(f"{target} cannot be written", cause=str(error)) from error
        self.tell.step(f"{fact.path} is in {target.parent}")

    def _run_fact(self, mirror: Mirror, remote: Remote) -> RunFact:
        known = self.ledger.run(mirror.run_id)
        if known is not None:
            return known
        request = mirror.request
        return RunFact(
            run_id=mirror.run_id,
            workspace=str(self.workspace.root),
            category=request.job,
            remote=remote.name,
            snapshot=request.tree,
            command=request.command,
            submitted_at=datetime.now(UTC),
            price_per_hour=remote.price.per_hour if remote.price else None,
            currency=remote.price.currency if remote.price else "",
            price_source="config" if remote.price else "",
            params=tuple(sorted(request.params.items())),
        )

    def _look(self, link: Link, mirrors: Sequence[Mirror], tell: Teller, on_end: OnEnd) -> None:
        try:
            look(link, mirrors, tell, on_end)
        finally:
            for mirror in mirrors:
                self.record_events(mirror)


def _detached(mirrors: Sequence[Mirror], remote: Remote) -> Interrupted:
    """What the user reads after Ctrl-C: what goes on, and the next three commands."""
    names = [mirror.run_id for mirror in mirrors if not mirror.ended]
    if not names:
        return Interrupted("interrupted; the runs have ended", fix="train pull")
    return Interrupted(
        f"detached; on {remote.name} goes on: {', '.join(names)}",
        fix=f"train status\ntrain attach {names[0]}\ntrain cancel {names[0]}",
    )


def _left_ungraded() -> Interrupted:
    return Interrupted(
        "interrupted before all was graded; what was pulled is here", fix="train pull"
    )


def _ending(state: RunState) -> str:
    """How a run ended, in words."""
    details = [state.reason] if state.reason else []
    if state.exit_code not in (None, 0) and state.signal is None:
        details.append(f"exit code {state.exit_code}")
    return state.state.value + (f" ({', '.join(details)})" if details else "")
