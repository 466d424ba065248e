"""The cost of recorded runs: the ledger's facts put before the arithmetic of cost.

What has ended is priced once and its price kept in the ledger, so that a report reads sums and
computes only what goes on. The ledger takes a price back when an event comes that could change it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

from orchestrator.costs.cost import (
    DECIMALS,
    GPU_HOURS,
    INTERRUPTED,
    RESUMED,
    By,
    Cost,
    CostRow,
    PricedRun,
    RunUsage,
    Span,
    Total,
    at_rest,
    cost_rows,
    microseconds,
    run_costs,
    run_gaps,
    run_usage,
    sum_rows,
)
from orchestrator.errors import LedgerDamaged, LedgerError
from orchestrator.records.ledger import Ledger
from orchestrator.records.ledgerschema import written

_UNIT = 10**DECIMALS

_OPEN = """
SELECT run.run_id, run.remote, price_per_hour, run.currency, run.workspace, run.category,
    ifnull(run.session_id, ''), run.submitted_at, price_source, state, at
FROM run_price JOIN run USING (run_id) JOIN run_event USING (run_id)
WHERE estimated IS NULL ORDER BY run.submitted_at, run.rowid
"""
_SETTLED = """
SELECT run.run_id, run.remote, price_per_hour, run.currency, run.workspace, run.category,
    ifnull(run.session_id, ''), run.submitted_at, started_at, ended_at, microseconds, units, nanos,
    estimated
FROM run_price JOIN run USING (run_id)
WHERE run_id = ? AND estimated IS NOT NULL
"""
_BESIDE = "SELECT run_id, started_at, ended_at FROM run_price WHERE remote = ? AND ended_at > ?"
_STOOD_STILL = f"""
SELECT state, at FROM run_event
WHERE run_id = ? AND (state GLOB '{INTERRUPTED}*' OR state GLOB '{RESUMED}*')
"""  # noqa: S608 - our own names
_SETTLE = """
UPDATE run_price SET started_at = ?, ended_at = ?, microseconds = ?, units = ?, nanos = ?,
    estimated = ? WHERE run_id = ?
"""
_SUMS = """
SELECT {key}, currency, count(*), sum(microseconds), count(nanos), sum(units), sum(nanos),
    count(started_at), max(estimated)
