"""A session's terms, given to the machine to keep by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from orchestrator.costs.payments import Payments
from orchestrator.costs.purse import Budget, hourly, paid_s, way_out
from orchestrator.costs.sessions import Session, budgets, per_hour_on
from orchestrator.errors import CloudError
from orchestrator.records.ledger import Ledger
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Remote
from orchestrator.vm.link import Link
from remote.protocol import Keep, Kept


class Guarding:
    """Of one remote."""

    def __init__(self, ledger: Ledger, payments: Payments, tell: Teller) -> None:
        self._ledger = ledger
        self._payments = payments
        self._tell = tell

    def set(self, link: Link, session: Session, on_s: float, now: datetime) -> Kept:
        """Have its guard go by the session's terms, and say plainly where it cannot.

        Args:
            on_s: for so long it was on in the session by its own count.
        """
        keep = self._keep(session, on_s, now)
        kept = link.call(keep, Kept)
        warning = _warning(self._payments.remote, keep, kept)
        if warning:
            self._tell.warn(warning)
        return kept

    def _keep(self, session: Session, on_s: float, now: datetime) -> Keep:
        remote, provider = self._payments.remote, self._payments.provider
        per_hour = per_hour_on(self._ledger, remote)
        bounds = budgets(self._ledger, remote, now)
        ends_in = (session.ends_at - now).total_seconds() if session.ends_at else None
        try:
            way = provider.self_stop if provider else None
        except CloudError as error:
            self._tell.warn(f"{remote.name} may not stop itself: {error}")
            way = None
        return Keep(
            session.id,
            ends_in_s=None if ends_in is None else max(0.0, ends_in),
            paid_s=_left_s(session, bounds, per_hour, on_s) if per_hour else None,
            idle_s=session.idle_s,
            how=way.how if way else "",
            options=(
                *(way.options if way else ()),
                *([("spot", "yes")] if self._payments.is_spot else ()),
            ),
        )


def _warning(remote: Remote, keep: Keep, kept: Kept) -> str:
    """What a user must know who relies on the guard; empty where all is well."""
    name, cost = remote.name, f"costs {hourly(remote.price)}; {way_out(remote)}"
    if kept.trouble:
        return (
            f"{name} CANNOT STOP ITSELF: {kept.trouble}; its runs end with the session, but it "
            f"{cost}"
        )
    if keep.ends_in_s is None and keep.paid_s is None and keep.idle_s is None:
        return f"nothing ends this session by itself: {name} {cost}"
    if kept.fragile:
        return f"{name} would not stop itself after a reboot: {kept.fragile}"
    return ""


def _left_s(
    session: Session, bounds: Sequence[Budget], per_hour: Decimal, on_s: float
) -> float | None:
    """For how long the budgets last, by the ledger, and by the machine's count where that is more.

    The ledger may have an estimate where nobody saw the machine go off.
    """
    left_s = paid_s(bounds, per_hour)
    if left_s is None or session.budget is None:
        return left_s
    return max(0.0, min(left_s, float(session.budget / per_hour * 3600) - on_s))
