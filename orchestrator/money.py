"""The cost of recorded runs: the ledger's facts put before the arithmetic of cost."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.cost import PricedRun, run_costs, run_usage
from orchestrator.ledger import Ledger


def priced_runs(ledger: Ledger, now: datetime | None = None) -> tuple[PricedRun, ...]:
    """Every recorded run with its cost. All of them, because runs side by side share a price."""
    facts = ledger.runs()
    usages = {
        fact.run_id: run_usage(
            fact.run_id,
            fact.remote,
            fact.price_per_hour,
            fact.currency,
            [(event.state, event.at) for event in ledger.events(fact.run_id)],
        )
        for fact in facts
        # Without any, the VM never had it.
        if ledger.events(fact.run_id)
    }
    costs = run_costs(usages.values(), now or datetime.now(UTC))
    return tuple(
        PricedRun(
            usages[fact.run_id],
            costs[fact.run_id],
            fact.workspace,
            fact.category,
            fact.session_id or "",
        )
        for fact in facts
        if fact.run_id in usages
    )
