"""From what was seen of a machine to the time that is paid for. Pure: no clock, no file.

A stint is a time in which a machine was on and paid for: opened with the price it has then, closed
when its end is known. The end comes from the cloud, else from the machine's own records; where
neither says, the stint stays open as an estimate until the next start leaves no other way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from orchestrator.cost import DECIMALS, Span
from orchestrator.power import Power, Provenance, Tariff

# Clouds tell some times in whole seconds, and a machine's clock is off by some.
_SAME_START = timedelta(seconds=90)
# Off for no longer, it was rebooted; a cloud bills that through.
_REBOOT = timedelta(minutes=10)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Moment:
    at: datetime
    source: Provenance
    reason: str = ""


@dataclass(frozen=True)
class Sight:
    """A machine as it was seen once, on the laptop's clock.

    Attributes:
        source: who says so, the cloud or the machine itself.
        since: when it came into this state; None where nobody says.
        started_at: when it was last started (by the cloud) or booted (by itself); likewise.
        went_off_at: when it last went off before that, by what the guard noted on it; likewise.
        boot: what tells this boot from the next; empty where only the cloud was asked.
    """

    at: datetime
    power: Power
    source: Provenance
    since: datetime | None = None
    started_at: datetime | None = None
    went_off_at: datetime | None = None
    boot: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Before:
    """What the ledger has of the machine.

    Attributes:
        opened_at: of the stint that is open; None where none is.
        closed_at: the end of the last one that is closed.
        seen_on_at: when it was last seen on; its boot then, as far as it was asked.
    """

    opened_at: datetime | None = None
    closed_at: datetime | None = None
    seen_on_at: datetime | None = None
    boot: str = ""


@dataclass(frozen=True)
class Change:
    """What a sight adds: the end of the open stint, the start of the next, both or neither."""

    end: Moment | None = None
    start: Moment | None = None


def reconcile(before: Before, sight: Sight, tariff: Tariff) -> Change:
    """What was not known before this sight: also what was done behind our back."""
    if sight.power is Power.UNKNOWN:
        return Change()
    is_on = sight.power in tariff.billed
    if before.opened_at is None:
        return Change(start=_start(before, sight)) if is_on else Change()
    if not is_on:
        return Change(end=_end(before.opened_at, sight))
    restart = _restart(before, before.opened_at, sight)
    if restart is None:
        return Change()
    return Change(_end_before(before, before.opened_at, sight, restart), restart)


def _start(before: Before, sight: Sight) -> Moment:
    known = sight.started_at or (sight.since if sight.power is Power.RUNNING else None)
    start = known or sight.at
    source = Provenance.ESTIMATED if known is None else sight.source
    # What is paid for once is not paid for again, whatever a clock says.
    if before.closed_at is not None and start < before.closed_at:
        start, source = before.closed_at, Provenance.ESTIMATED
    return Moment(min(start, sight.at), source, sight.reason)


def _end(opened_at: datetime, sight: Sight) -> Moment | None:
    """None while nobody says when it went off."""
    for at, source in ((sight.since, sight.source), (sight.went_off_at, Provenance.VM)):
        if at is not None and opened_at <= at <= sight.at:
            return Moment(at, source, sight.reason)
    return None


def _restart(before: Before, opened_at: datetime, sight: Sight) -> Moment | None:
    """The later start that this sight tells of."""
    start = sight.started_at
    if start is None or start <= opened_at + _SAME_START:
        return None
    if before.seen_on_at is not None and start <= before.seen_on_at:
        return None
    if sight.source is Provenance.VM:
        if sight.boot == before.boot or not before.boot:
            return None
        off_at = sight.went_off_at or before.seen_on_at
        if off_at is not None and start - off_at <= _REBOOT:
            return None
    return Moment(start, sight.source, sight.reason)


def _end_before(before: Before, opened_at: datetime, sight: Sight, restart: Moment) -> Moment:
    off_at = sight.went_off_at
    if off_at is not None and opened_at <= off_at <= restart.at:
        return Moment(off_at, Provenance.VM, sight.reason)
    # Nobody knows. The last time it was seen on is the least it was; the report says so.
    return Moment(before.seen_on_at or opened_at, Provenance.ESTIMATED, "restarted behind our back")


def paid_time(lasted: timedelta, minimum_s: float, step_s: float) -> timedelta:
    """What a stint counts as: at least the minimum, in whole steps; a step of 0 rounds nothing."""
    seconds = max(lasted.total_seconds(), minimum_s)
    if step_s:
        seconds = math.ceil(seconds / step_s) * step_s
    return max(lasted, timedelta(seconds=seconds))


@dataclass(frozen=True)
class Stint:
    """Paid time of one machine at one price.

    Attributes:
        ended_at: up to now, for one that goes on.
        is_estimated: whether its start or its end is no more than a guess.
        goes_on: whether it has no end yet.
        per_hour: None where the price is unknown.
    """

    remote: str
    started_at: datetime
    ended_at: datetime
    is_estimated: bool
    goes_on: bool
    per_hour: Decimal | None
    currency: str
    minimum_s: float = 0.0
    step_s: float = 1.0

    @property
    def paid(self) -> timedelta:
        return paid_time(self.ended_at - self.started_at, self.minimum_s, self.step_s)


@dataclass(frozen=True)
class Paid:
    """Attributes:
    time: paid for, of which `used` is training and `setup` environments; the rest is idle.
    amount: None where a part has no known price.
    """

    time: timedelta = timedelta()
    used: timedelta = timedelta()
    setup: timedelta = timedelta()
    amount: Decimal | None = Decimal(0)
    is_estimated: bool = False

    @property
    def idle(self) -> timedelta:
        return max(timedelta(), self.time - self.used - self.setup)

    def __add__(self, other: Paid) -> Paid:
        known = self.amount is not None and other.amount is not None
        return Paid(
            self.time + other.time,
            self.used + other.used,
            self.setup + other.setup,
            self.amount + other.amount if known else None,  # type: ignore[operator]
            self.is_estimated or other.is_estimated,
        )


@dataclass(frozen=True)
class Work:
    """What a run did on the machine: set up, then trained."""

    setup: Span
    trained: Span | None


def paid(stint: Stint, window: Span, works: Sequence[Work] = ()) -> Paid:
    """The part of a stint that lies in a window; what was rounded up counts where it ends."""
    start, end = max(stint.started_at, window[0]), min(stint.ended_at, window[1])
    if start > end or (start == end and stint.started_at != stint.ended_at):
        return Paid()
    time = end - start
    if window[0] <= stint.ended_at <= window[1]:
        time += stint.paid - (stint.ended_at - stint.started_at)
    used = length(_within((work.trained for work in works if work.trained), start, end))
    busy = length(
        _within((span for work in works for span in (work.setup, work.trained) if span), start, end)
    )
    return Paid(time, used, busy - used, _amount(stint.per_hour, time), stint.is_estimated)


def _within(spans: Iterable[Span], start: datetime, end: datetime) -> list[Span]:
    cut = ((max(first, start), min(last, end)) for first, last in spans)
    return [(first, last) for first, last in cut if first < last]


def length(spans: Iterable[Span]) -> timedelta:
    """Of the time that lies in any of them."""
    total, reached = timedelta(), None
    for first, last in sorted(spans):
        begin = first if reached is None else max(first, reached)
        if begin < last:
            total += last - begin
            reached = last
    return total


def _amount(per_hour: Decimal | None, time: timedelta) -> Decimal | None:
    """Rounded up, at the ninth decimal: a bill is never less than what it adds up to."""
    if per_hour is None:
        return None
    exact = (
        Fraction(per_hour)
        * (time // timedelta(microseconds=1))
        / (_HOUR // timedelta(microseconds=1))
    )
    return Decimal(math.ceil(exact * 10**DECIMALS)).scaleb(-DECIMALS)