FROM run_price
WHERE estimated IS NOT NULL AND workspace = ifnull(?, workspace) AND submitted_at >= ?
GROUP BY 1, 2
"""
_EACH = """
SELECT remote, started_at, ended_at, currency, units, nanos FROM run_price
WHERE nanos IS NOT NULL AND started_at IS NOT NULL AND ended_at IS NOT NULL AND submitted_at >= ?
"""
_KEYS = {
    By.REMOTE: "remote",
    By.CATEGORY: "category",
    By.RUN: "run_id",
    By.WORKSPACE: "workspace",
    By.SESSION: "ifnull(session_id, '')",
}


def priced_runs(
    ledger: Ledger, run_ids: Collection[str], now: datetime | None = None
) -> tuple[PricedRun, ...]:
    """Those of the runs that a VM has had, with their costs, by the time they were submitted."""
    now = now or datetime.now(UTC)
    _settle(ledger, now)
    with ledger.at_once():
        found = [(at, run) for at, run in _open_runs(ledger, now) if run.usage.run_id in run_ids]
        rows = [row for run_id in run_ids for row in ledger.query(_SETTLED, run_id)]
        found += [(row[7], _settled_run(row, _gaps(ledger, row[0]))) for row in rows]
    return tuple(run for _, run in sorted(found, key=lambda pair: pair[0]))


def recorded_costs(
    ledger: Ledger,
    by: By,
    workspace: str | None = None,
    since: datetime | None = None,
    now: datetime | None = None,
) -> tuple[CostRow, ...]:
    """What was spent, by remote, category, ...

    Args:
        since: only runs submitted then or later.
    """
    now = now or datetime.now(UTC)
    _settle(ledger, now)
    first = "" if since is None else str(written(since))
    with ledger.at_once():
        goes_on = [
            run
            for at, run in _open_runs(ledger, now)
            if at >= first and workspace in (None, run.workspace)
        ]
        sums = ledger.query(_SUMS.format(key=_KEYS[by]), workspace, first)
    return sum_rows((*map(_row, sums), *cost_rows(goes_on, by)))


def costs_one_by_one(
    ledger: Ledger, remotes: Collection[str], since: datetime, now: datetime
) -> list[tuple[str, Span, str, Decimal]]:
    """Of each run on these remotes that was submitted since then and has a price: its remote, its
    time, its currency and what it cost.
    """
    with ledger.at_once():
        found = [
            (run.usage.remote, (run.usage.started_at, run.usage.ended_at or now), run.cost)
            for at, run in _open_runs(ledger, now)
            if at >= str(written(since)) and run.usage.started_at is not None
        ]
        rows = ledger.query(_EACH, written(since))
    costs = [(name, span, cost.currency, cost.amount) for name, span, cost in found if cost.amount]
    for name, start, end, currency, units, nanos in rows:
        span = datetime.fromisoformat(start), datetime.fromisoformat(end)
        costs.append((name, span, currency, _amount(units, nanos, started=True)))
    return [cost for cost in costs if cost[0] in remotes]


def _settle(ledger: Ledger, now: datetime) -> None:
    """Keep the prices that stand by now."""
    newest = "SELECT max(rowid) FROM run_event"
    with ledger.at_once():
        last = ledger.query(newest)
        runs = {run.usage.run_id: run for _, run in _open_runs(ledger, now)}
    settled = [runs[usage.run_id] for usage in at_rest(run.usage for run in runs.values())]
    if not settled:
        return
    # A ledger that cannot be written now still tells what is in it.
    try:
        with ledger.at_once(writing=True):
            # Another command may have recorded what changes them; then the next one settles.
            if ledger.query(newest) == last:
                for run in settled:
                    ledger.query(_SETTLE, *_settled_values(run), run.usage.run_id)
    except LedgerDamaged:
        raise
    except LedgerError:
        pass


def _open_runs(ledger: Ledger, now: datetime) -> list[tuple[str, PricedRun]]:
    """Runs without a settled price and when they were submitted, with what they cost by now."""
    rows = groupby(ledger.query(_OPEN), key=lambda row: row[:9])
    try:
        found = [
            (
                run,
                replace(
                    run_usage(
                        run[0],
                        run[1],
                        None if run[2] is None else Decimal(run[2]),
                        run[3],
                        [(row[9], datetime.fromisoformat(row[10])) for row in events],
                    ),
                    is_alone=run[8] == GPU_HOURS,
                ),
            )
            for run, events in rows
        ]
    except (ValueError, ArithmeticError) as error:
        raise ledger.unreadable("run_event") from error
    usages = [usage for _, usage in found]
    costs = run_costs((*usages, *_beside(ledger, usages)), now)
    return [
        (run[7], PricedRun(usage, costs[usage.run_id], run[4], run[5], run[6]))
        for run, usage in found
    ]


def _beside(ledger: Ledger, usages: Iterable[RunUsage]) -> Iterator[RunUsage]:
    """The settled runs that these share time with."""
    first: dict[str, datetime] = {}
    for usage in usages:
        if usage.started_at is not None and not usage.is_alone:
            first[usage.remote] = min(usage.started_at, first.get(usage.remote, usage.started_at))
    for remote, since in first.items():
        for run_id, started_at, ended_at in ledger.query(_BESIDE, remote, written(since)):
            start, end = _time(started_at), _time(ended_at)
            yield RunUsage(run_id, remote, start, end, None, "", gaps=_gaps(ledger, run_id))


def _settled_values(run: PricedRun) -> tuple[object, ...]:
    usage, cost = run.usage, run.cost
    units = nanos = None
    if cost.amount is not None:
        units, nanos = divmod(int(cost.amount.scaleb(DECIMALS)), _UNIT)
    return (
        written(usage.started_at),
        written(usage.ended_at),
        microseconds(cost),
        units,
        nanos,
        # Two bits, so that the sums of many can still tell whether any was.
        int(cost.estimated) + 2 * int(usage.estimated),
    )


def _gaps(ledger: Ledger, run_id: str) -> tuple[Span, ...]:
    """When a run with a settled price stood still."""
    rows = ledger.query(_STOOD_STILL, run_id)
    return run_gaps({state: datetime.fromisoformat(at) for state, at in rows})[0]


def _settled_run(row: tuple[Any, ...], gaps: tuple[Span, ...]) -> PricedRun:
    run_id, remote, price, currency, workspace, category, session, _, start, end, *costs = row
    time_us, units, nanos, estimated = costs
    usage = RunUsage(
        run_id,
        remote,
        _time(start),
        _time(end),
        None if price is None else Decimal(price),
        currency,
        bool(estimated & 2),
        gaps,
    )
    amount = None if nanos is None else _amount(units, nanos, start is not None)
    cost = Cost(amount, currency, time_us / 1_000_000, bool(estimated & 1))
    return PricedRun(usage, cost, workspace, category, session)


def _row(sums: tuple[Any, ...]) -> CostRow:
    key, currency, runs, time_us, priced, units, nanos, started, estimated = sums
    known = ((currency, _amount(units, nanos, started > 0)),) if currency and priced else ()
    return CostRow(key, runs, time_us, Total(known, runs - priced, bool(estimated)))


def _amount(units: int, nanos: int, started: bool) -> Decimal:
    """As the arithmetic of cost gives it, which knows a plain zero for what never started."""
    return Decimal(units * _UNIT + nanos).scaleb(-DECIMALS) if started else Decimal(0)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
