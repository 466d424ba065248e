"""What a rented machine can be, and what must be known of one to say what it costs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Protocol


class Power(StrEnum):
    """A machine's state, the same words for every cloud."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED_BILLED = "stopped-billed"
    STOPPED_FREE = "stopped-free"
    HIBERNATED = "hibernated"
    DELETED = "deleted"

    @property
    def is_down(self) -> bool:
        """Whether its time costs nothing, and will not by itself."""
        return self in (Power.STOPPED_FREE, Power.HIBERNATED, Power.DELETED)


class Provenance(StrEnum):
    """Where the bounds of paid time are known from, best first."""

    CLOUD = "cloud"
    VM = "vm"
    ESTIMATED = "estimated"


@dataclass(frozen=True)
class Machine:
    """What a cloud says of a machine now.

    Attributes:
        since: when it came into that state by the cloud's word; None where the cloud keeps none.
        started_at: when it was last started by the cloud's word, likewise.
        stopped_at: when it was last stopped, before that start where it is on; likewise.
        address: to reach it by SSH from here; empty while it has none.
        size, region: as the cloud names them, to find its price; empty where unknown.
        spot: whether it may be taken away.
        reason: the cloud's words on how it came into that state.
    """

    power: Power
    since: datetime | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    address: str = ""
    size: str = ""
    region: str = ""
    spot: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Quote:
    """A price and where it is from.

    Attributes:
        source: `config`, `table`, or the service that was asked.
        fetched_at: when it was read there; of the table, when that was made.
        disk_per_hour: what goes on while the machine is off, where known.
    """

    per_hour: Decimal
    currency: str
    source: str
    fetched_at: datetime
    region: str = ""
    spot: bool = False
    disk_per_hour: Decimal | None = None


@dataclass(frozen=True)
class Tariff:
    """How a provider counts time.

    Attributes:
        minimum_s: the least that a start costs.
        step_s: time is rounded up to a multiple of it.
        billed: the states that are paid for.
        tells_starts: whether it says when a machine was last started; another boot is none then.
        counts_all: whether all the time that it is on is counted, or only what lies in a session.
    """

    minimum_s: float
    step_s: float
    billed: frozenset[Power]
    tells_starts: bool = False
    counts_all: bool = True


@dataclass(frozen=True)
class SelfStop:
    """How a machine ends its own cost, with nobody else there.

    Attributes:
        how: `deallocate` asks the cloud from within, as the machine's own identity; `poweroff` is
            enough where a machine that is off is free; `command` is the user's own; empty where
            there is no way.
        options: what the guard must know for it, no secret among it.
    """

    how: str
    options: tuple[tuple[str, str], ...] = ()


class Provider(Protocol):
    """One machine, by the means of the cloud that rents it out.

    Every method raises `CloudError`: `CloudRefused` where the cloud's answer is no (with its code),
    `NoCapacity` where it has no such machine to give just now, and plain `CloudError` where it
    could not be asked.
    """

    @property
    def tariff(self) -> Tariff: ...

    @property
    def tells_address(self) -> bool:
        """Whether it knows where a machine is; else that is what the user said."""

    @property
    def self_stop(self) -> SelfStop:
        """May ask the cloud; refused where turning the machine off would do harm."""

    def describe(self) -> Machine: ...

    def start(self) -> None:
        """Ask for it; returns once the cloud has taken the order, not when it is done."""

    def stop(self) -> None:
        """Ask for the stop that ends the cost; returns likewise."""

    def quote(self) -> Quote | None:
        """What it costs now; None where the cloud does not say."""
