"""The trials of a sweep on one machine, over one line after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Self

from orchestrator.costs.bounds import Bounds
from orchestrator.errors import ConnectionLost, Forbidden, Refused
from orchestrator.plan import Order
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Remote
from orchestrator.source.snapshot import Snapshot
from orchestrator.vm.follow import reconnect
from orchestrator.vm.link import Link
from remote.protocol import Cancel, Done
from remote.runfolder import BY_SWEEP

# How long the VM waits for something new before it says that there is nothing.
_WAIT_S = 2.0


class OnMachine:
    """A `Site`.

    Args:
        order: of a trial; on this machine.
        check: given an order before anything of it is sent; raises `Forbidden` where that may not
            be.
    """

    def __init__(
        self, trip: RoundTrip, order: Order, snapshot: Snapshot, check: Callable[[Order], object]
    ) -> None:
        self._trip = trip
        self._order = order
        self._snapshot = snapshot
        self._check = check
        self._remote = order.remote
        self._link: Link | None = None
        self._followed: list[Mirror] = []
        self._bounds = Bounds(trip.ledger, order.remote, self._followed, trip.tell)
        self._asked_to_end: set[Mirror] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._link is not None:
            self._link.close()

    @property
    def name(self) -> str:
        return self._remote.name

    @property
    def machines(self) -> tuple[Remote, ...]:
        return (self._remote,)

    def reaches(self, remote: str) -> bool:
        return remote == self.name

    def obstacle(self, going: int) -> Forbidden | None:
        try:
            self._check(replace(self._order, jobs=self._order.jobs * going))
        except Forbidden as no:
            return no
        return None

    def keep_going(self, wanted: Mapping[str, Order]) -> None:
        unheard = []
        for run_id, order in wanted.items():
            known = self._trip.mirrors.get(run_id)
            if known is None or not known.was_heard_of:
                mirror = self._trip.plan_named(order, self._snapshot, run_id)
                mirror.note_trial()
                unheard.append(mirror)
        if unheard:
            self._over_line(lambda link: self._trip.start(link, self._snapshot, unheard))

    def look(self, runs: Sequence[Mirror]) -> None:
        def look(link: Link) -> None:
            self._trip.look(link, runs, Silence(), _WAIT_S)
            self._bounds.look(link)

        self._followed[:] = runs
        self._over_line(look)

    def has_ended(self, run: Mirror, *, may_move: bool) -> bool:  # none is moved
        return run.ended

    def end(self, run: Mirror) -> None:
        def ask(link: Link) -> None:
            with suppress(Refused):
                link.call(Cancel(run.run_id, why=BY_SWEEP), Done)

        if run not in self._asked_to_end:
            self._over_line(ask)
            self._asked_to_end.add(run)

    def take_home(self, run: Mirror) -> None:
        self._over_line(lambda link: self._trip.catch_up(link, [run]))

    def _over_line(self, do: Callable[[Link], None]) -> None:
        """Again over a new one, where it was lost: each of these may be done twice."""
        if self._link is None:
            self._link = self._trip.connect(self._remote)
        while True:
            try:
                return do(self._link)
            except ConnectionLost as lost:
                self._link.close()
                known = self._link.host_key_fingerprint
                again = partial(self._trip.connect_again, self._remote, known)
                self._link = reconnect(again, lost, self._trip.tell)
