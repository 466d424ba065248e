"""What machines cost beside what their runs cost: idle, off, and for a gained point."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.clouds.power import Power, Provenance
from orchestrator.costs.bill import Bill, bill_csv
from orchestrator.costs.cost import By
from orchestrator.costs.machinecost import off_cost, remote_costs, session_costs
from orchestrator.costs.money import recorded_costs
from orchestrator.costs.statement import off_lines
from orchestrator.records.ledger import (
    Ledger,
    Reporter,
    RunEvent,
    RunFact,
    SessionEnd,
    SessionFact,
    SessionTerms,
    Sighting,
    StintEnd,
    StintFact,
    VerdictFact,
)
from orchestrator.screen.costs import cost_row_json, cost_table

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)


def hours(count: float) -> datetime:
    return NOON + timedelta(hours=count)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Two hours at 0.60, off for three, on again; a run of 30 min in the first brought 3 points."""
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        ledger.add(
            SessionFact("s1", None, "k80", NOON),
            SessionTerms("s1", None, "", None, None),
            RunFact("a-1", "/w", "a", "k80", "", "true", NOON, Decimal("0.6"), "USD", "config",
                    session_id="s1"),
            RunEvent("a-1", "running", hours(0.5), Reporter.VM),
            RunEvent("a-1", "succeeded", hours(1), Reporter.VM),
            stint(0),
            StintEnd("k80 0", hours(2), Provenance.CLOUD, ""),
            SessionEnd("s1", hours(2), Provenance.CLOUD),
            stint(5),
        )  # fmt: skip
        ledger.add(
            VerdictFact(
                *("v", "/w", "a", "cd" * 32, "a-1", "graded", 3, "accuracy", 0.9, (0.5,), True),
                *("", 1, (), hours(1.1)),
            )
        )
        yield ledger


def stint(at: int) -> StintFact:
    price = Decimal("0.60"), "USD", "config", "", False, NOON, Decimal("0.02"), 0.0, 1.0
    return StintFact(f"k80 {at}", "k80", hours(at), Provenance.CLOUD, *price)


def test_by_remote_stands_what_the_machine_cost_idle_off_and_for_a_point(ledger: Ledger) -> None:
    cost = remote_costs(ledger, hours(6))["k80"]
    assert cost.paid.time == timedelta(hours=3)
    assert cost.paid.idle == timedelta(hours=2.5)
    assert cost.paid.amount == Decimal("1.8")
    assert cost.off == Decimal("0.06")
    assert (cost.gained, cost.per_point) == (3, Decimal("0.6"))
    assert off_lines({"k80": cost}) == ["k80: $0.06 for its disk while it was off"]


def test_by_session_stands_what_lies_in_it(ledger: Ledger) -> None:
    cost = session_costs(ledger, hours(6))["s1"]
    assert (cost.paid.amount, cost.paid.idle) == (Decimal("1.2"), timedelta(hours=1.5))
    assert (cost.off, cost.per_point) == (Decimal(0), Decimal("0.4"))
    assert session_costs(ledger, hours(6), since=hours(1)) == {}


def test_what_is_deleted_has_no_disk(ledger: Ledger) -> None:
    window = NOON, hours(30)
    ledger.add(StintEnd("k80 5", hours(6), Provenance.CLOUD, ""))
    assert off_cost(ledger, "k80", window, hours(30)) == Decimal("0.06") + Decimal("0.48")
    ledger.add(Sighting("k80", hours(7), Power.DELETED, Provenance.CLOUD, "", ""))
    assert off_cost(ledger, "k80", window, hours(30)) == Decimal("0.06") + Decimal("0.02")


def test_disks_in_two_currencies_have_no_sum(ledger: Ledger) -> None:
    ledger.add(
        StintEnd("k80 5", hours(6), Provenance.CLOUD, ""),
        replace(stint(8), currency="EUR"),
    )
    assert off_cost(ledger, "k80", (NOON, hours(30)), hours(30)) is None


def test_the_table_the_csv_and_the_json_have_the_machines_part(ledger: Ledger) -> None:
    rows = recorded_costs(ledger, By.REMOTE, now=hours(6))
    bill = Bill("remote", rows, remote_costs(ledger, hours(6)))
    table = cost_table(bill)
    names = [column.name for column in table.columns]
    assert names[4:] == ["paid", "idle", "machine", "while off", "points", "a point"]
    (row,) = table.rows
    assert [cell.text for cell in row[3:]] == [
        *("$0.30", "3 h 00 min", "2 h 30 min", "$1.80 (estimated)", "$0.06", "+3", "$0.60")
    ]
    (line,) = csv.DictReader(bill_csv(bill).splitlines())
    assert (line["amount"], line["machine_amount"]) == ("0.300000000", "1.800000000")
    assert (line["idle_seconds"], line["points_gained"]) == ("9000.000", "3")
    machine = cost_row_json(rows[0], bill.machines["k80"])["machine"]
    assert (machine["cost_per_point"], machine["idle_s"]) == ("0.600000000", 9000.0)
