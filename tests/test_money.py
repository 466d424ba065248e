"""Settled prices: what is kept is what would be computed anew, whatever is recorded after it."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.costs.cost import By, CostRow, PricedRun, cost_rows, run_costs, run_usage
from orchestrator.costs.money import priced_runs, recorded_costs
from orchestrator.errors import LedgerError
from orchestrator.records.ledger import Ledger, Reporter, RunEvent, RunFact, SessionFact
from orchestrator.records.ledgerschema import STEPS, connect

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
NOW = NOON + timedelta(hours=9)
STATES = ["queued", "setting-up", "running", "succeeded", "failed", "lost"]


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def anew(ledger: Ledger, now: datetime) -> list[PricedRun]:
    """Every run priced from the facts alone."""
    facts = {fact.run_id: fact for fact in ledger.runs() if ledger.events(fact.run_id)}
    usages = [
        run_usage(
            run_id,
            fact.remote,
            fact.price_per_hour,
            fact.currency,
            [(event.state, event.at) for event in ledger.events(run_id)],
        )
        for run_id, fact in facts.items()
    ]
    costs = run_costs(usages, now)
    return [
        PricedRun(
            usage,
            costs[usage.run_id],
            facts[usage.run_id].workspace,
            facts[usage.run_id].category,
            facts[usage.run_id].session_id or "",
        )
        for usage in usages
    ]


def check(ledger: Ledger, now: datetime) -> None:
    """Every report is, to the last digit, what is computed anew."""
    expected = anew(ledger, now)
    ids = {run.usage.run_id for run in expected}
    assert told(priced_runs(ledger, {*ids, "nobody"}, now)) == told(expected)
    for by in By:
        assert shown(recorded_costs(ledger, by, now=now)) == shown(cost_rows(expected, by))
    since, workspace = after(5), "/one"
    wanted = {fact.run_id for fact in ledger.runs(workspace=workspace, since=since)}
    some = [run for run in expected if run.usage.run_id in wanted]
    found = recorded_costs(ledger, By.RUN, workspace, since, now)
    assert shown(found) == shown(cost_rows(some, By.RUN))


def told(runs: tuple[PricedRun, ...] | list[PricedRun]) -> list[str]:
    return sorted(map(repr, runs))


def shown(rows: tuple[CostRow, ...]) -> list[str]:
    """With the digits of each amount, which equality leaves out."""
    return list(map(repr, rows))


def fact(number: int, remote: str = "k80", price: Decimal | None = Decimal("0.60")) -> RunFact:
    return RunFact(
        run_id=f"run-{number}",
        workspace="/one" if number % 3 else "/two 'ü'\n",
        category=f"category{number % 2}",
        remote=remote,
        snapshot="",
        command="true",
        submitted_at=after(number),
        price_per_hour=price,
        currency=("USD", "EUR")[number % 5 == 0] if price is not None else "",
        price_source="",
        session_id="practice" if number % 4 == 0 else None,
    )


facts = st.builds(
    fact,
    st.integers(0, 9),
    st.sampled_from(["k80", "a10"]),
    st.none() | st.decimals("0", "900000000000", places=4),
)
events = st.builds(
    RunEvent,
    st.integers(0, 9).map("run-{}".format),
    st.sampled_from(STATES),
    st.integers(0, 40).map(lambda steps: NOON + timedelta(microseconds=steps * 70_000_001)),
    st.sampled_from(Reporter),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(facts, max_size=10, unique_by=lambda fact: fact.run_id),
    st.lists(st.lists(events, min_size=1, max_size=6), max_size=8),
)
def test_costs_are_what_is_computed_anew_after_whatever_was_recorded(
    runs: list[RunFact], rounds: list[list[RunEvent]]
) -> None:
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "ledger") as ledger:
        ledger.add(SessionFact("practice", None, "k80", NOON), *runs)
        known = {run.run_id for run in runs}
        for number, some in enumerate(rounds):
            ledger.add(*(event for event in some if event.run_id in known))
            check(ledger, NOW + timedelta(minutes=number))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.open(tmp_path / "ledger")
    made.add(SessionFact("practice", None, "k80", NOON))
    return made


def ran(ledger: Ledger, number: int, start: float, end: float | None, state: str = "") -> None:
    ended = [] if end is None else [RunEvent(f"run-{number}", state or "succeeded", after(end),
                                             Reporter.VM)]  # fmt: skip
    running = RunEvent(f"run-{number}", "running", after(start), Reporter.VM)
    ledger.add(fact(number), running, *ended)


def unsettled(ledger: Ledger) -> list[str]:
    rows = ledger.query("SELECT run_id FROM run_price WHERE estimated IS NULL ORDER BY 1")
    return [run_id for (run_id,) in rows]


def test_only_what_goes_on_and_what_shares_its_time_is_computed_anew(ledger: Ledger) -> None:
    ran(ledger, 1, 0, 60)
    ran(ledger, 2, 30, 90)
    ran(ledger, 3, 80, 100)
    ran(ledger, 4, 95, None)
    check(ledger, NOW)

    # 2 has ended before 4 began; 3 has not, and shares time with both.
    assert unsettled(ledger) == ["run-3", "run-4"]

    ran(ledger, 4, 95, 200)
    check(ledger, NOW)
    assert unsettled(ledger) == []


def test_a_lost_run_that_the_vm_tells_of_again_takes_prices_back(ledger: Ledger) -> None:
    ran(ledger, 1, 0, 10, "lost")
    ran(ledger, 2, 20, 30)
    ran(ledger, 3, -20, -10)
    check(ledger, NOW)
    assert unsettled(ledger) == []

    ledger.add(RunEvent("run-1", "failed", after(25), Reporter.VM))
    assert unsettled(ledger) == ["run-1", "run-2"]
    check(ledger, NOW)
    assert unsettled(ledger) == []


def test_a_run_that_waits_keeps_no_price_from_standing(ledger: Ledger) -> None:
    ledger.add(fact(9), RunEvent("run-9", "queued", after(-60), Reporter.VM))
    ran(ledger, 1, 0, 60)
    check(ledger, NOW)
    assert unsettled(ledger) == ["run-9"]

    ran(ledger, 9, 61, None)
    assert unsettled(ledger) == ["run-9"]
    check(ledger, NOW)


def test_what_another_command_records_meanwhile_is_not_overlooked(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(ledger, 1, 0, 60)

    def at_rest(usages: object) -> object:
        with Ledger.open(ledger.path) as other:
            ran(other, 2, 30, None)
        return usages

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.costs.money.at_rest", at_rest)
        recorded_costs(ledger, By.RUN, now=NOW)
    assert unsettled(ledger) == ["run-1", "run-2"]
    check(ledger, NOW)


def test_a_ledger_of_before_prices_were_kept_shows_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with closing(connect(path, STEPS[:1])) as old:
        old.execute(
            "INSERT INTO run VALUES ('run-1', '/one', 'c', 'k80', '', '', ?, '0.60', 'USD', '',"
            " '[]', NULL)",
            ("2026-08-01T12:00:00.000000Z",),
        )
        old.execute(
            "INSERT INTO run_event VALUES ('run-1', 'running', ?, NULL, NULL, '', 'vm')",
            ("2026-08-01T12:00:00.000000Z",),
        )
    with Ledger.open(path) as ledger:
        (row,) = recorded_costs(ledger, By.CATEGORY, now=after(60))
        assert row.total.by_currency == (("USD", Decimal("0.60")),)
        check(ledger, NOW)


def test_an_event_nobody_can_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger.open(path) as ledger:
        ledger.add(replace(fact(1), session_id=None))
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "INSERT INTO run_event VALUES ('run-1', 'running', 'noon', NULL, NULL, '', 'vm')"
        )
        other.commit()
    with Ledger.open(path) as ledger, pytest.raises(LedgerError, match="run_event nobody can read"):
        recorded_costs(ledger, By.RUN)
