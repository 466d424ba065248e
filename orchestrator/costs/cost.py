"""What runs cost: arithmetic on times and prices, exact, without a clock or a file.

A machine is paid for by the hour, whatever runs on it. So each instant is split equally among the
runs active on a remote then, and the sum over runs is the price of the time in use, never more. A
cluster is paid for by the GPU-hour: there each run has a price of its own, and shares nothing.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise

from orchestrator.grades.verdict import of_five
from remote.runfolder import State, chief_id

_MICROSECOND = timedelta(microseconds=1)
_MICROSECONDS_PER_HOUR = 3_600_000_000

# A hundredth of a second at 0.001 an hour is more than one unit of the last place.
DECIMALS = 9

_FINAL = {state.value for state in State if state.final}

LOST = "lost"
"""The laptop's opinion that a run ended unseen."""

INTERRUPTED, RESUMED = "interrupted-", "resumed-"
"""A run stood still from the one to the other; both are followed by the number of the time."""

GPU_HOURS = "gpu-hours"
"""The source of a price that is a run's own: a cluster's, for the GPUs that the run had."""

Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class RunUsage:
    """How long a run was on a machine, and what that machine costs.

    Attributes:
        started_at: when it began to set up; None if it never did.
        ended_at: None while it goes on.
        price: per hour; None when unknown, `currency` is then empty.
        estimated: whether an end was guessed.
        gaps: in which it stood still between an interruption and its restart, in order.
        is_alone: whether the price is its own, whatever else runs there.
    """

    run_id: str
    remote: str
    started_at: datetime | None
    ended_at: datetime | None
    price: Decimal | None
    currency: str
    estimated: bool = False
    gaps: tuple[Span, ...] = ()
    is_alone: bool = False

    @property
    def machine(self) -> str:
        """Those who share it share its price."""
        return self.run_id if self.is_alone else self.remote


@dataclass(frozen=True)
class Cost:
    """Attributes:
    amount: None when the price is unknown.
    seconds: the run's own time from start to end, shared or not.
    estimated: the end is not known yet, was guessed, or was before the start.
    """

    amount: Decimal | None
    currency: str
    seconds: float
    estimated: bool


@dataclass(frozen=True)
class Total:
    """A sum of costs: what is known, by currency, and how many runs are not in it.

    Attributes:
        by_currency: sorted by currency.
        unknown_runs: with time on a machine of unknown price, or lost there.
        estimated: whether a part is.
    """

    by_currency: tuple[tuple[str, Decimal], ...]
    unknown_runs: int
    estimated: bool = False


class By(StrEnum):
    """What a report of costs has a row for."""

    REMOTE = "remote"
    CATEGORY = "category"
    RUN = "run"
    WORKSPACE = "workspace"
    SESSION = "session"


@dataclass(frozen=True)
class PricedRun:
    """A run with its cost and where it belongs; `session` is empty outside of any."""

    usage: RunUsage
    cost: Cost
    workspace: str
    category: str
    session: str = ""


@dataclass(frozen=True)
class CostRow:
    """Attributes:
    microseconds: sum of the runs' own times; runs side by side count each.
    """

    key: str
    runs: int
    microseconds: int
    total: Total

    @property
    def seconds(self) -> float:
        return self.microseconds / 1_000_000


@dataclass(frozen=True)
class Grade:
    """Attributes:
    points: None for a model that got none.
    """

    run_id: str | None
    points: int | None
    graded_at: datetime


def run_usage(
    run_id: str,
    remote: str,
    price: Decimal | None,
    currency: str,
    moments: Iterable[tuple[str, datetime]],
) -> RunUsage:
    """The usage of a run that came into these states at these times, in any order.

    The VM's word on the end goes before the laptop's, which is an estimate.
    """
    at = dict(moments)
    ends = [when for state, when in at.items() if state in _FINAL]
    gaps, still_since = run_gaps(at)
    if still_since is not None:
        # It has not used the machine since, whether it still waits or was given up.
        return RunUsage(
            run_id,
            remote,
            at.get(State.SETTING_UP.value, still_since),
            still_since,
            price,
            currency,
            estimated=not ends,
            gaps=gaps,
        )
    return RunUsage(
        run_id,
        remote,
        started_at=at.get(State.SETTING_UP.value, at.get(State.RUNNING.value)),
        ended_at=min(ends, default=at.get(LOST)),
        price=price,
        currency=currency,
        estimated=not ends and LOST in at,
        gaps=gaps,
    )


def run_gaps(at: Mapping[str, datetime]) -> tuple[tuple[Span, ...], datetime | None]:
    """When a run stood still, and since when it does, if it does.

    Args:
        at: when it came into each state.
    """
    gaps = []
    # They come in pairs: a run is not interrupted while it stands still.
    stops = sorted(when for state, when in at.items() if state.startswith(INTERRUPTED))
    starts = sorted(when for state, when in at.items() if state.startswith(RESUMED))
    for stop, start in zip(stops, starts, strict=False):
        gaps.append((stop, max(stop, start)))
    return tuple(gaps), stops[len(starts)] if len(stops) > len(starts) else None


