"""One member of a pool, while a command has runs for it or on it.

It is spoken with over two connections: a feed's, whose thread keeps the mirrors of its runs fresh,
and one for all else, which one thread at a time has: the main one, or one begun by `ask`. Only the
main thread touches the ledger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from orchestrator.connection.sshconfig import Destination, ask_ssh, has_ssh, route
from orchestrator.costs.bounds import Bounds
from orchestrator.errors import (
    HOPELESS,
    AgentBroken,
    ConnectError,
    ConnectionLost,
    Refused,
    TrainshedError,
)
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.screen.tell import Named
from orchestrator.settings.spec import Remote
from orchestrator.vm.link import Link
from orchestrator.watch.feed import Feed
from remote.protocol import Cancel, Capacity, Done, GiveBack, Room
from remote.runfolder import SESSION_OVER, Ended

T = TypeVar("T")

# A host that has not answered for so long is taken for dead. A line that blinks is back in seconds,
# a machine that reboots in a minute or two; to wait longer than to send a run again gains nothing.
DEAD_S = 60.0
# Until one that did not answer is asked again.
_RETRY_S = 5.0


class Host:
    """Attributes:
    remote: as the config had it last.
    is_open: whether the config lets it take runs.
    refusal: why it takes no more runs from this command; None while it does.
    """

    def __init__(self, remote: Remote, trip: RoundTrip) -> None:
        self.remote = remote
        self.is_open = True
        self.refusal: TrainshedError | None = None
        self._trip = trip
        self._fingerprint = ""
        self._link: Link | None = None
        self._asked: Future[object] | None = None
        self._retry_s = 0.0
        self._told_to_end: set[Mirror] = set()
        self._unknown: set[Mirror] = set()
        self._kept: set[Mirror] = set()
        self._to_end: dict[Mirror, Cancel] = {}
        self._followed: list[Mirror] = []
        self._bounds: Bounds | None = None
        self._heard_s = time.monotonic()
        self._feed = Feed(remote.name, self._dial, first=self.end_over)

    @property
    def name(self) -> str:
        return self.remote.name

    @property
    def takes_runs(self) -> bool:
        return self.is_open and self.refusal is None and not self.is_dead

    @property
    def is_dead(self) -> bool:
        return self.silent_s >= DEAD_S

    @property
    def silent_s(self) -> float:
        """For how long it has not answered; 0 while nobody asks it for anything."""
        view = self._feed.view()
        if view is None:
            return 0.0
        here_s = time.monotonic() - self._heard_s
        return here_s if view.heard_s is None else min(here_s, view.heard_s)

    @property
    def is_silent(self) -> bool:
        """Whether it did not answer when it was last asked after its runs."""
        view = self._feed.view()
        return view is not None and view.trouble != ""

    @property
    def answers(self) -> bool:
        """Whether it did, so that its line can be used and will not be waited for in vain."""
        view = self._feed.view()
        is_heard = view is not None and view.heard_s is not None
        return is_heard and not self.is_silent and self.is_ready

    @property
    def is_ready(self) -> bool:
        """Whether nobody uses its line, and it did not fail just before."""
        is_idle = self._asked is None or self._asked.done()
        return is_idle and time.monotonic() >= self._retry_s

    def follow(self, mirrors: Sequence[Mirror]) -> None:
        """Keep these fresh from now on, and have them ended where the session there has an end."""
        if mirrors and not self._followed:
            self._heard_s = time.monotonic()
        self._followed[:] = mirrors
        self._feed.follow(mirrors)
        if mirrors:
            if self._bounds is None:
                tell = Named(self._trip.tell, self.name)
                self._bounds = Bounds(self._trip.ledger, self.remote, self._followed, tell)
            for mirror in self._bounds.overdue():
                self._to_end[mirror] = Cancel(mirror.run_id, why=SESSION_OVER)

    def ask(self, do: Callable[[Link], T]) -> Future[T]:
        """Do it over its line, in a thread that nobody has to wait for. Only if it is ready."""
        assert self.is_ready
        future: Future[T] = Future()
        self._asked = future  # type: ignore[assignment]  # a Future of whatever

        def work() -> None:
            try:
                with self.line() as link:
                    found = do(link)
            except BaseException as error:  # noqa: BLE001  # raised where the result is asked for
                future.set_exception(error)
            else:
                future.set_result(found)

        threading.Thread(target=work, daemon=True, name=f"ask {self.name}").start()
        return future

    @property
    def address(self) -> str:
        """Where other hosts are thought to reach it: as the laptop does, without jumps."""
        remote = self.remote
        where = Destination(remote.name, remote.host, remote.user, remote.port)
        return route(where, ask_ssh)[-1].host if has_ssh() else remote.host

    def ask_room(self) -> Future[Room]:
        return self.ask(lambda link: link.call(Capacity(self.remote.gpus), Room))

    @contextmanager
    def line(self) -> Iterator[Link]:
        """Its line, dialled if need be; one that breaks in the block is dialled anew next time.

        Raises:
            ConnectError, ConnectionLost: it does not answer.
        """
        try:
            if self._link is None:
                self._link = self._dial()
            yield self._link
        except Exception as error:
            if not isinstance(error, Refused) or isinstance(error, AgentBroken):
                self._drop()
            if isinstance(error, ConnectError | ConnectionLost | AgentBroken):
                self._retry_s = time.monotonic() + _RETRY_S
            if isinstance(error, HOPELESS):
                self.refusal = error
            raise
        self._heard_s = time.monotonic()

    def end_for(self, mirror: Mirror, fallen: Ended) -> None:
        """Have it told, as soon as it answers, to end a run because of another of its gang."""
        self._to_end[mirror] = Cancel(mirror.run_id, fallen)

    def end_over(self, link: Link, mirrors: Sequence[Mirror]) -> None:
        """First of all, what other hosts have by now is ended here, lest it is done twice; and what
        is to end besides. If it refuses one, it is asked again with the next look.
        """
        for mirror in mirrors:
            if mirror in self._told_to_end or mirror.ended:
                continue
            try:
                self._end(link, mirror)
            except AgentBroken:
                raise
            except Refused as no:
                if mirror not in self._kept:
                    self._kept.add(mirror)
                    self._trip.tell.warn(f"{mirror.run_id} is not ended: {no}")

    def _end(self, link: Link, mirror: Mirror) -> None:
        if mirror.successor is not None:
            self.take_back(link, mirror)
        elif mirror in self._to_end:
            link.call(self._to_end[mirror], Done)
            self._told_to_end.add(mirror)

    def take_back(self, link: Link, mirror: Mirror) -> None:
        """Have a run ended here that another host has, or is to have, if there is such a run."""
        try:
            link.call(GiveBack(mirror.run_id, begun=True), Done)
        except Refused as no:
            if no.code != "unknown-run":
                raise
            self._unknown.add(mirror)
        self._told_to_end.add(mirror)

    def knows_nothing_of(self, mirror: Mirror) -> bool:
        """Whether it said so when it was to end it."""
        return mirror in self._unknown

    def close(self) -> None:
        self._feed.close()
        self._drop()

    def _dial(self) -> Link:
        if self._fingerprint:
            return self._trip.connect_again(self.remote, self._fingerprint)
        link = self._trip.connect(self.remote)
        self._fingerprint = link.host_key_fingerprint
        return link

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
