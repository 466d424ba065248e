"""Which runs a command is about: those of a command that was cut off, else new ones, recorded
before anything is sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.costs.cost import GPU_HOURS
from orchestrator.filelock import alone
from orchestrator.gangs.addresses import gang_addresses
from orchestrator.plan import Order, in_gang, make_gang, make_request, make_run_id, same_work
from orchestrator.records.ledger import Ledger, RunFact
from orchestrator.records.mirror import LOST, Mirror, Mirrors, readable
from orchestrator.records.rebuild import keep_beside
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Job, Price, Remote
from orchestrator.source.snapshot import Snapshot
from remote.runfolder import Gang, RunRequest, chief_id, worker_id


class Planning:
    """What one command is about."""

    def __init__(self, lock: Path, mirrors: Mirrors, ledger: Ledger, tell: Teller) -> None:
        self._lock = lock
        self._mirrors = mirrors
        self._ledger = ledger
        self._tell = tell
        self._resumed: set[str] = set()
        self._unsent: set[str] = set()
        self._token = secrets.token_hex(8)

    def note_unsent(self, mirrors: Iterable[Mirror]) -> None:
        """For certain this command started none of these. Those of which no VM can have heard when
        they were planned, and which no other command took on since, may be forgotten without asking
        a VM.
        """
        with alone(self._lock):
            for mirror in mirrors:
                if mirror.run_id in self._unsent and mirror.is_taken_on_by(self._token):
                    mirror.note_unsent()

    def may_be_sent(self, mirrors: Iterable[Mirror]) -> None:
        """From now on nobody knows whether a VM has heard of these."""
        self._unsent.clear()
        for mirror in mirrors:
            mirror.forget_unsent()

    def plan_runs(self, order: Order, snapshot: Snapshot) -> tuple[Mirror, ...]:
        """A run for each job: the one of a command that was interrupted before it gave its result,
        if it asked for the same work; else a new one.
        """
        # Two commands at once would each make one.
        with alone(self._lock):
            known = self._open(self._mirrors.unsettled())
            planned = (
                self._plan_job(job, order, snapshot, known.get(job.name, ())) for job in order.jobs
            )
            return tuple(mirror for mirrors in planned for mirror in mirrors)

    def _plan_job(
        self, job: Job, order: Order, snapshot: Snapshot, known: Iterable[Mirror]
    ) -> Iterator[Mirror]:
        """Its run; where that is to have several hosts, those of its gang."""
        request = make_request(job, order.remote, snapshot, order.overrides)
        mirror = self._unfinished(make_gang(request, job.nodes)[0], order.remote, known)
        run_id = make_run_id(job.name, datetime.now(UTC), secrets.token_hex(2))
        if mirror is not None and mirror.is_given_back:
            # A pool's command was cut off before another host had its work.
            mirror.note_successor(run_id)
            host = order.remote.name
            self._tell.step(f"{mirror.run_id} goes on as {run_id}: {host} gave it back")
        elif mirror is not None:
            run_id = mirror.run_id
        for each in make_gang(request._replace(run_id=run_id), job.nodes):
            yield self._plan_run(each, order)

    def _plan_run(self, request: RunRequest, order: Order) -> Mirror:
        mirror = self._mirrors.get(request.run_id)
        return self._make(request, order) if mirror is None else self._go_on(mirror, order)

    def plan_named(self, order: Order, snapshot: Snapshot, run_id: str) -> Mirror:
        """The run of the order's one job that bears this id, which the caller has written down
        before: made, or found again after a crash.
        """
        (job,) = order.jobs
        with alone(self._lock):
            mirror = self._mirrors.get(run_id)
            if mirror is None:
                request = make_request(job, order.remote, snapshot, order.overrides, run_id)
                return self._make(request, order)
            self._resume(mirror)
            return self._take_on(mirror, order)

    def find_open(self, orders: Iterable[Order], snapshot: Snapshot) -> dict[str, Mirror]:
        """The runs of interrupted commands that do the work of one of these orders, each on its
        order's remote; by the job's name.
        """
        with alone(self._lock):
            return {mirror.request.job: mirror for mirror in self._find(orders, snapshot)}

    def make_once(
        self,
        orders: Sequence[Order],
        others: Iterable[Order],
        snapshot: Snapshot,
        *,
        addresses: Sequence[str] = (),
        instead: Sequence[Mirror] = (),
    ) -> tuple[Mirror, ...]:
        """New runs for the one job of these orders; or those that another command has made for it
        meanwhile, on their remotes or on those of the `others`.

        Args:
            orders: one for each host; of several, the first is the chief's.
            addresses: where the others reach each of these hosts.
            instead: the runs whose work they take over. One run has as many restarts as that one
                had left; a gang has none.
        """
        (job,) = orders[0].jobs
        with alone(self._lock):
            if instead:
                made = instead[0].successor
            else:
                made = next(self._find((*orders, *others), snapshot), None)
            if made is not None:
                return self._mirrors.gang(made)
            # All that a dead host had is moved within a second.
            token = secrets.token_hex(4 if instead else 2)
            run_id = make_run_id(job.name, datetime.now(UTC), token)
            for rank, mirror in enumerate(instead):
                mirror.note_successor(worker_id(run_id, rank))
            listen = gang_addresses(run_id, addresses)
            return tuple(
                self._make(self._request(order, snapshot, run_id, rank, listen, instead), order)
                for rank, order in enumerate(orders)
            )

    def _request(
        self,
        order: Order,
        snapshot: Snapshot,
        run_id: str,
        rank: int,
        listen: tuple[str, ...],
        instead: Sequence[Mirror],
    ) -> RunRequest:
        (job,) = order.jobs
        request = make_request(job, order.remote, snapshot, order.overrides, run_id)
        if len(listen) > 1:
            return in_gang(request._replace(restarts=0), Gang(rank, len(listen), listen))
        return request._replace(restarts=instead[0].restarts_left) if instead else request

    def _find(self, orders: Iterable[Order], snapshot: Snapshot) -> Iterator[Mirror]:
        orders = tuple(orders)
        names = {job.name for order in orders for job in order.jobs}
        mine = (m for m in self._mirrors.unsettled() if m.run_id.rsplit("-", 3)[0] in names)
        known = self._open(mine)
        for order in orders:
            for job in order.jobs:
                request = make_request(job, order.remote, snapshot, order.overrides)
                request = make_gang(request, job.nodes)[0]
                alike = known.get(job.name, ())
                mirror = self._unfinished(request, order.remote, alike, moved=True)
                if mirror is not None:
                    yield self._go_on(mirror, order)

    def _open(self, unsettled: Iterable[Mirror]) -> dict[str, list[Mirror]]:
        """By the job's name, without those whose work another host has by now."""
        found: dict[str, list[Mirror]] = {}
        for mirror in readable(unsettled, self._tell):
            if mirror.successor is None:
                found.setdefault(mirror.request.job, []).append(mirror)
        return found

    def _go_on(self, mirror: Mirror, order: Order) -> Mirror:
        if mirror.run_id not in self._resumed:
            self._resume(mirror)
            if mirror.run_id == chief_id(mirror.run_id):
                self._tell.step(f"going on with {mirror.run_id}")
        return self._take_on(mirror, order)

    def _resume(self, mirror: Mirror) -> None:
        self._resumed.add(mirror.run_id)
        if mirror.unsent:
            mirror.forget_unsent()
            self._unsent.add(mirror.run_id)

    def _make(self, request: RunRequest, order: Order) -> Mirror:
        self._unsent.add(request.run_id)
        return self._take_on(self._mirrors.make(request), order)

    def _take_on(self, mirror: Mirror, order: Order) -> Mirror:
        mirror.take_on(self._token)
        if self._ledger.run(mirror.run_id) is None:
            fact = self._run_fact(mirror, order)
            keep_beside(fact, mirror, self._ledger.path)
            self._ledger.add(fact)
        return mirror

    def _unfinished(
        self, request: RunRequest, remote: Remote, known: Iterable[Mirror], *, moved: bool = False
    ) -> Mirror | None:
        """Args:
        moved: whether it may be one that has fewer restarts, because it was begun elsewhere.
        """
        for mirror in known:
            asked = mirror.request
            if (
                same_work(asked._replace(restarts=request.restarts) if moved else asked, request)
                and not mirror.settled
                and (mirror.verdict != LOST or any(m.goes_on for m in self._mirrors.gang(mirror)))
                and self._ledger.remote_of(mirror.run_id) in ("", remote.name)
            ):
                return mirror
        return None

    def _price(self, remote: Remote) -> tuple[Price | None, str]:
        """The user's, else the one that the machine's paid time began with; and whose it is."""
        if remote.price is not None:
            return remote.price, "config"
        ended = {end.stint_id for end in self._ledger.stint_ends(remote.name)}
        for stint in reversed(self._ledger.stints(remote.name)):
            if stint.id not in ended and stint.price_per_hour is not None:
                return Price(stint.price_per_hour, stint.currency), stint.price_source
        return None, ""

    def _run_fact(self, mirror: Mirror, order: Order) -> RunFact:
        request = mirror.request
        price, source = self._price(order.remote)
        per_hour = price.per_hour if price else None
        if per_hour is not None and request.slurm is not None:
            per_hour, source = per_hour * max(1, request.gpus), GPU_HOURS
        session = next(reversed(self._ledger.open_sessions(order.remote.name)), None)
        return RunFact(
            run_id=mirror.run_id,
            workspace=str(order.workspace.root),
            category=request.job,
            remote=order.remote.name,
            snapshot=request.tree,
            command=request.command,
            submitted_at=datetime.now(UTC),
            price_per_hour=per_hour,
            currency=price.currency if price else "",
            price_source=source,
            params=tuple(sorted(request.params.items())),
            session_id=session.id if session else None,
        )
