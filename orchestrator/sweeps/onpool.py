"""The trials of a sweep on a pool: each on the host where it begins first, and moved like any run.

A trial keeps the id of its first run, which the study has; from there the runs' own folders lead to
the one that has its work by now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from orchestrator.errors import TrainshedError
from orchestrator.plan import Order
from orchestrator.pools.spread import PACE_S, Spread
from orchestrator.pools.work import Work
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.screen.tell import Silence
from orchestrator.settings.pool import Pool
from orchestrator.settings.spec import Remote
from orchestrator.source.snapshot import Snapshot
from remote.protocol import Cancel
from remote.runfolder import BY_SWEEP


class OnPool:
    """A `Site`.

    Args:
        order: of a trial, on whichever host.
        check: given an order before anything of it is sent; raises `Forbidden` where that may not
            be.
    """

    def __init__(
        self,
        trip: RoundTrip,
        pool: Pool,
        order: Order,
        snapshot: Snapshot,
        check: Callable[[Order], object],
    ) -> None:
        self._trip = trip
        self._pool = pool
        self._order = order
        self._snapshot = snapshot
        self._spread = Spread(trip, pool, check)
        self._hosts = self._spread.hosts
        self._works: dict[str, Work] = {}
        self._followed: Sequence[Mirror] = ()
        self._asked_to_end: set[Mirror] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hosts.close()
        self._spread.record(self._followed)

    @property
    def name(self) -> str:
        return self._pool.name

    @property
    def machines(self) -> tuple[Remote, ...]:
        return tuple(host.remote for host in self._hosts.open)

    def reaches(self, remote: str) -> bool:
        return remote in self._hosts.by_name

    def obstacle(self, going: int) -> TrainshedError | None:
        if self._spread.is_shut:
            return self._hosts.nobody()
        one = [Work(self._order)]
        reasons = [self._spread.forbids(host, one) for host in self._hosts.open]
        return reasons[0] if reasons and all(reasons) else None

    def keep_going(self, wanted: Mapping[str, Order]) -> None:
        for run_id, order in wanted.items():
            if run_id not in self._works:
                self._works[run_id] = self._found(run_id, order)
        self._spread.works = works = [self._works[run_id] for run_id in wanted]
        self._spread.is_under_way |= any(work.is_accepted for work in works)
        self._spread.go_on(self._snapshot)
        for work in works:
            if work.runs and not work.chief.is_trial:
                work.chief.note_trial()

    def _found(self, run_id: str, order: Order) -> Work:
        """As an earlier command has left it."""
        mirror = self._trip.mirrors.get(run_id)
        work = Work(order, mirror.last.run_id if mirror else run_id)
        # One of which no host is recorded was sent to none.
        if self._trip.ledger.remote_of(work.run_id):
            work.runs = (self._trip.plan_named(order, self._snapshot, work.run_id),)
        return work

    def look(self, runs: Sequence[Mirror]) -> None:
        self._followed = runs
        self._spread.follow(runs)
        self._spread.moving.settle_old()
        self._spread.check_hope(runs)
        time.sleep(PACE_S)
        self._spread.record(runs)

    def has_ended(self, run: Mirror, *, may_move: bool) -> bool:
        if not run.ended or (may_move and self._spread.moving.why_of(run)):
            return False
        if run.is_given_back or run.settled:
            return True
        host = self._hosts.of(run)
        # The end may have come before the last of what it told.
        return (
            host.answers
            and self._hosts.try_at(host, lambda link: self._trip.look(link, [run], Silence()))
            and run.ended
        )

    def end(self, run: Mirror) -> None:
        if run in self._asked_to_end:
            return
        host = self._hosts.of(run)
        if host.answers and self._hosts.try_call(host, Cancel(run.run_id, why=BY_SWEEP)):
            self._asked_to_end.add(run)

    def take_home(self, run: Mirror) -> None:
        is_over = self._trip.is_home(run)
        while not is_over:
            self.look([run])
            is_over = self._hosts.have_fetched(run, lambda link: self._trip.catch_up(link, [run]))
