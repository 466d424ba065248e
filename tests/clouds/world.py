"""A rented machine as its cloud has it: power, times, room, evictions, and others' hands on it.

It knows no HTTP. The stand-ins for the clouds' services speak for it, and a simulation moves it
directly. What happens later happens when it is next looked at, with the time at which it was due;
so a moved clock may leap over any number of changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from tests.clouds.clock import Clock


class State(StrEnum):
    """What a machine is to its cloud, which is more than any one of them tells apart."""

    STARTING = "starting"
    RUNNING = "running"
    HALTING = "halting"
    """Its system shuts down."""
    HALTED = "halted"
    """Off, and kept for its renter."""
    RELEASING = "releasing"
    RELEASED = "released"
    """Off, and given to others."""
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    DELETED = "deleted"


@dataclass(frozen=True)
class Rules:
    """What differs from cloud to cloud.

    Attributes:
        billed: what is paid for.
        minimum_s, step_s: of each time from start to end.
        halted_is_kept: whether a shutdown by its own system leaves it kept, and billed.
        notice_s: from the word of an eviction to it.
    """

    name: str
    billed: frozenset[State]
    minimum_s: int
    step_s: int
    halted_is_kept: bool
    notice_s: float


AZURE = Rules(
    "azure",
    frozenset((State.STARTING, State.RUNNING, State.HALTING, State.HALTED)),
    60,
    1,
    halted_is_kept=True,
    notice_s=30.0,
)
AWS = Rules("aws", frozenset((State.RUNNING,)), 60, 1, halted_is_kept=False, notice_s=120.0)
GCE = Rules(
    "gcp",
    frozenset((State.RUNNING, State.HALTING, State.RELEASING)),
    60,
    1,
    halted_is_kept=False,
    notice_s=30.0,
)


@dataclass(frozen=True)
class Timings:
    """Seconds that things take; `refusal_s` to find that there is no room."""

    start_s: float = 40.0
    halt_s: float = 15.0
    release_s: float = 30.0
    refusal_s: float = 8.0


class NoRoom(Exception):
    """The order is not taken."""


class WrongState(Exception):
    """The machine is in a state that does not allow it."""


@dataclass
class Order:
    """Attributes:
    error: the cloud's code; empty while it goes on, and when it went well.
    """

    kind: str
    ends_at: datetime
    error: str = ""

    def is_done(self, now: datetime) -> bool:
        return now >= self.ends_at


@dataclass(frozen=True)
class Shortage:
    """No machine to give.

    Attributes:
        code: the cloud's word.
        at_once: whether it is said to the order, or found out only later.
        until: None for ever.
    """

    code: str
    at_once: bool = False
    until: datetime | None = None


@dataclass(frozen=True)
class Change:
    at: datetime
    state: State
    why: str


@dataclass
class World:
    """One machine.

    Attributes:
        history: all its changes, oldest first, at the times at which they happened.
        address: its public one; another at each start.
        boots: how often its system came up.
        evicts_at: when it will be taken away; what its metadata service tells.
        deletes_on_eviction: else it is only released.
    """

    clock: Clock
    rules: Rules
    timings: Timings = field(default_factory=Timings)
    size: str = "Standard_NC6"
    region: str = "westeurope"
    spot: bool = False
    shortage: Shortage | None = None
    deletes_on_eviction: bool = False
    first: State = State.RELEASED
    addresses: Callable[[int], str] = lambda start: f"203.0.113.{start % 250 + 1}"
    history: list[Change] = field(default_factory=list)
    address: str = ""
    boots: int = 0
    evicts_at: datetime | None = None
    _due: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._change(Change(self.clock.now(), self.first, "made"))

    # What is the case.

    @property
    def state(self) -> State:
        self._settle()
        return self.history[-1].state

    @property
    def since(self) -> datetime:
        self._settle()
        return self.history[-1].at

    @property
    def why(self) -> str:
        self._settle()
        return self.history[-1].why

    def last(self, *states: State) -> datetime | None:
        """When it last came into one of these."""
        self._settle()
        return next((c.at for c in reversed(self.history) if c.state in states), None)

    @property
    def notice(self) -> datetime | None:
        """The eviction that its metadata service tells of."""
        self._settle()
        return self.evicts_at

    @property
    def next_change(self) -> datetime | None:
        """When something will happen to it, as far as is planned."""
        return self._due[0].at if self._due else None

    # What its renter orders.

    def start(self) -> Order:
        state, now = self.state, self.clock.now()
        if state in (State.STARTING, State.RUNNING):
            return Order("start", now)
        if state not in (State.HALTED, State.RELEASED, State.SUSPENDED):
            raise WrongState(state)
        if self._is_short(now):
            assert self.shortage is not None
            if self.shortage.at_once:
                raise NoRoom(self.shortage.code)
            ends_at = now + timedelta(seconds=self.timings.refusal_s)
            self._plan(0, State.STARTING, "start")
            self._plan(self.timings.refusal_s, state, self.shortage.code)
            return Order("start", ends_at, self.shortage.code)
        self._plan(0, State.STARTING, "start")
        return self._order("start", self.timings.start_s, State.RUNNING)

    def stop(self) -> Order:
        """So that it costs nothing any more."""
        if self.state in (State.RELEASED, State.DELETED):
            return Order("stop", self.clock.now())
        if self.state is State.RELEASING:
            return Order("stop", self._due[-1].at)
        self._forget()
        self._plan(0, State.RELEASING, "stop")
        return self._order("stop", self.timings.release_s, State.RELEASED)

    def delete(self) -> None:
        self._forget()
        self._plan(0, State.DELETED, "delete")

    # What happens to it.

    def shut_down(self, why: str = "shutdown") -> None:
        """By its own system: `poweroff`, or a crash of it."""
        if self.state is not State.RUNNING:
            raise WrongState(self.state)
        # What is off already is not taken away.
        self._forget()
        kept = self.rules.halted_is_kept
        self._plan(0, State.HALTING if kept else State.RELEASING, why)
        self._plan(self.timings.halt_s, State.HALTED if kept else State.RELEASED, why)

    def reboot(self) -> None:
        """Nothing of it is seen from outside."""
        if self.state is not State.RUNNING:
            raise WrongState(self.state)
        self.boots += 1

    def stop_in_portal(self) -> None:
        """Somebody else's hand."""
        self.stop()

    def evict(self) -> None:
        """Take a spot machine away, after the notice."""
        assert self.spot, "only spot machines are taken away"
        if self.state is not State.RUNNING or self.evicts_at is not None:
            return
        self.evicts_at = self.clock.now() + timedelta(seconds=self.rules.notice_s)
        after = State.DELETED if self.deletes_on_eviction else State.RELEASED
        self._plan(self.rules.notice_s, State.RELEASING, "evicted")
        self._plan(self.rules.notice_s + self.timings.release_s, after, "evicted")

    # How time goes on.

    def _order(self, kind: str, seconds: float, state: State) -> Order:
        self._plan(seconds, state, kind)
        return Order(kind, self.clock.now() + timedelta(seconds=seconds))

    def _is_short(self, now: datetime) -> bool:
        until = self.shortage.until if self.shortage else None
        return self.shortage is not None and (until is None or now < until)

    def _plan(self, seconds: float, state: State, why: str) -> None:
        self._due.append(Change(self.clock.now() + timedelta(seconds=seconds), state, why))
        # Stable: of two at one time, the one planned first.
        self._due.sort(key=lambda change: change.at)
        self._settle()

    def _forget(self) -> None:
        self._settle()
        self._due.clear()
        self.evicts_at = None

    def _settle(self) -> None:
        now = self.clock.now()
        while self._due and self._due[0].at <= now:
            self._change(self._due.pop(0))

    def _change(self, change: Change) -> None:
        self.history.append(change)
        if change.state is State.RUNNING:
            self.boots += 1
            self.address = self.addresses(self.boots)
        elif change.state in (State.RELEASED, State.SUSPENDED, State.DELETED):
            self.address = ""
            self.evicts_at = None
