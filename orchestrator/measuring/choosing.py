"""Which remote is the cheapest, or the fastest, by what `train bench` has measured. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from orchestrator.costs.cost import format_duration, format_money
from orchestrator.errors import UsageError
from orchestrator.measuring.workload import WORKLOADS, Kept, money, newest
from orchestrator.settings.spec import Price, Remote

# Up to here times are told in seconds.
_COUNTED_S = 600


class Aim(StrEnum):
    """What `--remote` takes for a name, unless a remote has it."""

    CHEAPEST = "cheapest"
    FASTEST = "fastest"


@dataclass(frozen=True)
class Offer:
    """What 5/5 in some workloads takes on a remote.

    Attributes:
        cost: None at an unknown price; `currency` is then empty.
        since: when the oldest of the figures was measured.
        quick: whether any of them is rough.
    """

    remote: str
    seconds: float
    cost: Decimal | None
    currency: str
    since: datetime
    quick: bool

    def __str__(self) -> str:
        price = "" if self.cost is None else f"{format_cost(self.cost, self.currency)} in "
        rough = " (--quick)" if self.quick else ""
        return f"{self.remote} {price}{format_span(self.seconds)}{rough}"


@dataclass(frozen=True)
class Choice:
    """Attributes:
    offers: the best first.
    lacking: remotes that cannot be compared, and why.
    """

    offers: tuple[Offer, ...]
    lacking: tuple[str, ...]


def counting(categories: Iterable[str]) -> tuple[str, ...]:
    """The workloads that stand for these categories; all where none does."""
    wanted = set(categories)
    mine = tuple(name for name, known in WORKLOADS.items() if known.category in wanted)
    return mine or tuple(WORKLOADS)


def choose(
    aim: Aim, book: Iterable[Kept], remotes: Sequence[Remote], workloads: Sequence[str]
) -> Choice:
    """What the remotes offer that can be compared, at least one.

    A remote's price is the one it has now, or where it has none that of the last measurement.

    Raises:
        UsageError: none can, or their prices are in several currencies.
    """
    last = newest(book)
    offers: list[Offer] = []
    lacking: list[str] = []
    fix = "" if remotes else "train remote add NAME --host ADDRESS"
    for remote in remotes:
        there = [last[key] for name in workloads if (key := (remote.name, name)) in last]
        missing = set(workloads) - {kept.measured.workload for kept in there}
        if missing:
            names = ", ".join(name for name in workloads if name in missing)
            lacking.append(f"{remote.name}: {names} not measured")
            fix = fix or f"train bench {remote.name}"
            continue
        offer = make_offer(there, remote.price)
        if aim is Aim.CHEAPEST and offer.cost is None:
            lacking.append(f"{remote.name}: its price is unknown")
            fix = fix or f"train remote set {remote.name} --price 0.50"
        else:
            offers.append(offer)
    if not offers:
        cause = "; ".join(lacking) or "no remote is known"
        raise UsageError(f"no remote is known to be the {aim}", cause=cause, fix=fix)
    if aim is Aim.CHEAPEST and len(currencies := {offer.currency for offer in offers}) > 1:
        raise UsageError(
            f"prices in {' and '.join(sorted(currencies))} cannot be compared",
            fix="say them in one: train remote set NAME --price 0.50 --currency USD",
        )
    return Choice(ranked(aim, offers), tuple(lacking))


def make_offer(figures: Sequence[Kept], price: Price | None = None) -> Offer:
    """Of one remote, whose last figures these are.

    Args:
        price: instead of that of the last measurement.
    """
    seconds = sum(kept.to_five_s for kept in figures)
    latest = max(figures, key=lambda kept: kept.at)
    per_hour, currency = latest.price, latest.currency
    if price is not None:
        per_hour, currency = price.per_hour, price.currency
    return Offer(
        latest.remote,
        seconds,
        money(per_hour, seconds),
        currency,
        min(kept.at for kept in figures),
        any(kept.quick for kept in figures),
    )


def ranked(aim: Aim, offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """The best first; of equals the one that is better in the other respect."""

    def worth(offer: Offer) -> tuple[Decimal | float, ...]:
        cost = Decimal("Infinity") if offer.cost is None else offer.cost
        match aim:
            case Aim.CHEAPEST:
                return cost, offer.seconds
            case Aim.FASTEST:
                return offer.seconds, cost

    return tuple(sorted(offers, key=worth))


def format_span(seconds: float) -> str:
    """Fine enough to tell two machines apart: `171 s`, `12 min`."""
    return f"{seconds:.0f} s" if seconds < _COUNTED_S else format_duration(seconds)


def format_cost(amount: Decimal, currency: str) -> str:
    """As fine: `$0.0238`, `$1.50`."""
    return format_money(amount, currency, small=amount < 1)
