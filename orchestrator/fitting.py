"""Whether what is to be run fits into the session's clock and the budgets there are."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.errors import Forbidden
from orchestrator.ledger import Ledger
from orchestrator.plan import Order
from orchestrator.purse import check, estimate_s
from orchestrator.sessions import budgets, open_session, per_hour_on
from orchestrator.spec import Remote

_LASTED = """
SELECT microseconds FROM run_price WHERE remote = ? AND category = ? AND estimated = 0
AND started_at IS NOT NULL ORDER BY ended_at DESC LIMIT 5
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
    bounds = budgets(ledger, remote, now)
    if not bounds:
        return []
    per_hour = per_hour_on(ledger, remote)
    if per_hour is None:
        return [f"the price of {remote.name} is unknown: its budget binds nothing"]
    estimates = [
        estimate_s(order.overrides.time_limit_of(job), _lasted(ledger, remote, job.name))
        for job in order.jobs
    ]
    return check(bounds, estimates, per_hour)


def _lasted(ledger: Ledger, remote: Remote, category: str) -> list[float]:
    """Seconds that its last runs took there, the last one last."""
    rows = ledger.query(_LASTED, remote.name, category)
    return [time_us / 1e6 for (time_us,) in reversed(rows)]
