"""Whether what is to be run fits into the session's clock and the budgets there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from orchestrator.costs.cost import format_duration
from orchestrator.costs.purse import Budget, check, estimate_s
from orchestrator.costs.sessions import (
    Session,
    apart_from_month,
    budgets,
    open_session,
    per_hour_on,
)
from orchestrator.errors import Forbidden
from orchestrator.plan import Order
from orchestrator.records.ledger import Ledger
from orchestrator.settings.spec import Job

_LASTED = """
SELECT microseconds FROM run_price WHERE remote = ? AND workspace = ? AND category = ?
AND estimated = 0 AND started_at IS NOT NULL AND EXISTS (SELECT 1 FROM run_event
WHERE run_event.run_id = run_price.run_id AND state = 'succeeded') ORDER BY ended_at DESC LIMIT 5
"""


def fit(ledger: Ledger, order: Order) -> list[str]:
    """What to warn of.

    Raises:
        Forbidden: the session's end has passed, a budget is used up, or these runs do not fit.
    """
    now = datetime.now(UTC)
    remote = order.remote
    session = open_session(ledger, remote.name)
    if session is not None and session.ends_at is not None and session.ends_at <= now:
        raise Forbidden(
            f"the session {session.name} ended at {session.ends_at.astimezone():%H:%M}",
            fix=f"train session stop {remote.name}, then: train session start {remote.name}",
        )
    estimates = _estimates(ledger, order)
    bounds = budgets(ledger, remote, now)
    warnings = [*_longer(session, estimates, now), *apart_from_month(ledger, remote)]
    if not bounds:
        return warnings
    per_hour = per_hour_on(ledger, remote)
    if per_hour is None:
        return [*warnings, f"the price of {remote.name} is unknown: its budget binds nothing"]
    return [*warnings, *check(bounds, _paid_s(order, estimates), per_hour)]


def fit_into(budget: Budget, ledger: Ledger, order: Order) -> None:
    """The same for what binds these runs besides, at the price of the order's remote.

    Raises:
        Forbidden: it is used up, or they do not fit.
    """
    per_hour = per_hour_on(ledger, order.remote)
    if per_hour is not None:
        check([budget], _paid_s(order, _estimates(ledger, order)), per_hour)


def _estimates(ledger: Ledger, order: Order) -> list[float | None]:
    """Of each run, in seconds."""
    limit_of = order.overrides.time_limit_of
    return [estimate_s(limit_of(job), _lasted(ledger, order, job.name)) for job in order.jobs]


def _paid_s(order: Order, estimates: Sequence[float | None]) -> list[float | None]:
    return [
        None if seconds is None else seconds * _times_paid(order, job)
        for seconds, job in zip(estimates, order.jobs, strict=True)
    ]


def _times_paid(order: Order, job: Job) -> int:
    """Each of a gang's hosts is paid for, and on a cluster each GPU."""
    gpus = order.overrides.gpus_of(job) if order.remote.slurm is not None else 1
    return job.nodes * max(1, gpus)


def _longer(
    session: Session | None, estimates: Sequence[float | None], now: datetime
) -> Iterator[str]:
    """That a session ends before its runs would, one after the other."""
    if session is None or session.ends_at is None:
        return
    left_s = (session.ends_at - now).total_seconds()
    needed_s = sum(seconds for seconds in estimates if seconds is not None)
    if needed_s > left_s:
        yield (
            f"this may take {format_duration(needed_s)}, and the session {session.name} ends in "
            f"{format_duration(left_s)}: what runs then is warned, saves and ends"
        )


def _lasted(ledger: Ledger, order: Order, category: str) -> list[float]:
    """Seconds that its last runs took there, the last one last. One that was ended says nothing,
    nor does a category of the same name in another workspace, which may be another problem.
    """
    rows = ledger.query(_LASTED, order.remote.name, str(order.workspace.root), category)
    return [time_us / 1e6 for (time_us,) in reversed(rows)]
