"""What a cloud bills for a machine's life: the judge of what our own ledger says of it.

It goes by the machine's history alone and shares no line with the product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import zip_longest

from tests.clouds.world import Change, Rules, State, World

# What a start that fails goes back to.
_AS_BEFORE = (State.HALTED, State.RELEASED, State.SUSPENDED)
# Paid for as the end of a time that was: what never came up costs nothing.
_GOING_DOWN = (State.HALTING, State.RELEASING)


@dataclass(frozen=True)
class Span:
    """A time that is paid for, without a break.

    Attributes:
        ended_at: None while it goes on.
    """

    started_at: datetime
    ended_at: datetime | None


def billed_spans(history: Sequence[Change], rules: Rules) -> Iterator[Span]:
    start: datetime | None = None
    for change, following in zip_longest(history, history[1:]):
        if change.state is State.STARTING and following and following.state in _AS_BEFORE:
            continue  # There was no room for it.
        if change.state in rules.billed:
            if start is None and change.state not in _GOING_DOWN:
                start = change.at
        elif start is not None:
            yield Span(start, change.at)
            start = None
    if start is not None:
        yield Span(start, None)


def billed_seconds(span: Span, rules: Rules, now: datetime) -> int:
    """Rounded up, and no less than the cloud's minimum."""
    seconds = ((span.ended_at or now) - span.started_at).total_seconds()
    return max(rules.minimum_s, math.ceil(seconds / rules.step_s) * rules.step_s)


def bill(world: World, per_hour: Fraction) -> Fraction:
    """What is owed by now for the machine, without its disk."""
    # Looked at, so that its history is up to date.
    now, _ = world.clock.now(), world.state
    spans = billed_spans(world.history, world.rules)
    return per_hour * sum(billed_seconds(span, world.rules, now) for span in spans) / 3600
