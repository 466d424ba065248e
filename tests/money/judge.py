"""What is held against the ledger, the warnings and the guard, by the world's own word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from orchestrator.clouds.power import Provenance
from orchestrator.costs.account import stints
from orchestrator.costs.billing import Paid, paid
from orchestrator.costs.sessions import Session
from orchestrator.records.ledger import Ledger
from remote.guardrules import TICK_S
from tests.clouds.meter import billed_seconds, billed_spans
from tests.clouds.world import State, World
from tests.money.machine import Machine
from tests.money.stage import START, seconds_of

# What the rules give to a boot, to the last saving and to a look (`remote.guardrules`).
SLACK_S = 60.0
# Clouds count in whole seconds, and tell some of their times in them.
STEP_S = 1.0
_ALWAYS = (START - timedelta(days=1), START + timedelta(days=10_000))


@dataclass
class Record:
    """What came out, for some sessions.

    Attributes:
        ledger, meter: at the end.
        guessed, guessed_meter: what of it the ledger calls an estimate, and what the meter has in
            that time: nobody could know by then.
        unmarked_s: by how much the ledger was below the meter without saying so, at worst; in
            seconds of price.
        overrun_s: of a budget, likewise.
        left: machines that were on beyond their lease.
        needed, given: warnings that a machine costs and nothing will end that.
        broken: what went wrong, a line each.
    """

    sessions: int = 0
    ledger: Fraction = Fraction(0)
    meter: Fraction = Fraction(0)
    guessed: Fraction = Fraction(0)
    guessed_meter: Fraction = Fraction(0)
    unmarked_s: float = 0.0
    overrun_s: float = 0.0
    left: int = 0
    needed: int = 0
    given: int = 0
    estimated: int = 0
    contacts: int = 0
    events: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, other: Record) -> None:
        self.sessions += other.sessions
        self.ledger += other.ledger
        self.meter += other.meter
        self.guessed += other.guessed
        self.guessed_meter += other.guessed_meter
        self.unmarked_s = max(self.unmarked_s, other.unmarked_s)
        self.overrun_s = max(self.overrun_s, other.overrun_s)
        self.left += other.left
        self.needed += other.needed
        self.given += other.given
        self.estimated += other.estimated
        self.contacts += other.contacts
        self.events += other.events
        self.broken += other.broken

    @property
    def ratio(self) -> float:
        return float(self.ledger / self.meter) if self.meter else 1.0

    @property
    def known(self) -> float:
        """The ratio of what could be known."""
        meter = self.meter - self.guessed_meter
        return float((self.ledger - self.guessed) / meter) if meter else 1.0


def guessed(
    ledger: Ledger, remote: str, world: World, per_hour: Fraction
) -> tuple[Fraction, Fraction]:
    """What the ledger calls an estimate, and the meter from there until its next stint."""
    now, counted = world.clock.now(), stints(ledger, remote, world.clock.now())
    following = [stint.started_at for stint in counted[1:]] + [now]
    amount, metered = Fraction(0), 0.0
    for stint, next_at in zip(counted, following, strict=True):
        if stint.is_estimated:
            amount += Fraction(paid(stint, _ALWAYS).amount or Decimal(0))
            for span in billed_spans(world.history, world.rules):
                last = min(span.ended_at or now, next_at)
                first = max(span.started_at, stint.started_at)
                metered += max(0.0, (last - first).total_seconds())
    return amount, per_hour * Fraction(metered) / 3600


def said(ledger: Ledger, remote: str, now: datetime) -> tuple[Fraction, bool]:
    """What the ledger says the machine cost by now, and whether it calls that an estimate."""
    total = sum((paid(stint, _ALWAYS) for stint in stints(ledger, remote, now)), Paid())
    return Fraction(total.amount or Decimal(0)), total.is_estimated


def under_s(ledger: Ledger, remote: str, world: World) -> float:
    """By how much the ledger is below the meter where it does not say so, in seconds of time.

    Each known stint answers for what is metered from its start to the next one's.
    """
    now, _ = world.clock.now(), world.state
    spans = tuple(billed_spans(world.history, world.rules))

    def metered_s(start: datetime, end: datetime) -> float:
        total = 0.0
        for span in spans:
            ended_at = span.ended_at or now
            begin, until = max(span.started_at, start), min(ended_at, end)
            total += max(0.0, (until - begin).total_seconds())
            if start < ended_at <= end:  # what is rounded up counts where it ends
                lasted = ended_at - span.started_at
                total += billed_seconds(span, world.rules, now) - lasted.total_seconds()
        return total

    return max(metered_s(start, end) - said_s for start, end, said_s in _sure(ledger, remote, now))


def _sure(ledger: Ledger, remote: str, now: datetime) -> Iterator[tuple[datetime, datetime, float]]:
    """All times but those it estimates, and for how many seconds of each the ledger stands.

    An estimated stint excuses no more than itself: from its start, or where that is the guess from
    the end of the one before; to its end, or where that is to the start of the next one.
    """
    ends = {end.stint_id: end.provenance for end in ledger.stint_ends(remote)}
    since: datetime | None = _ALWAYS[0]
    over_at, said_s = _ALWAYS[0], 0.0
    for fact, stint in zip(ledger.stints(remote), stints(ledger, remote, now), strict=True):
        start = over_at if fact.provenance is Provenance.ESTIMATED else fact.started_at
        if since is not None:
            yield since, start, said_s
        over_at = stint.ended_at
        if not stint.is_estimated:
            since, said_s = start, stint.paid.total_seconds()
        elif ends.get(fact.id, Provenance.ESTIMATED) is Provenance.ESTIMATED:
            since = None
        else:
            since, said_s = over_at, 0.0
    if since is not None:
        yield since, _ALWAYS[1], said_s


def overrun_s(
    session: Session, world: World, per_hour: Fraction, away: Sequence[tuple[float, float]]
) -> float:
    """By how much a session's budget was overrun, in seconds of price.

    Only until the machine was next off: who starts it again by hand after that does so on his own.
    Not counted is the time in which no guard could be there.
    """
    if session.budget is None:
        return 0.0
    left_s = float(Fraction(session.budget) / per_hour * 3600)
    for start, end in _within(world, session):
        if end - start > left_s:
            used_up = start + left_s
            return end - used_up - length_s([*away, *_halted(world)], used_up, end)
        left_s -= end - start
    return 0.0


def _halted(world: World) -> Iterator[tuple[float, float]]:
    """When it was shut down from within and still paid for: no guard runs there."""
    for change, after in pairwise(world.history):
        if change.state in (State.HALTING, State.HALTED):
            yield seconds_of(change.at), seconds_of(after.at)


def _within(world: World, session: Session) -> Iterator[tuple[float, float]]:
    """The times that are paid for in the session."""
    now, _ = world.clock.now(), world.state
    ended_at = min(session.ended_at or now, now)
    for span in billed_spans(world.history, world.rules):
        start = max(span.started_at, session.started_at)
        end = min(span.ended_at or now, ended_at)
        if start < end:
            yield seconds_of(start), seconds_of(end)


def length_s(spans: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Of the spans, as far as they lie in there."""
    total, reached = 0.0, start
    for first, last in sorted(spans):
        begin, until = max(first, reached), min(last, end)
        if begin < until:
            total += until - begin
            reached = until
    return total


def beyond_lease(machine: Machine, now_s: float) -> str:
    """What of its terms the machine has passed while it is on; empty where it has passed none."""
    keep, disk = machine.disk.keep, machine.disk
    if machine.on_s is None or keep is None or disk.trouble or disk.fragile:
        return ""

    on_s = machine.on_s

    def is_late(end_s: float) -> bool:
        end_s = max(end_s, on_s)
        return now_s - end_s - length_s(machine.away, end_s, now_s) > SLACK_S

    if keep.ends_in_s is not None and is_late(machine.asked_s + keep.ends_in_s + machine.hidden_s):
        return f"{now_s - machine.asked_s - keep.ends_in_s:.0f} s after its hard end"
    if keep.idle_s is not None:
        active_s = max(machine.active_s, machine.on_s)
        # That somebody was there is seen at the next look.
        if is_late(active_s + TICK_S + keep.idle_s):
            return f"idle for {now_s - active_s:.0f} s instead of {keep.idle_s:.0f} s"
    return ""
