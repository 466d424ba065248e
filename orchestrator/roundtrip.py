"""The main job, step by step: from the laptop's folder to graded models and their cost.

Read `train` aloud and you know what the program does. Each step can be cut at any point; the same
command again goes on from what is there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from orchestrator.cost import PricedRun
from orchestrator.errors import ConnectionLost, Interrupted, ModelDamaged, TrainshedError
from orchestrator.follow import Follower, OnEnd
from orchestrator.ledger import ArtifactFact, Ledger, Reporter, RunEvent, RunFact
from orchestrator.link import Link
from orchestrator.mirror import LOST, Mirror, Mirrors, why_lost
from orchestrator.money import priced_runs
from orchestrator.plan import Overrides, make_request, make_run_id, same_work
from orchestrator.pull import accept, pull
from orchestrator.shelf import alone
from orchestrator.size import format_size
from orchestrator.snapshot import Snapshot, take_snapshot
from orchestrator.spec import Job, Remote, Workspace
from orchestrator.standing import Exam, Standing
from orchestrator.sync import submit
from orchestrator.tell import Teller
from orchestrator.verdict import Verdict
from remote import clock
from remote.record import Malformed
from remote.runfolder import Artifact, RunRequest, RunState, State


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
    """

    mirrors: tuple[Mirror, ...]
    runs: tuple[PricedRun, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    standings: tuple[Standing, ...] = ()
    trouble: TrainshedError | None = None


class RoundTrip:
    """Everything the steps have in common.

    Args:
        connect: gives a link to a remote; called again when a line is lost.
    """

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        connect: Callable[[Remote], Link],
        tell: Teller,
    ) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.connect = connect
        self.tell = tell
        self.mirrors = Mirrors(workspace.state)
        self.exam = Exam(workspace, ledger)
        self._trouble: TrainshedError | None = None

    def train(self, order: Order) -> Result:
        """Sync, queue, follow, pull, grade, promote.

        Raises:
            TrainshedError: each step's own; runs that were started go on whatever happens here.
        """
        snapshot = take_snapshot(order.workspace, order.jobs, self.tell)
        for secret in snapshot.secrets:
            self.tell.warn(f"not sent, it looks like a secret: {secret}")
        with alone(order.workspace.state / "planning"):
            mirrors = self.plan_runs(order, snapshot)

        link = self.connect(order.remote)
        try:
            self.tell.step(f"connected to {order.remote.name}: {link.hello.system}")
            submit(link, snapshot, tuple(m.request for m in mirrors), self.tell)
            self.tell.step(f"submitted {', '.join(m.run_id for m in mirrors)}")
            if order.detach:
                return Result(mirrors)
            link = self.follow(order.remote, link, mirrors)
        finally:
            link.close()

        return self.settle(order.jobs, mirrors, best=order.best)

    def plan_runs(self, order: Order, snapshot: Snapshot) -> tuple[Mirror, ...]:
        """A run for each job, recorded before anything is sent: one that was interrupted and
        asks for the same work, else a new one. Two at once would each make one: be `alone`.
        """
        mirrors, known = [], self.runs()
        for job in order.jobs:
            request = make_request(job, order.remote, snapshot, order.overrides)
            mirror = self._unfinished(request, order.remote, known)
            if mirror is None:
                run_id = make_run_id(job.name, datetime.now(UTC), secrets.token_hex(2))
                mirror = self.mirrors.make(replace(request, run_id=run_id))
            else:
                self.tell.step(f"going on with {mirror.run_id}")
            self.ledger.add(self._run_fact(mirror, order.remote))
            mirrors.append(mirror)
        return tuple(mirrors)

    def follow(
        self, remote: Remote, link: Link, mirrors: Sequence[Mirror], *, replay: bool = True
    ) -> Link:
        """Until all have ended; each one's outputs are pulled as soon as it has.

        Args:
            replay: whether the logs are told from their beginning, when another command has
                followed these runs before.

        Raises:
            Interrupted: the user pressed Ctrl-C; the runs go on.
        """
        follower = Follower(lambda: self.connect(remote), mirrors, self.tell, self.take_home)
        if replay:
            follower.replay()
        try:
            return follower.follow(link)
        except KeyboardInterrupt:
            raise _detached(mirrors, remote) from None

    def catch_up(self, link: Link, mirrors: Sequence[Mirror]) -> None:
        """Take home what has ended by now, without waiting for the rest."""
        self._look(link, mirrors, self.tell, self.take_home)

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
            except ModelDamaged as damaged:
                # One bad file never keeps the other runs from being followed and pulled.
                self.tell.warn(f"{damaged}: {damaged.cause}")
                self._trouble = self._trouble or damaged
        if not sound and state is not None and state.state is State.SUCCEEDED:
            wanted = ", ".join(request.outputs)
            self.tell.warn(f"{mirror.run_id} made none of its outputs: {wanted}")

    def settle(self, jobs: Iterable[Job], mirrors: Sequence[Mirror], *, best: bool) -> Result:
        """Grade what has no verdict yet, then put the right model into each folder."""
        jobs = tuple(jobs)
        wanted = [(job, sha256) for job in jobs for sha256 in self.exam.ungraded(job)]
        verdicts = self.exam.grade(wanted, self.tell)
        for job in jobs:
            mine = [m for m in mirrors if m.request.job == job.name]
            self._place(job, mine, best=best)
        ids = {mirror.run_id for mirror in mirrors}
        runs = tuple(r for r in priced_runs(self.ledger) if r.usage.run_id in ids)
        standings = tuple(self.exam.standing(job) for job in jobs if job.model is not None)
        return Result(tuple(mirrors), runs, tuple(verdicts), standings, self._trouble)

    def record_events(self, mirror: Mirror) -> None:
        """Add to the ledger what the VM has reported of this run."""
        seen = mirror.seen
        if seen is None:
            return
        if mirror.verdict == LOST:
            at = clock.parse(seen.at)
            event = RunEvent(mirror.run_id, LOST, at, Reporter.LAPTOP, reason=why_lost(seen))
            self.ledger.add(event)
        if seen.report.state is not None:
            self.ledger.add(*_events(mirror.run_id, seen.report.state))

    def runs(self) -> tuple[Mirror, ...]:
        """Every run whose request can be read; the others are told."""
        readable = []
        for mirror in self.mirrors.all():
            try:
                mirror.request  # noqa: B018
            except (Malformed, OSError) as error:
                self.tell.warn(f"{mirror.folder / 'request.json'} cannot be read: {error}")
            else:
                readable.append(mirror)
        return tuple(readable)

    def is_home(self, mirror: Mirror) -> bool:
        """Whether it has ended, and all it made is on the shelf."""
        seen = mirror.seen
        if seen is None or not mirror.ended:
            return False
        sound = accept(seen.report.artifacts, mirror.request.outputs)
        return all(self.exam.shelf.find(artifact.sha256) for artifact in sound)

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
                and not self.is_home(mirror)
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
        if not target.exists():
            self.exam.shelf.place(fact.sha256, target)
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
        def lost() -> Link:
            raise ConnectionLost(f"the connection to {link.name} ended")

        Follower(lost, mirrors, tell, on_end).catch_up(link)
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


def _events(run_id: str, state: RunState) -> list[RunEvent]:
    moments = [
        (State.QUEUED, state.queued_at),
        (State.SETTING_UP, state.setting_up_at),
        (State.RUNNING, state.running_at),
        (state.state, state.ended_at if state.state.final else None),
    ]
    return [
        RunEvent(
            run_id,
            name.value,
            clock.parse(at),
            Reporter.VM,
            exit_code=state.exit_code if name.final else None,
            signal=state.signal if name.final else None,
            reason=state.reason if name.final else "",
        )
        for name, at in moments
        if at is not None
    ]


def _ending(state: RunState) -> str:
    """How a run ended, in words."""
    details = [state.reason] if state.reason else []
    if state.exit_code not in (None, 0) and state.signal is None:
        details.append(f"exit code {state.exit_code}")
    return state.state.value + (f" ({', '.join(details)})" if details else "")
