"""Sessions: periods of paid practice on a remote, each with a clock, a budget and what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from orchestrator.clouds.power import Provenance
from orchestrator.costs.account import stints, works
from orchestrator.costs.billing import Paid, paid
from orchestrator.costs.cost import By, PricedRun
from orchestrator.costs.money import costs_one_by_one, priced_runs, recorded_costs
from orchestrator.costs.purse import Budget, month_start
from orchestrator.errors import UsageError
from orchestrator.records.ledger import Ledger, SessionEnd, SessionFact, SessionTerms
from orchestrator.settings.config import load_month_limit
from orchestrator.settings.home import remotes_file
from orchestrator.settings.spec import Remote


@dataclass(frozen=True)
class Session:
    """Attributes:
    ended_at: None while it is open.
    ends_at: the hard end; None for none.
    budget: in `currency`; None for none.
    idle_s: the machine is to stop after so long without work; None for never.
    """

    id: str
    name: str
    remote: str
    started_at: datetime
    ended_at: datetime | None
    ends_at: datetime | None
    budget: Decimal | None
    currency: str
    idle_s: float | None

    def is_past_end(self, now: datetime) -> bool:
        return self.ends_at is not None and self.ends_at <= now

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        return self.started_at, max(self.started_at, self.ended_at or now)


@dataclass(frozen=True)
class Tally:
    """What a session came to by now.

    Attributes:
        runs: those submitted in it.
        gained: points that its models brought their categories; None if none was graded.
        per_hour: what its machine goes on to cost; None where it is off, or nobody knows.
    """

    session: Session
    paid: Paid
    currency: str
    runs: int
    gained: int | None
    per_hour: Decimal | None = None

    @property
    def budget_s(self) -> float | None:
        """For how long its budget lasts from now on; None where it has none, or nothing is used."""
        budget, spent = self.session.budget, self.paid.amount
        if budget is None or spent is None or not self.per_hour:
            return None
        return float(max(Decimal(0), budget - spent) / self.per_hour * 3600)

    @property
    def per_point(self) -> Decimal | None:
        """What a gained point cost."""
        if not self.gained or self.gained < 0 or self.paid.amount is None:
            return None
        return self.paid.amount / self.gained


@dataclass(frozen=True)
class Gain:
    """What runs brought their category.

    Attributes:
        before: the best points without them; None where there were none.
        brought: the best of theirs.
    """

    before: int | None
    brought: int

    @property
    def points(self) -> int:
        return max(0, self.brought - (self.before or 0))


def open_session(ledger: Ledger, remote: str) -> Session | None:
    """The one that goes on there."""
    fact = next(reversed(ledger.open_sessions(remote)), None)
    return None if fact is None else _session(ledger, fact)


def all_sessions(ledger: Ledger, remote: str | None = None) -> tuple[Session, ...]:
    """By their start."""
    return tuple(_session(ledger, fact) for fact in ledger.sessions(remote))


def session_of(ledger: Ledger, session_id: str) -> Session:
    """One that was recorded, as it is by now."""
    fact = ledger.session(session_id)
    assert fact is not None, f"{session_id} was never recorded"
    return _session(ledger, fact)


def _session(ledger: Ledger, fact: SessionFact) -> Session:
    terms, end = ledger.terms(fact.id), ledger.session_end(fact.id)
    return Session(
        id=fact.id,
        name=fact.name or fact.id,
        remote=fact.remote,
        started_at=fact.started_at,
        ended_at=end.ended_at if end else None,
        ends_at=terms.ends_at if terms else None,
        budget=terms.budget if terms else None,
        currency=terms.currency if terms else "",
        idle_s=terms.idle_s if terms else None,
    )


def begin(
    ledger: Ledger,
    remote: Remote,
    now: datetime,
    *,
    name: str = "",
    lasts_s: float | None = None,
    budget: Decimal | None = None,
    idle_s: float | None = None,
) -> Session:
    """Open a session on a remote where none is open.

    Raises:
        UsageError: one is open there.
    """
    limit = budget if budget is not None else remote.budget.session
    with ledger.at_once(writing=True):
        known = open_session(ledger, remote.name)
        if known is not None:
            raise UsageError(
                f"the session {known.name} goes on on {remote.name}",
                fix=f"train session stop {remote.name}",
            )
        # To the second, as a person would name it; two of one second are refused by the rule above.
        session_id = f"{remote.name}-{now.astimezone():%Y%m%d-%H%M%S}"
        ledger.add(
            SessionFact(session_id, name or None, remote.name, now),
            SessionTerms(
                session_id,
                budget=limit,
                currency=remote.price.currency if remote.price and limit is not None else "",
                ends_at=None if lasts_s is None else now + timedelta(seconds=lasts_s),
                idle_s=idle_s,
            ),
        )
    begun = open_session(ledger, remote.name)
    assert begun is not None
    return begun


def end(ledger: Ledger, session: Session, at: datetime, source: Provenance) -> None:
    ledger.add(SessionEnd(session.id, max(session.started_at, at), source))


def tally(ledger: Ledger, session: Session, now: datetime) -> Tally:
    """What it cost: the machine's paid time in it, or where that is not counted, its runs' time."""
    window = session.window(now)
    runs = _runs_of(ledger, session, now)
    counted = stints(ledger, session.remote, now)
    found = works(ledger, session.remote, session.started_at, now)
    total = sum((paid(stint, window, found) for stint in counted), Paid())
    if not counted:
        total = sum(map(_as_paid, runs), Paid())
    return Tally(
        session,
        total,
        total.currency or session.currency,
        len(runs),
        _gained(ledger, session, runs),
        next((stint.per_hour for stint in counted if stint.goes_on), None),
    )


def _runs_of(ledger: Ledger, session: Session, now: datetime) -> tuple[PricedRun, ...]:
    ids = [
        row[0] for row in ledger.query("SELECT run_id FROM run WHERE session_id = ?", session.id)
    ]
    return priced_runs(ledger, ids, now) if ids else ()


def _as_paid(run: PricedRun) -> Paid:
    time = timedelta(seconds=run.cost.seconds)
    currencies = frozenset({run.cost.currency} - {""})
    return Paid(time, time, timedelta(), run.cost.amount, run.cost.estimated, currencies)


def _gained(ledger: Ledger, session: Session, runs: Iterable[PricedRun]) -> int | None:
    found = gains(ledger, runs, session.started_at)
    return sum(gain.points for gain in found.values()) if found else None


def gains(
    ledger: Ledger, runs: Iterable[PricedRun], since: datetime
) -> dict[tuple[str, str], Gain]:
    """By workspace and category: the best of these runs' models over the best there was before.

    Categories in which none was graded are not in it.
    """
    runs = tuple(runs)
    ids = {run.usage.run_id for run in runs}
    found = {}
    for workspace, category in sorted({(run.workspace, run.category) for run in runs}):
        graded = [
            verdict
            for verdict in ledger.verdicts(workspace, category)
            if verdict.points is not None
        ]
        brought = [v.points or 0 for v in graded if v.run_id in ids]
        before = [v.points or 0 for v in graded if v.run_id not in ids and v.graded_at < since]
        if brought:
            found[workspace, category] = Gain(max(before, default=None), max(brought))
    return found


def per_hour_on(ledger: Ledger, remote: Remote) -> Decimal | None:
    """What the user says that it costs, else what its last paid time began with; else None."""
    if remote.price is not None:
        return remote.price.per_hour
    stint = ledger.last_stint(remote.name)
    return stint.price_per_hour if stint else None


def budgets(ledger: Ledger, remote: Remote, now: datetime) -> tuple[Budget, ...]:
    """All that bound what is spent on a remote now, with what was spent.

    Only those in the currency it is paid in: from one to another nobody says the rate.

    Raises:
        ConfigError: the user's file is wrong, which has the budget of all remotes.
    """
    currency = currency_on(ledger, remote)
    found = []
    session = open_session(ledger, remote.name)
    if session is not None and session.budget is not None and session.currency in ("", currency):
        spent = tally(ledger, session, now).paid.amount or Decimal(0)
        found.append(Budget(f"the session {session.name}", session.budget, spent, currency))
    limit, all_limit = remote.budget.month, load_month_limit(remotes_file())
    since = month_start(now)
    if limit is not None:
        spent = _spent_since(ledger, since, now, remote.name)[currency]
        found.append(Budget(f"{remote.name} this month", limit, spent, currency))
    if all_limit is not None and all_limit.currency == (currency or all_limit.currency):
        spent = _spent_since(ledger, since, now)[all_limit.currency]
        name = "all remotes this month"
        found.append(Budget(name, all_limit.amount, spent, all_limit.currency))
    return tuple(found)


def currency_on(ledger: Ledger, remote: Remote) -> str:
    """What it is paid in: by the user's word, else by its last paid time; empty where unknown."""
    if remote.price is not None:
        return remote.price.currency
    stint = ledger.last_stint(remote.name)
    return stint.currency if stint else ""


