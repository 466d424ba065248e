"""What may still be spent: budgets, and whether a run fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from orchestrator.costs.cost import format_duration, format_money
from orchestrator.errors import Forbidden
from orchestrator.settings.spec import Price, Remote

# From here on the user is told at each run.
WARN_AT = Decimal("0.8")


@dataclass(frozen=True)
class Budget:
    """Attributes:
    what: for the user, `the session`, `azure-k80 this month`.
    limit, spent: in `currency`.
    """

    what: str
    limit: Decimal
    spent: Decimal
    currency: str

    @property
    def left(self) -> Decimal:
        return max(Decimal(0), self.limit - self.spent)

    def __str__(self) -> str:
        spent = format_money(self.spent, self.currency)
        return f"{self.what}: {spent} of {format_money(self.limit, self.currency)}"


def hourly(price: Price | None) -> str:
    """In words, after `costs` or `at`."""
    if price is None:
        return "an unknown price"
    return f"{format_money(price.per_hour, price.currency)} an hour"


def way_out(remote: Remote) -> str:
    """What ends that it costs, in words."""
    if remote.is_rented:
        return f"to end that: train down {remote.name}"
    return "to end that, stop it where you rented it"


def estimate_s(limit_s: float | None, lasted_s: Sequence[float]) -> float | None:
    """How long a run will take: as its category's last ones did, at most its time limit.

    Args:
        lasted_s: of earlier runs of the category on that machine, the last one last.
    """
    # Where no budget is, nobody waits for this import.
    from statistics import median

    usual = median(lasted_s[-5:]) if lasted_s else None
    known = [seconds for seconds in (limit_s, usual) if seconds is not None]
    return min(known) if known else None


def price_of(seconds: float, per_hour: Decimal) -> Decimal:
    exact = Fraction(per_hour) * Fraction(seconds) / 3600
    return Decimal(exact.numerator) / Decimal(exact.denominator)


def paid_s(budgets: Iterable[Budget], per_hour: Decimal) -> float | None:
    """For how long the tightest of them lasts; None without any."""
    left = [float(budget.left / per_hour * 3600) for budget in budgets]
    return min(left, default=None)


def check(
    budgets: Sequence[Budget], estimates: Sequence[float | None], per_hour: Decimal
) -> list[str]:
    """What to warn of before runs are started one after the other.

    Args:
        estimates: seconds that each run will be paid for; None where nobody can tell.

    Raises:
        Forbidden: a budget is used up, or the runs do not fit into it.
    """
    needed_s = sum(seconds for seconds in estimates if seconds is not None)
    needed = price_of(needed_s, per_hour)
    warnings = []
    for budget in budgets:
        if budget.left <= 0:
            raise Forbidden(f"the budget is used up ({budget})", fix=_MORE)
        if needed > budget.left:
            raise Forbidden(
                f"{_runs(len(estimates))} would be paid for about {format_duration(needed_s)} and "
                f"cost {format_money(needed, budget.currency)}, which is more than is left "
                f"({budget})",
                fix=f"a shorter --time-limit, fewer categories, or {_MORE}",
            )
        if budget.spent + needed >= budget.limit * WARN_AT:
            warnings.append(f"the budget is nearly used up ({budget})")
    return warnings


_MORE = (
    "a larger one: train session stop NAME, then train session start NAME --budget 10; that of a "
    "month stands in remotes.yaml"
)


def _runs(count: int) -> str:
    return "this run" if count == 1 else f"these {count} runs"


def month_start(now: datetime) -> datetime:
    """Of the month by the user's own calendar."""
    local = now.astimezone()
    return local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
