"""What machines cost, whoever used them and however: paid time, idle or not, and the time off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from orchestrator.clouds.power import Power
from orchestrator.costs.account import stints, works
from orchestrator.costs.billing import Paid, paid
from orchestrator.costs.cost import Span
from orchestrator.costs.purse import price_of
from orchestrator.costs.sessions import Tally, all_sessions, tally
from orchestrator.records.ledger import Ledger
from orchestrator.records.ledgerschema import written

_DELETED = "SELECT min(at) FROM sighting WHERE remote = ? AND power = ? AND at >= ?"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class MachineCost:
    """Attributes:
    off: what its disk and address cost while it was off; None where their price is unknown, or the
        machine was paid in several currencies.
    gained: points that came of it; None where nothing was graded.
    """

    paid: Paid
    currency: str
    off: Decimal | None
    gained: int | None

    @property
    def per_point(self) -> Decimal | None:
        if not self.gained or self.paid.amount is None:
            return None
        return self.paid.amount / self.gained


def remote_costs(
    ledger: Ledger, now: datetime, since: datetime | None = None
) -> dict[str, MachineCost]:
    """By name, those that were counted."""
    window = (since or _LONG_AGO, now)
    begun = (one for one in all_sessions(ledger) if one.started_at >= window[0])
    tallies = [tally(ledger, session, now) for session in begun]
    remotes = sorted({fact.remote for fact in ledger.stints()})
    return {remote: _remote_cost(ledger, remote, window, tallies) for remote in remotes}


def session_costs(
    ledger: Ledger, now: datetime, since: datetime | None = None
) -> dict[str, MachineCost]:
    """By id, those that began since then."""
    found = {}
    for session in all_sessions(ledger):
        if since is None or session.started_at >= since:
            one = tally(ledger, session, now)
            off = off_cost(ledger, session.remote, session.window(now), now)
            found[session.id] = MachineCost(one.paid, one.currency, off, one.gained)
    return found


def _remote_cost(
    ledger: Ledger, remote: str, window: Span, tallies: Iterable[Tally]
) -> MachineCost:
    counted = stints(ledger, remote, window[1])
    did = works(ledger, remote, window[0], window[1])
    gained = [t.gained for t in tallies if t.session.remote == remote and t.gained is not None]
    total = sum((paid(stint, window, did) for stint in counted), Paid())
    return MachineCost(
        total,
        total.currency,
        off_cost(ledger, remote, window, window[1]),
        sum(gained) if gained else None,
    )


def off_cost(ledger: Ledger, remote: str, window: Span, now: datetime) -> Decimal | None:
    """What went on to cost while the machine was off, at the price its last time on began with.

    From the end of each time on to the next, or until it was found deleted.
    """
    facts, counted = ledger.stints(remote), stints(ledger, remote, now)
    if len({fact.currency for fact in facts} - {""}) > 1:
        return None
    total: Decimal | None = None
    for number, (fact, stint) in enumerate(zip(facts, counted, strict=True)):
        if fact.disk_per_hour is None:
            continue
        total = total or Decimal(0)
        if stint.goes_on:
            continue
        ((deleted,),) = ledger.query(_DELETED, remote, Power.DELETED, written(stint.ended_at))
        ends = [now if deleted is None else datetime.fromisoformat(deleted), window[1]]
        ends += [fact.started_at for fact in facts[number + 1 : number + 2]]
        seconds = (min(ends) - max(stint.ended_at, window[0])).total_seconds()
        total += price_of(max(0.0, seconds), fact.disk_per_hour)
    return total