def apart_from_month(ledger: Ledger, remote: Remote) -> list[str]:
    """That the budget of all remotes does not bind this one, where it is so."""
    limit, currency = load_month_limit(remotes_file()), currency_on(ledger, remote)
    if limit is None or currency in ("", limit.currency):
        return []
    return [
        f"{remote.name} is paid in {currency}: the month's budget of all remotes, which is in "
        f"{limit.currency}, does not bind it"
    ]


def _spent_since(
    ledger: Ledger, since: datetime, now: datetime, remote: str | None = None
) -> dict[str, Decimal]:
    """By currency, as far as prices are known; paid time, and runs outside of any: without a cloud
    only what lies in a session is paid time.

    Args:
        remote: None for all.
    """
    counted = stints(ledger, remote, now)
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for stint in counted:
        spent[stint.currency] += paid(stint, (since, now)).amount or Decimal(0)
    by_time = {stint.remote for stint in counted}
    for row in recorded_costs(ledger, By.REMOTE, since=since, now=now):
        if row.key not in by_time and remote in (None, row.key):
            for currency, amount in row.total.by_currency:
                spent[currency] += amount
    for name, (start, stop), currency, amount in costs_one_by_one(ledger, by_time, since, now):
        spans = ((s.started_at, s.ended_at) for s in counted if s.remote == name)
        if not any(begun < stop and start < over for begun, over in spans):
            spent[currency] += amount
    return spent
