"""What `train bench` found: side by side for people, plain for `--json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from orchestrator.costs.cost import format_money
from orchestrator.measuring.choosing import Aim, Offer, format_cost, format_span, make_offer, ranked
from orchestrator.measuring.workload import WORKLOADS, Kept, complaints
from orchestrator.screen.table import Table
from remote import record

Json = dict[str, Any]


def blocks(figures: Sequence[Kept]) -> Iterator[Table | str]:
    """For people: the figures, what they depend on, what spoils them, and the answer."""
    offers = comparable(figures)
    yield _rates(figures, offers)
    yield ""
    yield _machines(figures)
    yield from _warnings(figures)
    yield from _answers(offers)


def comparable(figures: Sequence[Kept]) -> tuple[Offer, ...]:
    """What each remote offers for all that is shown; those that lack some of it are left out."""
    shown = {kept.measured.workload for kept in figures}
    by_remote: dict[str, list[Kept]] = {}
    for kept in figures:
        by_remote.setdefault(kept.remote, []).append(kept)
    return tuple(make_offer(mine) for mine in by_remote.values() if len(mine) == len(shown))


def _rates(figures: Sequence[Kept], offers: Sequence[Offer]) -> Table:
    """By workload, so that the remotes are side by side; median and range of the repeats."""
    has_gpu = any(kept.gpu_percent is not None for kept in figures)
    columns = (
        "workload",
        "remote",
        ">samples/s",
        *([">GPU"] if has_gpu else []),
        ">per 1M",
        ">to 5/5",
    )
    made = Table(*columns)
    names = [name for name in WORKLOADS if any(kept.measured.workload == name for kept in figures)]
    for name in names:
        for kept in figures:
            if kept.measured.workload == name:
                rates = kept.rates
                busy = "" if kept.gpu_percent is None else f"{kept.gpu_percent:.0f} %"
                made.add_row(
                    name,
                    kept.remote,
                    f"{_number(kept.rate)} ({_number(min(rates))}-{_number(max(rates))})",
                    *([busy] if has_gpu else []),
                    _money(kept.per_million, kept.currency),
                    _to_five(kept.to_five_s, kept.to_five_cost, kept.currency),
                )
    if len(names) > 1:
        for offer in offers:
            total = _to_five(offer.seconds, offer.cost, offer.currency)
            made.add_row("together", offer.remote, *[""] * (len(columns) - 3), total)
    return made


def _machines(figures: Sequence[Kept]) -> Table:
    """What the figures depend on: a line for each run."""
    made = Table("remote", "measured", "~on", "driver", "tensorflow", ">an hour")
    for kept in {kept.run_id: kept for kept in figures}.values():
        made.add_row(
            kept.remote,
            f"{kept.at:%Y-%m-%d}" + (" --quick" if kept.quick else ""),
            kept.device,
            kept.measured.driver or "none",
            kept.measured.tensorflow,
            _price(kept),
        )
    return made


def _warnings(figures: Sequence[Kept]) -> Iterator[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for kept in figures:
        for text in complaints(kept):
            found.setdefault((kept.remote, text), []).append(kept.measured.workload)
    for (remote, text), names in found.items():
        everywhere = len(names) == sum(kept.remote == remote for kept in figures)
        where = remote if everywhere else f"{remote} ({', '.join(names)})"
        yield f"! {where}: {text}"


def _answers(offers: Sequence[Offer]) -> Iterator[str]:
    priced = [offer for offer in offers if offer.cost is not None]
    if len(priced) > 1 and len({offer.currency for offer in priced}) == 1:
        yield f"cheapest to 5/5: {'; '.join(map(str, ranked(Aim.CHEAPEST, priced)))}"
    if len(offers) > 1:
        yield f"fastest to 5/5: {'; '.join(map(str, ranked(Aim.FASTEST, offers)))}"


def kept_json(kept: Kept) -> Json:
    """All that was measured, and what it comes to; money as text, at the price of then."""
    return {
        "remote": kept.remote,
        "run": kept.run_id,
        "quick": kept.quick,
        "price_per_hour": kept.price_per_hour or None,
        "currency": kept.currency or None,
        "samples_per_s": kept.rate,
        "samples_per_s_range": [min(kept.rates), max(kept.rates)],
        "to_five_s": kept.to_five_s,
        "cost_per_million_samples": _text(kept.per_million),
        "cost_to_five": _text(kept.to_five_cost),
        "gpu_percent": kept.gpu_percent,
        "warnings": list(complaints(kept)),
        "measured": record.encode(kept.measured),
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:.9f}"


def _to_five(seconds: float, cost: Decimal | None, currency: str) -> str:
    return f"{format_span(seconds)}, {_money(cost, currency)}"


def _price(kept: Kept) -> str:
    return "unknown" if kept.price is None else format_money(kept.price, kept.currency)


def _money(amount: Decimal | None, currency: str) -> str:
    return "unknown" if amount is None else format_cost(amount, currency)


def _number(rate: float) -> str:
    """Three digits are more than the repeats agree in."""
    if rate >= 10_000_000:
        return f"{rate / 1_000_000:.0f}M"
    if rate >= 100_000:
        return f"{rate / 1000:.0f}k"
    return f"{rate / 1000:.1f}k" if rate >= 10_000 else f"{rate:.0f}"
