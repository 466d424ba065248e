"""What runs and machines cost, as tables for people and as plain values for `--json`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.costs.cost import (
    Cost,
    CostRow,
    format_duration,
    format_money,
    format_total,
    is_small,
    sum_rows,
)
from orchestrator.screen.table import Table

if TYPE_CHECKING:
    from decimal import Decimal

    from orchestrator.costs.bill import Bill
    from orchestrator.costs.machinecost import MachineCost

Json = dict[str, Any]


def cost_text(cost: Cost | None, *, ended: bool = False) -> str:
    """Args:
    ended: whether an estimate is of something that is over, as a lost run is.
    """
    if cost is None:
        return ""
    if cost.amount is None:
        return "unknown"
    if not cost.seconds:
        return ""
    return format_money(cost.amount, cost.currency) + (
        (" (estimated)" if ended else " so far") if cost.estimated else ""
    )


def cost_json(cost: Cost | None) -> Json | None:
    if cost is None:
        return None
    return {
        "amount": None if cost.amount is None else f"{cost.amount:f}",
        "currency": cost.currency or None,
        "seconds": cost.seconds,
        "estimated": cost.estimated,
    }


def cost_table(bill: Bill) -> Table:
    """The rows, and below several of them their total, with a line for each currency.

    The total is the exact sum, rounded; it is not the sum of what the rows show, from which it may
    differ in the last digit. All amounts have as many decimals as the smallest needs. Where the
    machines were counted, what they cost stands beside what of it is the runs'.
    """
    rows, by = bill.rows, bill.by
    small = any(is_small(amount) for row in rows for _, amount in row.total.by_currency)
    machines = _machine_columns(bill)
    made = Table(by, ">runs", ">time", ">cost", *machines)
    for row in rows:
        name = bill.names.get(row.key, row.key) or f"(no {by})"
        cost = format_total(row.total, small=small)
        cells = [texts.get(row.key, "") for texts in machines.values()]
        made.add_row(name, str(row.runs), format_duration(row.seconds), cost, *cells)
    if len(rows) > 1:
        nothing = [""] * len(machines)
        (total,) = sum_rows(replace(row, key="total") for row in rows)
        known = total.total.by_currency
        first = replace(total.total, by_currency=known[:1])
        count, time = str(total.runs), format_duration(total.seconds)
        made.add_row("total", count, time, format_total(first, small=small), *nothing)
        for currency, amount in known[1:]:
            made.add_row("", "", "", format_money(amount, currency, small=small), *nothing)
    return made


def _machine_columns(bill: Bill) -> dict[str, dict[str, str]]:
    """By heading, and then by row; without what no machine has."""
    columns: dict[str, dict[str, str]] = {}
    for key, cost in bill.machines.items():
        paid = cost.paid
        amount = "unknown" if paid.amount is None else format_money(paid.amount, cost.currency)
        texts = {
            ">paid": format_duration(paid.time.total_seconds()),
            ">idle": format_duration(paid.idle.total_seconds()),
            ">machine": f"{amount} (estimated)" if paid.is_estimated else amount,
            ">while off": format_money(cost.off, cost.currency) if cost.off else "",
            ">points": "" if cost.gained is None else f"+{cost.gained}",
            ">a point": format_money(cost.per_point, cost.currency) if cost.per_point else "",
        }
        for heading, text in texts.items():
            columns.setdefault(heading, {})[key] = text
    return {heading: texts for heading, texts in columns.items() if any(texts.values())}


def cost_row_json(row: CostRow, machine: MachineCost | None = None) -> Json:
    return {
        "key": row.key,
        "runs": row.runs,
        "seconds": row.seconds,
        "cost": {currency: f"{amount:f}" for currency, amount in row.total.by_currency},
        "unknown_runs": row.total.unknown_runs,
        "estimated": row.total.estimated,
        "machine": None if machine is None else _machine_json(machine),
    }


def _machine_json(cost: MachineCost) -> Json:
    def number(amount: Decimal | None) -> str | None:
        return None if amount is None else f"{amount:f}"

    paid = cost.paid
    return {
        "paid_s": paid.time.total_seconds(),
        "used_s": paid.used.total_seconds(),
        "setup_s": paid.setup.total_seconds(),
        "idle_s": paid.idle.total_seconds(),
        "cost": number(paid.amount),
        "currency": cost.currency,
        "estimated": paid.is_estimated,
        "cost_while_off": number(cost.off),
        "points_gained": cost.gained,
        "cost_per_point": number(cost.per_point),
    }