def shared_time(spans: Sequence[Span]) -> list[Fraction]:
    """Each span's part of their common time, in microseconds.

    An instant is split equally among the spans it lies in, so the sum is the time that lies in
    any. A span that ends before it starts has no part.
    """
    change: dict[datetime, int] = defaultdict(int)
    forward = [(start, max(start, end)) for start, end in spans]
    for start, end in forward:
        change[start] += 1
        change[end] -= 1
    # The part that a span from the very beginning has had, at each instant of a change.
    part: dict[datetime, Fraction] = defaultdict(Fraction)
    active = 0
    for instant, following in pairwise(sorted(change)):
        active += change[instant]
        part[following] = part[instant]
        if active:
            part[following] += Fraction((following - instant) // _MICROSECOND, active)
    return [part[end] - part[start] for start, end in forward]


def run_costs(usages: Iterable[RunUsage], now: datetime) -> dict[str, Cost]:
    """The cost of each run, by run id. All runs of a machine must be given, to share its time.

    A run that goes on costs up to `now`. Amounts are rounded down, at the ninth decimal, so that
    no sum is more than the machine's price. Billed intervals, given as usages, are priced the same
    way: those that overlap are not paid twice.
    """
    costs = {}
    machines: dict[str, list[RunUsage]] = defaultdict(list)
    for usage in usages:
        assert usage.run_id not in costs, f"{usage.run_id} is there twice"
        # One that never started costs nothing at any price; unless it is lost, then nobody knows.
        unknown = usage.estimated and usage.price is None
        nothing = None if unknown else Decimal(0)
        costs[usage.run_id] = Cost(nothing, usage.currency, 0.0, usage.estimated)
        machines[usage.machine].append(usage)
    for together in machines.values():
        on = [(usage, span) for usage in together for span in _spans(usage, now)]
        parts: dict[str, Fraction] = defaultdict(Fraction)
        for (usage, _), part in zip(on, shared_time([span for _, span in on]), strict=True):
            parts[usage.run_id] += part
        for usage in together:
            if usage.run_id not in parts:
                continue
            spans = _spans(usage, now)
            costs[usage.run_id] = Cost(
                None if usage.price is None else _amount(usage.price, parts[usage.run_id]),
                usage.currency,
                sum(max(0.0, (end - start).total_seconds()) for start, end in spans),
                usage.estimated
                or usage.ended_at is None
                or any(end < start for start, end in spans),
            )
    return costs


def at_rest(usages: Iterable[RunUsage]) -> Iterator[RunUsage]:
    """Those that have ended and shared no time with one that goes on: their costs stand."""
    machines: dict[str, list[RunUsage]] = defaultdict(list)
    for usage in usages:
        machines[usage.machine].append(usage)
    for together in machines.values():
        open_from = min(
            (usage.started_at for usage in together if usage.started_at and not usage.ended_at),
            default=None,
        )
        for usage in together:
            if usage.ended_at is not None and (
                usage.started_at is None
                or open_from is None
                or max(usage.started_at, usage.ended_at) <= open_from
            ):
                yield usage


def _spans(usage: RunUsage, now: datetime) -> list[Span]:
    """When it was on the machine."""
    if usage.started_at is None:
        return []
    starts = [usage.started_at, *(resumed for _, resumed in usage.gaps)]
    ends = [*(stopped for stopped, _ in usage.gaps), usage.ended_at or now]
    return list(zip(starts, ends, strict=True))


def _amount(per_hour: Decimal, microseconds: Fraction) -> Decimal:
    exact = Fraction(per_hour) * microseconds / _MICROSECONDS_PER_HOUR
    return Decimal(math.floor(exact * 10**DECIMALS)).scaleb(-DECIMALS)


def sum_costs(costs: Iterable[Cost]) -> Total:
    amounts: dict[str, Decimal] = defaultdict(Decimal)
    unknown, estimated = 0, False
    for cost in costs:
        estimated = estimated or cost.estimated
        if cost.amount is None:
            unknown += 1
        elif cost.currency:
            amounts[cost.currency] += cost.amount
    return Total(tuple(sorted(amounts.items())), unknown, estimated)


def gang_cost(costs: Sequence[Cost]) -> Cost:
    """Of a gang's runs, the chief's first: what all cost, and the chief's time. Where they are paid
    in several currencies, the amount is unknown.
    """
    known = [cost.amount for cost in costs if cost.amount is not None]
    is_known = len(known) == len(costs) and len({cost.currency for cost in costs}) == 1
    return replace(
        costs[0],
        amount=sum(known, Decimal(0)) if is_known else None,
        estimated=any(cost.estimated for cost in costs),
    )


def gang_costs(costs: Mapping[str, Cost]) -> dict[str, Cost]:
    """Each gang's as one, by its chief's id; a run without a gang as it is.

    Args:
        costs: by run id.
    """
    gangs: dict[str, list[Cost]] = defaultdict(list)
    for run_id in sorted(costs):
        gangs[chief_id(run_id)].append(costs[run_id])
    return {run_id: gang_cost(gang) for run_id, gang in gangs.items()}


def cost_rows(runs: Iterable[PricedRun], by: By) -> tuple[CostRow, ...]:
    """A row for each remote, category, ..., sorted by its name."""
    groups: dict[str, list[Cost]] = defaultdict(list)
    for run in runs:
        groups[_key(run, by)].append(run.cost)
    return tuple(
        CostRow(key, len(costs), sum(map(microseconds, costs)), sum_costs(costs))
        for key, costs in sorted(groups.items())
    )


def sum_rows(rows: Iterable[CostRow]) -> tuple[CostRow, ...]:
    """Rows of one key made one, sorted by it."""
    groups: dict[str, list[CostRow]] = defaultdict(list)
    for row in rows:
        groups[row.key].append(row)
    return tuple(
        CostRow(
            key,
            sum(row.runs for row in same),
            sum(row.microseconds for row in same),
            sum_totals([row.total for row in same]),
        )
        for key, same in sorted(groups.items())
    )


def sum_totals(totals: Sequence[Total]) -> Total:
    amounts: dict[str, Decimal] = defaultdict(Decimal)
    for total in totals:
        for currency, amount in total.by_currency:
            amounts[currency] += amount
    return Total(
        tuple(sorted(amounts.items())),
        sum(total.unknown_runs for total in totals),
        any(total.estimated for total in totals),
    )


def microseconds(cost: Cost) -> int:
    """A run's own time, as exact as it was recorded."""
    return round(cost.seconds * 1_000_000)


def _key(run: PricedRun, by: By) -> str:
    match by:
        case By.REMOTE:
            return run.usage.remote
        case By.CATEGORY:
            return run.category
        case By.RUN:
            return run.usage.run_id
        case By.WORKSPACE:
            return run.workspace
        case By.SESSION:
            return run.session


def story(category: str, grades: Iterable[Grade], runs: Iterable[PricedRun], now: datetime) -> str:
    """What the runs brought their category: `category 4: 3 -> 5 for $0.42 in 38 min`.

    Points go from the best grade before the first grade of these runs to the best with theirs.
    Costs are of all these runs, also of those without a grade; time is that in which any was on.
    """
    runs, grades = tuple(runs), tuple(grades)
    ids = {run.usage.run_id for run in runs}
    first = min((grade.graded_at for grade in grades if grade.run_id in ids), default=now)
    before = _best(g for g in grades if g.run_id not in ids and g.graded_at <= first)
    brought = _best(g for g in grades if g.run_id in ids)
    after = max((points for points in (before, brought) if points is not None), default=None)
    name = re.sub(r"^category(?=\d)", "category ", category)
    if not runs:
        return f"{name}: {'no grade' if after is None else of_five(after)}"
    match before, after:
        case _, None:
            points = "no grade"
        case None, _:
            points = of_five(after)
        case _ if before == after:
            points = f"still {of_five(after)}"
        case _:
            points = f"{before} -> {after}"
    spans = [span for run in runs for span in _spans(run.usage, now)]
    seconds = float(sum(shared_time(spans)) / 1_000_000)
    money = format_total(sum_costs(run.cost for run in runs))
    if money == "unknown":
        money = "an unknown price"
    lasted = format_duration(seconds) if seconds else "an unknown time"
    return f"{name}: {points} for {money} in {lasted}"


def _best(grades: Iterable[Grade]) -> int | None:
    return max((grade.points for grade in grades if grade.points is not None), default=None)


def is_small(amount: Decimal) -> bool:
    """Whether it takes more than two decimals to read as what it is."""
    return 0 < abs(amount) < Decimal("0.00995")


def format_money(amount: Decimal, currency: str, *, small: bool = False) -> str:
    """`$0.42`, `0.42 EUR`; under a cent `$0.0042`. What is not zero never reads as zero.

    Args:
        currency: empty where nobody said it: `0.42`.
        small: whether it is shown among amounts under a cent, with as many decimals.
    """
    digits, under = f"{abs(amount):.2f}", ""
    if small or is_small(amount):
        digits = f"{abs(amount):.4f}"
        if amount and Decimal(digits) == 0:
            digits, under = "0.0001", "under "
    sign = "-" if amount < 0 else ""
    if currency == "USD":
        return f"{under}{sign}${digits}"
    return f"{under}{sign}{digits} {currency}".rstrip()


def format_total(total: Total, *, small: bool = False) -> str:
    """`$0.42`, `unknown`, or `at least $0.42 (1 run at an unknown price)`."""
    if not total.by_currency:
        return "unknown" if total.unknown_runs else "nothing"
    known = " + ".join(
        format_money(amount, currency, small=small) for currency, amount in total.by_currency
    )
    notes = ["estimated"] if total.estimated else []
    if total.unknown_runs:
        known = f"at least {known}"
        runs = "run" if total.unknown_runs == 1 else "runs"
        notes.append(f"{total.unknown_runs} {runs} at an unknown price")
    return f"{known} ({', '.join(notes)})" if notes else known


def format_duration(seconds: float) -> str:
    """`45 s`, `38 min`, `2 h 05 min`, rounded to the last unit shown."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
