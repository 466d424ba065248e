"""The main job, step by step: from the laptop's folder to graded models and their cost.

Read `train` aloud and you know what the program does. Each step can be cut at any point; the same
command again goes on from what is there. What grades is imported once the VM is at work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from orchestrator.costs.money import priced_runs
from orchestrator.declared import accept, is_home, unmade
from orchestrator.errors import (
    AgentBroken,
    ConnectError,
    ConnectionLost,
    Forbidden,
    HostKeyChanged,
    Interrupted,
    ModelDamaged,
    Refused,
    TrainshedError,
    UsageError,
    unwritten,
)
from orchestrator.filelock import alone
from orchestrator.grades.examining import Examining
from orchestrator.grades.settling import Result, Troubles, settle
from orchestrator.loads import loading_text
from orchestrator.plan import Order
from orchestrator.planning import Planning
from orchestrator.records.events import run_events
from orchestrator.records.ledger import ArtifactFact, Ledger, Reporter, RunEvent
from orchestrator.records.mirror import LOST, UNKNOWN, Mirror, Mirrors, why_lost
from orchestrator.screen.headway import took
from orchestrator.screen.tell import Counted, Silence, Teller
from orchestrator.settings.config import find_remote, load_workspace
from orchestrator.settings.spec import Job, Remote, Workspace
from orchestrator.size import format_size
from orchestrator.source.pastcode import PastCode
from orchestrator.source.snapshot import Snapshot, take_snapshot
from orchestrator.vm.ahead import Ahead, LastSent, look_ahead
from orchestrator.vm.follow import Follower, OnEnd, first_look, look, reconnect
from orchestrator.vm.link import Call, Link
from orchestrator.vm.pull import Pulled, first_fetch, pull
from orchestrator.vm.sync import submit
from remote.protocol import RunReport
from remote.runfolder import Artifact, RunState, State, chief_id

if TYPE_CHECKING:
    from orchestrator.grades.standing import Exam

_SUBMIT_RETRY_LIMIT_S = 20.0
# With these words the VM refuses all of a submission before it starts any of it.
_NOTHING_STARTED = ("bad-request", "no-gpu", "no-locks")
_NOTHING_AHEAD = Ahead()


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
        self.planning = Planning(workspace.state / "planning", self.mirrors, ledger, tell)
        self._early = Examining(tell)
        self._troubles = Troubles(tell)

    @cached_property
    def exam(self) -> Exam:
        from orchestrator.grades.standing import Exam

        return Exam(self.workspace, self.ledger)

    def train(self, order: Order) -> Result:
        """Sync, queue, follow, pull, grade, promote.

        Raises:
            TrainshedError: each step's own; runs that were started go on whatever happens here.
        """
        snapshot = take_snapshot(order.workspace, order.jobs, self.tell)
        mirrors = self.planning.plan_runs(order, snapshot)
        self._check_queue(order.remote, mirrors)

        last = LastSent(order.workspace.state / "sent" / order.remote.name)
        ahead = Ahead()
        if all(mirror.seen is None for mirror in mirrors):
            ahead = look_ahead(snapshot, tuple(mirror.request for mirror in mirrors), last)
        link = self._connect_first(order.remote, ahead, mirrors)
        try:
            self.tell.step(f"connected to {order.remote.name}: {link.hello.system}")
            if known := [mirror for mirror in mirrors if mirror.seen is not None]:
                # Of an interrupted command; since then they may have ended, or the VM been renewed.
                # What they wrote meanwhile is told when they are followed.
                self._look(link, known, Silence(), self.take_home)
                mirrors = self.planning.plan_runs(order, snapshot)
            open_ones = tuple(mirror for mirror in mirrors if not mirror.ended)
            if open_ones:
                link = self.submit(order.remote, link, snapshot, open_ones, ahead)
                last.keep(snapshot.code)
            # Writing it takes a while, and the VM need not wait for that.
            self.keep_code(snapshot)
            if order.detach:
                ids = {mirror.run_id for mirror in mirrors}
                return Result(mirrors, priced_runs(self.ledger, ids))
            link = self.follow(order.remote, link, open_ones)
        finally:
            link.close()

        return self.settle(order.jobs, mirrors, best=order.best)

    def _check_queue(self, remote: Remote, mirrors: Sequence[Mirror]) -> None:
        """A cluster is others', too.

        Raises:
            Forbidden: with these, more of the user's runs would be there than its remote allows.
        """
        new = [mirror for mirror in mirrors if not mirror.was_heard_of]
        if remote.queued is None or not new:
            return
        there = self.ledger.count_going_on(remote.name)
        if there + len(new) > remote.queued:
            self.planning.note_unsent(new)
            raise Forbidden(
                f"{remote.name} is to have at most {remote.queued} of your runs at once (queued)",
                cause=f"new: {len(new)}, there when this laptop last asked: {there}",
                fix="fewer at once; or train status, which learns what has ended by now; or "
                f"another number under remotes: {remote.name}: queued:",
            )

    def keep_code(self, snapshot: Snapshot) -> None:
        """For `train history`; what cannot be kept never stops a run."""
        try:
            PastCode(self.workspace.state).keep(snapshot.code)
        except OSError as error:
            self.tell.warn(f"the code of this run is not kept: {unwritten(error, error.filename)}")

    def _connect_first(self, remote: Remote, ahead: Ahead, mirrors: Iterable[Mirror]) -> Link:
        try:
            return self.connect(remote, ahead.calls)
        except ConnectError:
            self.planning.note_unsent(mirrors)
            raise

    def submit(
        self,
        remote: Remote,
        link: Link,
        snapshot: Snapshot,
        mirrors: tuple[Mirror, ...],
        ahead: Ahead,
    ) -> Link:
        """Send what the VM lacks and start the runs; the link returned is the one that works.

        Args:
            ahead: what the link was opened with.

        Raises:
            ConnectionLost: there was no way back to the VM for a while.
        """
        fingerprint = link.host_key_fingerprint
        while True:
            try:
                self.start(link, snapshot, mirrors, ahead)
            except ConnectionLost as lost:
                link.close()
                # Nothing may have been started yet, so somebody should soon know.
                link = reconnect(
                    lambda: self.connect_again(remote, fingerprint),
                    lost,
                    self.tell,
                    limit_s=_SUBMIT_RETRY_LIMIT_S,
                )
            else:
                return link

    def plan_named(self, order: Order, snapshot: Snapshot, run_id: str) -> Mirror:
        """The run of the order's one job that bears this id, as `Planning` has it."""
        return self.planning.plan_named(order, snapshot, run_id)

    def start(
        self,
        link: Link,
        snapshot: Snapshot,
        mirrors: Sequence[Mirror],
        ahead: Ahead = _NOTHING_AHEAD,
    ) -> None:
        """Send what the VM lacks and start the runs, over this one line.

        Raises:
            ConnectionLost: it is not known whether they were started; doing it again is safe.
        """
        requests = tuple(mirror.request for mirror in mirrors)

        def send() -> Link:
            submit(link, snapshot, requests, self.tell, ahead)
            return link

        self.record_sent(mirrors, send)

    def record_sent(self, mirrors: Sequence[Mirror], send: Callable[[], Link]) -> None:
        """Record what comes of a submission.

        Args:
            send: makes it, or waits for who does; gives the link over which it went.

        Raises:
            What `send` raises.
        """
        try:
            link = send()
        except ConnectionLost:
            self.planning.may_be_sent(mirrors)
            raise
        except Refused as no:
            if no.code in _NOTHING_STARTED:
                self.planning.note_unsent(mirrors)
            raise
        self._mark_submitted(link, mirrors)

    def _mark_submitted(self, link: Link, mirrors: Iterable[Mirror]) -> None:
        """The VM has them, which is paid for from now on, even if it never speaks again."""
        # Another command may have asked in the moment before they were started.
        new = [m for m in mirrors if m.seen is None or m.verdict == LOST]
        now, queued = datetime.now(UTC), State.QUEUED.value
        # At once, since each time the disk is waited for; and first, since of a mirror that has
        # been seen it is not done again.
        self.ledger.add(*(RunEvent(m.run_id, queued, now, Reporter.LAPTOP) for m in new))
        for mirror in new:
            report = RunReport(mirror.run_id, mirror.request.job, alive=True, stamp="")
            mirror.see(report, link.hello.boot_id, link.clock_off_s)
            self.tell.step(f"submitted {mirror.run_id}")

    def follow(
        self,
        remote: Remote,
        link: Link,
        mirrors: Sequence[Mirror],
        *,
        tail: int | None = None,
        grade: bool = True,
    ) -> Link:
        """Until all have ended; each one's outputs are pulled as soon as it has, and graded.

        Args:
            tail: how many lines are told of what the runs have written by now; None for all.
            grade: whether models are graded as they come; else they are when it is settled.

        Raises:
            Interrupted: the user pressed Ctrl-C; the runs go on.
        """
        # Once the VM is at work.
        from orchestrator.costs.bounds import Bounds

        fingerprint = link.host_key_fingerprint
        follower = Follower(
            lambda: self.connect_again(remote, fingerprint),
            mirrors,
            self.tell,
            self.take_home,
            is_home=self.is_home,
            beside=Bounds(self.ledger, remote, mirrors, self.tell).look,
        )
        follower.replay(tail)
        try:
            with self.examining(mirrors) if grade else nullcontext():
                return follower.follow(link)
        except KeyboardInterrupt:
            raise _detached(mirrors, remote) from None
        finally:
            # Also what another command saw of an end.
            for mirror in mirrors:
                self.record_events(mirror)

    def connect_again(self, remote: Remote, fingerprint: str) -> Link:
        """As the config has it by now: a machine that was restarted may have another address.

        Args:
            fingerprint: of the host key it had before.

        Raises:
            HostKeyChanged: it is another machine by now, which knows nothing of these runs.
        """
        with suppress(TrainshedError):
            remote = find_remote(load_workspace(self.workspace.root), remote.name)
        link = self.connect(remote)
        if link.host_key_fingerprint != fingerprint:
            link.close()
            raise HostKeyChanged(
                f"{remote.name} is another machine by now",
                cause=f"its host key was {fingerprint}, it is {link.host_key_fingerprint}",
                fix="train status; what was sent to the other one is there",
            )
        return link

    def examining(self, mirrors: Sequence[Mirror]) -> AbstractContextManager[None]:
        """Within, models are graded as they come home."""
        return self._early.beside(self.exam, mirrors)

    def catch_up(self, link: Link, mirrors: Sequence[Mirror]) -> None:
        """Take home what has ended by now, without waiting for the rest."""
        self._look(link, mirrors, self.tell, self.take_home)

    def ahead_of_catching_up(self, mirrors: Sequence[Mirror]) -> tuple[Call, ...]:
        """What `catch_up` asks first, as far as it is known before the VM has said a word."""
        first = mirrors[0]
        if first.verdict == UNKNOWN or (first.folder / "partial").exists():
            return (first_look(mirrors),)
        return (first_look(mirrors), *first_fetch(first.run_id, first.request.outputs))

    def look(
        self, link: Link, mirrors: Sequence[Mirror], tell: Teller, wait_s: float = 0.0
    ) -> None:
        """Learn where they stand and what they wrote, and take nothing home.

        Args:
            wait_s: for something new, where there is nothing.
        """
        self._look(link, mirrors, tell, lambda link, mirror: None, wait_s)

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
            for loading in state.loadings:
                say = self.tell.warn if loading.trouble else self.tell.step
                say(loading_text(loading))
        request = mirror.request
        if request.tensorboard:
            self._copy_events(link, mirror)
        sound = accept(seen.report.artifacts, request.outputs)
        if left := [a.path for a in seen.report.artifacts if a not in sound]:
            names = ", ".join(ascii(path) for path in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            trouble = UsageError(
                f"{len(left)} files that {mirror.run_id} made stayed on the VM: {names}{more}",
                cause="not every system can keep a file of such a name, or train.yaml does not "
                "declare it",
                fix="let the script name it with letters, digits, -, _ and .; until train gc "
                "drops it, it is there",
            )
            self._troubles.note(trouble, [mirror])
        self._pull(link, mirror, sound)
        made = seen.report.artifacts
        lacking = ", ".join(unmade(made, request.outputs))
        if lacking and state is not None and state.state is State.SUCCEEDED:
            how_much = "all of its outputs but" if made else "none of its outputs:"
            self.tell.warn(f"{mirror.run_id} made {how_much} {lacking}")
        self._early.examine(self.exam, mirror)

    def leave_away(self, mirror: Mirror, no: Refused) -> None:
        """Nothing more is pulled of it by this command, which ends with that; the others are, and
        the same command again goes on with it.
        """
        trouble = Refused(
            f"{mirror.run_id} did not come home: {no}",
            code=no.code,
            cause=no.cause,
            fix=no.fix or f"the same command again, or: train pull {mirror.run_id}",
        )
        self._troubles.note(trouble, [])

    def _copy_events(self, link: Link, mirror: Mirror) -> None:
        from orchestrator.trackers.eventfiles import copy_events

        try:
            copy_events(link, mirror, self.tell)
        except AgentBroken:
            raise
        except (UsageError, Refused) as trouble:
            self._troubles.note(trouble, [mirror])

    def settle(self, jobs: Iterable[Job], mirrors: Sequence[Mirror], *, best: bool) -> Result:
        """Grade what has no verdict yet, then put the right model into each folder."""
        graded = self._early.verdicts
        return settle(self.exam, jobs, mirrors, graded, self._troubles, self.tell, best=best)

    def record_events(self, mirror: Mirror) -> None:
        """Add to the ledger what the VM has reported of this run."""
        seen, fact = mirror.seen, self.ledger.run(mirror.run_id)
        if seen is not None and fact is not None:
            events = run_events(mirror.run_id, seen, fact.submitted_at, mirror.last_use_at())
            self.ledger.add(*events)

    def is_home(self, mirror: Mirror) -> bool:
        return is_home(mirror, self.ledger, self.exam.shelf)

    def _pull(self, link: Link, mirror: Mirror, artifacts: Iterable[Artifact]) -> None:
        shelf, partial = self.exam.shelf, mirror.folder / "partial"
        came = Counted(self.tell)
        new: list[ArtifactFact] = []
        # Another `train` may follow the same run; both would write to the same partial files.
        with alone(mirror.folder / "pulling"):
            recorded = {fact.path for fact in self.ledger.artifacts(mirror.run_id)}
            try:
                for pulled in pull(link, mirror.run_id, artifacts, partial, shelf, self.tell):
                    try:
                        came.step(_told(pulled))
                    except (ModelDamaged, UsageError, Refused) as trouble:
                        # One bad file never keeps the other runs from being followed and pulled.
                        self._troubles.note(trouble, [mirror])
                    else:
                        new.append(_fact(mirror.run_id, pulled.artifact))
            finally:
                # At once, since each time the disk is waited for. What a kill keeps from being
                # recorded is on the shelf, where the next pull finds it.
                self.ledger.add(*(fact for fact in new if fact.path not in recorded))
        came.tell_rest(f"more that {mirror.run_id} made are pulled and verified")

    def _look(
        self,
        link: Link,
        mirrors: Sequence[Mirror],
        tell: Teller,
        on_end: OnEnd,
        wait_s: float = 0.0,
    ) -> None:
        try:
            look(link, mirrors, tell, on_end, wait_s)
        finally:
            for mirror in mirrors:
                self.record_events(mirror)


def _told(pulled: Pulled) -> str:
    """Raises: what `pulled.kept` has instead of a file."""
    artifact, digest = pulled.artifact, pulled.kept.result().parent.name
    size, pace = format_size(artifact.size_bytes), took(artifact.size_bytes, pulled.seconds)
    return f"pulled {artifact.path}, {size}{pace}, sha256 {digest[:12]} verified"


def _fact(run_id: str, artifact: Artifact) -> ArtifactFact:
    now = datetime.now(UTC)
    return ArtifactFact(run_id, artifact.path, artifact.size_bytes, artifact.sha256, now)


def _detached(mirrors: Sequence[Mirror], remote: Remote) -> Interrupted:
    """What the user reads after Ctrl-C: what goes on, and the next three commands."""
    names = list(dict.fromkeys(chief_id(mirror.run_id) for mirror in mirrors if not mirror.ended))
    if not names:
        return Interrupted("interrupted; the runs have ended", fix="train pull")
    return Interrupted(
        f"detached; on {remote.name} goes on: {', '.join(names)}",
        fix=f"train status\ntrain attach {names[0]}\ntrain cancel {names[0]}",
    )


def _ending(state: RunState) -> str:
    """How a run ended, in words."""
    details = [state.reason] if state.reason else []
    if state.exit_code not in (None, 0) and state.signal is None:
        details.append(f"exit code {state.exit_code}")
    return state.state.value + (f" ({', '.join(details)})" if details else "")
