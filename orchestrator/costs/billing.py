"""From what was seen of a machine to the time that is paid for. Pure: no clock, no file.

A stint is a time in which a machine was on and paid for: opened with the price it has then, closed
when its end is known. The end comes from the cloud, else from the machine's own records. Where
neither says, the stint stays open, and is lost once the next has begun; what it comes to is an
estimate, until the machine lets us in again and its records say when it went off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import zip_longest

from orchestrator.clouds.power import Power, Provenance, Tariff
from orchestrator.costs.cost import DECIMALS, Span

# Clouds tell some times in whole seconds, and a machine's clock is off by some.
_SAME_START = timedelta(seconds=90)
_WHOLE = timedelta(seconds=1)
# Off for no longer, it was rebooted; a cloud bills that through.
_REBOOT = timedelta(minutes=10)
# What is paid for before a machine's system comes up, and after its last sign of life: the guard
# writes one every 15 s, and a shutdown takes its time.
_COMES_UP = timedelta(seconds=60)
_LAST_SIGN = timedelta(seconds=20)
_GOES_DOWN = timedelta(seconds=40)
# What a guard gives to a boot and to the last saving, and a cloud takes to stop one.
_LEASE_SLACK = timedelta(minutes=5)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Moment:
    at: datetime
    source: Provenance
    reason: str = ""


@dataclass(frozen=True)
class Boot:
    """One boot of a machine by its guard's record, on the laptop's clock.

    Attributes:
        last_at: its last sign of life.
        stopped: whether the guard had turned it off.
        id: what tells it from every other; empty where it was not noted.
        doubt: nobody met it, and its clock was set some time between the last meeting before it
            and now: by so much later it may have been as well.
        is_told: whether it was told at an earlier meeting, in a boot after it, and counted then.
    """

    started_at: datetime
    last_at: datetime
    stopped: bool = False
    id: str = ""
    doubt: timedelta = timedelta()
    is_told: bool = False

    def moved(self, shift: timedelta) -> Boot:
        """On the clock as it was by the last meeting before it."""
        return replace(
            self,
            started_at=self.started_at + shift,
            last_at=self.last_at + shift,
            doubt=timedelta() if abs(shift) < _SAME_START else -shift,
        )

    def met(self, booted_at: datetime, seen_at: datetime) -> Boot:
        """Put right by a meeting in this boot: whatever its clock was set to, its uptime is known.

        Args:
            booted_at: by the uptime it told then.
            seen_at: the last time it was met.
        """
        lasted = self.last_at - self.started_at
        return replace(self, started_at=booted_at, last_at=max(seen_at, booted_at + lasted))


@dataclass(frozen=True)
class Sight:
    """A machine as it was seen once, on the laptop's clock.

    Attributes:
        source: who says so, the cloud or the machine itself.
        since: when it came into this state; None where nobody says.
        started_at: when it was last started (by the cloud) or booted (by itself); likewise.
        went_off_at: when it last went off before that; likewise.
        boots: those before this one, oldest first, as far as its guard noted them.
        boot: what tells this boot from the next; empty where only the cloud was asked.
    """

    at: datetime
    power: Power
    source: Provenance
    since: datetime | None = None
    started_at: datetime | None = None
    went_off_at: Moment | None = None
    boots: tuple[Boot, ...] = ()
    boot: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Before:
    """What the ledger has of the machine.

    Attributes:
        opened_at: of the stint that is open; None where none is.
        is_guess: whether it may have begun before that.
        lost: each lost stint's start, the last it was seen on, and when it was over at the latest.
        closed: the start and the end of each one that is closed, oldest first.
        seen_at: when it was last seen, on or off.
        seen_on_at: when it was last seen on, before the boot or start that is told of now.
        seen_off_at: when it was last seen, if it was off then and free.
        seen_starting_at: when it was last seen, if it was starting then.
        lease_ends_at: when its guard would have stopped it; None where nobody says.
        was_halted: whether it was off then, and paid for.
        boot: when it was last asked.
    """

    opened_at: datetime | None = None
    is_guess: bool = False
    lost: tuple[tuple[datetime, datetime, datetime], ...] = ()
    closed: tuple[Span, ...] = ()
    seen_at: datetime | None = None
    seen_on_at: datetime | None = None
    seen_off_at: datetime | None = None
    seen_starting_at: datetime | None = None
    lease_ends_at: datetime | None = None
    was_halted: bool = False
    boot: str = ""

    @property
    def closed_at(self) -> datetime | None:
        """The end of the last one that is closed."""
        return max((end for _, end in self.closed), default=None)


@dataclass(frozen=True)
class Change:
    """What a sight adds, all or nothing of it.

    Attributes:
        end, start: of the open stint, and of the next.
        over: the end of that next one, where it is over already.
        found: the end of each lost stint; None where it stays lost.
        missed: the start of a time that lasted until the open stint began.
        unseen: starts and ends of times that nobody met it in, nor its cloud told.
    """

    end: Moment | None = None
    start: Moment | None = None
    over: Moment | None = None
    found: tuple[Moment | None, ...] = ()
    missed: Moment | None = None
    unseen: tuple[tuple[Moment, Moment], ...] = ()


def reconcile(before: Before, sight: Sight, tariff: Tariff) -> Change:
    """What was not known before this sight: also what was done behind our back."""
    if sight.power is Power.UNKNOWN:
        return Change()
    sight = replace(sight, boots=tuple(_settled(boot, before) for boot in sight.boots))
    change = _followed(before, sight, tariff)
    return replace(change, unseen=tuple(_uncounted(before, change, sight, tariff)))


def _settled(boot: Boot, before: Before) -> Boot:
    """Without doubt where only one of its two times follows a start that is known."""
    starts = [*(times[0] for times in (*before.closed, *before.lost)), before.opened_at]

    def follows(at: datetime) -> bool:
        return any(s is not None and -_SAME_START <= at - s <= _REBOOT for s in starts)

    as_it_is, moved = follows(boot.started_at), follows(boot.started_at + boot.doubt)
    if as_it_is == moved:
        return boot
    return replace(boot if as_it_is else boot.moved(boot.doubt), doubt=timedelta())


def _followed(before: Before, sight: Sight, tariff: Tariff) -> Change:
    """What it says of the stints that are known, and of the last one."""
    is_on = sight.power in tariff.billed
    opened_at = before.opened_at
    found = tuple(_end_by_signs(lost, sight, tariff) for lost in before.lost)
    if opened_at is None:
        if is_on:
            return Change(start=_start(before, sight, tariff), found=found)
        unseen = _unseen(before, sight)
        return Change(start=unseen, over=_end(unseen.at, sight)) if unseen else Change()
    restart = _restart(before, opened_at, sight, tariff) if is_on else _unseen(before, sight)
    if restart is None:
        end = None if is_on else _end(max(opened_at, before.seen_on_at or opened_at), sight)
        if end is not None and _came_back(before, end, tariff):
            return Change(None, replace(end, source=Provenance.ESTIMATED), end)
        missed = _missed(before, opened_at, sight, tariff) if is_on else None
        return Change(end, found=found, missed=missed)
    seen_on = max(opened_at, before.seen_on_at or opened_at)
    end = _end_by_signs((opened_at, seen_on, restart.at), sight, tariff)
    return Change(end, restart, None if is_on else _end(restart.at, sight), found)


def _start(before: Before, sight: Sight, tariff: Tariff) -> Moment:
    known = _began(before, sight, tariff)
    source = Provenance.ESTIMATED if known is None else sight.source
    start = known or sight.at
    # What is paid for once is not paid for again, whatever a clock says.
    if before.closed_at is not None and start < before.closed_at:
        start = before.closed_at
        source = Provenance.ESTIMATED
    return Moment(min(start, sight.at), source, sight.reason)


def _began(before: Before, sight: Sight, tariff: Tariff) -> datetime | None:
    """From when on its last start is paid for."""
    start = sight.started_at
    if start is None:
        return sight.since if sight.power is Power.RUNNING else None
    if Power.STARTING in tariff.billed:
        return start - _COMES_UP if sight.source is Provenance.VM else start
    # A cloud that bills from `running` on may tell when it was asked for.
    return max(start, before.seen_starting_at or start)


def _unseen(before: Before, sight: Sight) -> Moment | None:
    """The start of one that is off, which nobody saw."""
    if sight.power is Power.STARTING or before.seen_at is None:
        return None
    counted = before.opened_at or before.closed_at
    if counted is not None and not _is_after(counted, sight.started_at or sight.since):
        return None
    if sight.started_at is not None:
        # What was seen off since then did not run for it; what was seen to start has started.
        began = before.opened_at is not None or before.seen_starting_at is not None
        is_new = began or sight.started_at > before.seen_at - _WHOLE
        return Moment(sight.started_at, sight.source, sight.reason) if is_new else None
    if sight.since is None or before.opened_at is not None:
        return None
    # It went off again, and nobody says when it had come on.
    is_new = _is_after(before.seen_at, sight.since)
    return Moment(sight.since, Provenance.ESTIMATED, sight.reason) if is_new else None


def _is_after(counted: datetime, at: datetime | None) -> bool:
    return at is not None and at > counted + _SAME_START


def _came_back(before: Before, end: Moment, tariff: Tariff) -> bool:
    """Whether it must have been off between: its guard would not have let it go on until then."""
    if tariff.tells_starts or before.lease_ends_at is None:
        return False
    return end.source is Provenance.CLOUD and end.at > before.lease_ends_at + _LEASE_SLACK


def _missed(before: Before, opened_at: datetime, sight: Sight, tariff: Tariff) -> Moment | None:
    """The start of the time before it was found on."""
    began = _began(before, sight, tariff)
    if not before.is_guess or began is None:
        return None
    if before.closed_at is not None:
        began = max(began, before.closed_at)
    return Moment(began, sight.source) if began < opened_at else None


def _end(on_at: datetime, sight: Sight) -> Moment | None:
    """None while nobody says when it went off; what was seen on then was not off."""
    if sight.power is Power.STARTING:
        # Since then it starts; how it went off before that is another question.
        off = sight.went_off_at
        return off if off is not None and off.at >= on_at - _SAME_START else None
    if sight.since is None or not on_at - _SAME_START <= sight.since <= sight.at:
        return None
    return Moment(sight.since, sight.source, sight.reason)


def _restart(before: Before, opened_at: datetime, sight: Sight, tariff: Tariff) -> Moment | None:
    """The later start that this sight tells of."""
    if before.seen_off_at is not None and before.seen_off_at >= opened_at:
        # It was off between, whatever the times that are told.
        began = _began(before, sight, tariff)
        if began is None:
            return Moment(sight.at, Provenance.ESTIMATED, sight.reason)
        if began < before.seen_off_at:
            return Moment(before.seen_off_at, Provenance.ESTIMATED, sight.reason)
        return Moment(began, sight.source, sight.reason)
    start = sight.started_at
    if start is None or start <= opened_at + _SAME_START or before.was_halted:
        return None
    if sight.source is Provenance.VM:
        if tariff.tells_starts or sight.boot == before.boot or not before.boot:
            return None
        off_at = max(
            (at for at in (*(b.last_at for b in sight.boots), before.seen_on_at) if at is not None),
            default=None,
        )
        if off_at is not None and start - off_at <= _REBOOT:
            return None
    return Moment(_began(before, sight, tariff) or start, sight.source, sight.reason)


def _end_by_signs(
    lost: tuple[datetime, datetime, datetime], sight: Sight, tariff: Tariff
) -> Moment | None:
    """The end of a stint by what is known of how it went off."""
    began_at, _, next_at = lost
    told = sight.went_off_at
    if told is not None and began_at <= told.at <= next_at:
        return told
    last = _last_boot(lost, sight.boots)
    return None if last is None else _end_of_boot(last, next_at, sight, tariff)


def _end_of_boot(last: Boot, next_at: datetime, sight: Sight, tariff: Tariff) -> Moment:
    # Off by itself, such a machine may have been paid for still; its guard's order ends that.
    is_sure = last.stopped or Power.STOPPED_BILLED not in tariff.billed
    off_at = last.last_at + _LAST_SIGN
    if Power.STOPPING in tariff.billed:
        off_at += _GOES_DOWN
    source = sight.source if is_sure else Provenance.ESTIMATED
    return Moment(min(off_at, next_at), source)


def _uncounted(
    before: Before, change: Change, sight: Sight, tariff: Tariff
) -> Iterator[tuple[Moment, Moment]]:
    """The times of boots that lie in no stint: started elsewhere, and stopped by the guard, say.

    Only since the first stint: what was before that is somebody else's.
    """
    counted = [*before.closed]
    for (start, _, next_at), found in zip_longest(before.lost, change.found):
        counted.append((start, found.at if found else next_at))
    for begun, ended in ((before.opened_at, change.end), (_at(change.start), change.over)):
        if begun is not None:
            counted.append((begun, ended.at if ended else sight.at))
    if not tariff.counts_all or not counted:
        return
    first_at = min(counted)[0]
    boots = (boot for boot in sight.boots if boot.started_at > first_at and not boot.is_told)
    for start, last in _on_times(boots):
        if any(
            start + moved < ended and last.last_at + moved > begun
            for begun, ended in counted
            for moved in (timedelta(), last.doubt)
        ):
            continue
        next_at = min((begun for begun, _ in counted if begun >= last.last_at), default=sight.at)
        since = max(ended for _, ended in counted if ended <= start)
        if Power.STARTING in tariff.billed:
            start = max(since, start - _COMES_UP)
        source = Provenance.ESTIMATED if last.doubt else sight.source
        yield Moment(start, source), _end_of_boot(last, next_at, sight, tariff)


def _at(moment: Moment | None) -> datetime | None:
    return None if moment is None else moment.at


def _on_times(boots: Iterable[Boot]) -> Iterator[tuple[datetime, Boot]]:
    """From each start to its last boot; a reboot is no end."""
    start, last = None, None
    for boot in boots:
        if start is not None and last is not None and _is_apart(last, boot):
            yield start, last
            start = None
        start, last = start or boot.started_at, boot
    if start is not None and last is not None:
        yield start, last


def _is_apart(last: Boot, boot: Boot) -> bool:
    """Whether it was off between, and not rebooted."""
    return last.stopped or boot.started_at - last.last_at > _REBOOT


def _last_boot(lost: tuple[datetime, datetime, datetime], boots: Sequence[Boot]) -> Boot | None:
    """Up to which it was on without a break, as far as its clock can be trusted."""
    began_at, seen_on_at, next_at = lost
    last, on = None, timedelta()
    for boot in boots:
        if not began_at <= boot.last_at <= next_at:
            continue
        if last is not None and _is_apart(last, boot) and last.last_at >= seen_on_at - _SAME_START:
            break
        last = boot
        on += boot.last_at - boot.started_at
    if last is None or last.last_at < seen_on_at - _SAME_START:
        return None
    # A clock that was set back since then has it go off before it can have.
    return None if last.last_at - began_at < on - _SAME_START else last


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
    amount: None where a part has no known price, or they are in several currencies.
    currencies: of what is known.
    """

    time: timedelta = timedelta()
    used: timedelta = timedelta()
    setup: timedelta = timedelta()
    amount: Decimal | None = Decimal(0)
    is_estimated: bool = False
    currencies: frozenset[str] = frozenset()

    @property
    def currency(self) -> str:
        """In words where there are several; empty where nothing is known."""
        return " and ".join(sorted(self.currencies))

    @property
    def idle(self) -> timedelta:
        return max(timedelta(), self.time - self.used - self.setup)

    def __add__(self, other: Paid) -> Paid:
        currencies = self.currencies | other.currencies
        known = self.amount is not None and other.amount is not None and len(currencies) < 2
        return Paid(
            self.time + other.time,
            self.used + other.used,
            self.setup + other.setup,
            self.amount + other.amount if known else None,  # type: ignore[operator]
            self.is_estimated or other.is_estimated,
            currencies,
        )


@dataclass(frozen=True)
class Work:
    """What a run did on the machine: set up, then trained."""

    setup: Span
    trained: Span | None

    @property
    def ended_at(self) -> datetime:
        return (self.trained or self.setup)[1]


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
    currencies = frozenset({stint.currency} - {""})
    amount = _amount(stint.per_hour, time)
    return Paid(time, used, busy - used, amount, stint.is_estimated, currencies)


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
