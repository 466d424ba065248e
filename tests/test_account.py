"""A machine's paid time in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.clouds.power import Power, Provenance, Quote, Tariff
from orchestrator.costs.account import Account, stints, works
from orchestrator.costs.billing import Boot, Moment, Sight, Work
from orchestrator.costs.payments import PLAIN
from orchestrator.costs.sessions import (
    all_sessions,
    apart_from_month,
    begin,
    budgets,
    end,
    open_session,
    tally,
)
from orchestrator.costs.statement import amount_text
from orchestrator.records.ledger import Ledger, Reporter, RunEvent, RunFact, SessionEnd
from orchestrator.settings.home import OVERRIDE, remotes_file
from orchestrator.settings.spec import Limits, Price, Remote

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
CLOUD, VM = Provenance.CLOUD, Provenance.VM
REMOTE = Remote("k80", "203.0.113.7", price=Price(Decimal("0.60")), budget=Limits(Decimal(5)))
TARIFF = Tariff(60.0, 1.0, frozenset({Power.RUNNING}))


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


def quote() -> Quote | None:
    return Quote(Decimal("0.60"), "USD", "config", NOON)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        yield ledger


@pytest.fixture
def account(ledger: Ledger) -> Account:
    return Account(ledger, REMOTE, TARIFF)


def on(at: float, source: Provenance = CLOUD, **facts: object) -> Sight:
    return Sight(minutes(at), Power.RUNNING, source, **facts)  # type: ignore[arg-type]


def off(at: float, **facts: object) -> Sight:
    return Sight(minutes(at), Power.STOPPED_FREE, CLOUD, **facts)  # type: ignore[arg-type]


def test_from_start_to_stop_is_one_stint_at_the_price_it_had_at_its_start(
    ledger: Ledger, account: Account
) -> None:
    account.see(on(1, started_at=NOON), quote)
    account.see(on(30), lambda: None)
    account.see(off(70, since=minutes(60)), lambda: None)
    (found,) = stints(ledger, "k80", minutes(100))

    assert (found.started_at, found.ended_at, found.per_hour) == (NOON, minutes(60), Decimal("0.6"))
    assert not (found.goes_on)
    assert not (found.is_estimated)


def test_the_price_is_asked_only_where_a_stint_begins(account: Account) -> None:
    asked = []

    def ask() -> None:
        asked.append(1)

    for sight in (on(1), on(2), off(3, since=minutes(2)), on(4)):
        account.see(sight, ask)
    assert len(asked) == 2


def test_one_that_goes_on_is_counted_until_now_and_is_an_estimate(
    ledger: Ledger, account: Account
) -> None:
    account.see(on(1, started_at=NOON), quote)
    (found,) = stints(ledger, "k80", minutes(90))

    assert found.goes_on
    assert found.is_estimated
    assert found.ended_at == minutes(90)


def test_one_found_off_since_nobody_knows_when_is_counted_as_late_as_it_can_have_been(
    ledger: Ledger, account: Account
) -> None:
    account.see(on(1, started_at=NOON), quote)
    account.see(on(20), quote)
    account.see(off(5000), quote)
    (found,) = stints(ledger, "k80", minutes(6000))

    assert found.ended_at == minutes(5000)
    assert found.is_estimated


def test_its_guard_would_have_stopped_it_before_that(ledger: Ledger, account: Account) -> None:
    account.see(on(1, started_at=NOON), quote)
    begin(ledger, REMOTE, minutes(2), idle_s=600)
    account.see(on(20), quote)
    account.see(off(5000), quote)
    (found,) = stints(ledger, "k80", minutes(6000))

    assert found.ended_at == minutes(30)
    assert found.is_estimated


def test_two_sights_of_one_tick_of_the_clock_are_both_kept(
    ledger: Ledger, account: Account
) -> None:
    account.see(off(1), quote)
    account.see(on(1, started_at=minutes(1)), quote)

    assert len(stints(ledger, "k80", minutes(2))) == 1
    seen = ledger.query("SELECT power FROM sighting ORDER BY at")
    assert [power for (power,) in seen] == [Power.STOPPED_FREE, Power.RUNNING]


def test_a_lost_end_is_found_in_the_machines_own_records(ledger: Ledger, account: Account) -> None:
    account.see(on(1, started_at=NOON), quote)
    account.see(off(400), quote)
    account.see(on(500, started_at=minutes(500)), quote)
    gone = Boot(NOON, minutes(40), stopped=True)
    account.see(on(501, VM, started_at=minutes(500), boots=(gone,), boot="two"), quote)
    first, second = stints(ledger, "k80", minutes(510))

    assert (first.ended_at, first.is_estimated) == (minutes(40 + 1 / 3), False)
    assert second.goes_on


def test_the_machines_clock_is_set_and_its_last_boot_still_ends_when_it_did(
    ledger: Ledger, account: Account
) -> None:
    account.see(on(1, started_at=NOON), quote)
    account.see(on(2, VM, started_at=NOON, boot="one"), quote)
    account.see(off(400), quote)
    three_hours_ahead = Boot(minutes(180), minutes(220), stopped=True, id="one")
    account.see(on(501, VM, started_at=minutes(500), boots=(three_hours_ahead,), boot="two"), quote)
    first, _ = stints(ledger, "k80", minutes(510))

    assert (first.ended_at, first.is_estimated) == (minutes(40 + 1 / 3), False)


def test_what_the_portal_started_and_the_guard_ended_is_a_stint_of_its_own(
    ledger: Ledger, account: Account
) -> None:
    account.see(on(1, VM, started_at=NOON, boot="one"), quote)
    account.see(off(30, since=minutes(30)), quote)
    boots = (
        Boot(NOON, minutes(30), stopped=False, id="one"),
        Boot(minutes(100), minutes(140), stopped=True, id="two"),
    )
    account.see(on(501, VM, started_at=minutes(500), boots=boots, boot="three"), quote)
    _, unseen, last = stints(ledger, "k80", minutes(510))

    assert (unseen.started_at, unseen.ended_at) == (minutes(100), minutes(140 + 1 / 3))
    assert unseen.per_hour == Decimal("0.60")
    assert last.goes_on
    account.see(on(502, VM, started_at=minutes(500), boots=boots, boot="three"), quote)
    assert len(stints(ledger, "k80", minutes(510))) == 3


def test_a_boot_that_was_told_is_not_counted_again_when_the_clock_was_set_since(
    ledger: Ledger, account: Account
) -> None:
    account.see(on(1, VM, started_at=NOON, boot="one"), quote)
    account.see(off(30, since=minutes(30)), quote)
    told = Boot(minutes(100), minutes(140), stopped=True, id="two")
    account.see(on(501, VM, started_at=minutes(500), boots=(told,), boot="three"), quote)
    account.see(off(520, since=minutes(520)), quote)
    # Two hours later by its clock, and what it noted before is no longer kept.
    boots = (
        Boot(minutes(220), minutes(260), stopped=True, id="two"),
        Boot(minutes(620), minutes(640), stopped=False, id="three"),
    )
    account.see(on(901, VM, started_at=minutes(900), boots=boots, boot="four"), quote)

    starts = [stint.started_at for stint in stints(ledger, "k80", minutes(910))]
    assert starts == [minutes(0), minutes(100), minutes(500), minutes(900)]


def test_a_run_that_goes_on_keeps_an_idle_stop_away(ledger: Ledger, account: Account) -> None:
    account.see(on(1, started_at=NOON), quote)
    session = begin(ledger, REMOTE, minutes(2), idle_s=600)
    run(ledger, "a-1", session.id, ("running", 3))
    account.see(on(20), quote)
    account.see(off(5000), quote)
    # Its budget lasts 500 minutes.
    assert stints(ledger, "k80", minutes(6000))[0].ended_at == minutes(502)
    ledger.add(RunEvent("a-1", "succeeded", minutes(100), Reporter.VM))
    assert stints(ledger, "k80", minutes(6000))[0].ended_at == minutes(110)


def test_a_restart_behind_our_back_is_another_stint(ledger: Ledger, account: Account) -> None:
    account.see(on(1, VM, started_at=NOON, boot="one"), quote)
    gone = Boot(NOON, minutes(40))
    account.see(on(500, VM, started_at=minutes(490), boots=(gone,), boot="two"), quote)
    first, second = stints(ledger, "k80", minutes(500))

    # The guard's last sign is up to a look old.
    assert (first.ended_at, second.started_at) == (minutes(40 + 1 / 3), minutes(490))
    assert not first.is_estimated


def test_the_cloud_tells_no_boot_so_the_one_before_it_is_compared(
    ledger: Ledger, account: Account
) -> None:
    account.see(on(1, VM, started_at=NOON, boot="one"), quote)
    account.see(on(2), quote)
    account.see(on(30, VM, started_at=minutes(3), boot="one"), quote)

    assert len(stints(ledger, "k80", minutes(30))) == 1


def test_a_stint_that_is_closed_by_hand_ends_there(ledger: Ledger, account: Account) -> None:
    account.close(Moment(NOON, VM))
    account.see(on(1, started_at=NOON), quote)
    account.close(Moment(minutes(10), CLOUD, "stopped"))
    (found,) = stints(ledger, "k80", minutes(90))

    assert found.ended_at == minutes(10)


def run(ledger: Ledger, run_id: str, session_id: str | None, *moments: tuple[str, float]) -> None:
    ledger.add(RunFact(run_id, "/exam", "a", "k80", "", "true", NOON, Decimal("0.6"), "USD",
                       "config", (), session_id))  # fmt: skip
    for state, at in moments:
        ledger.add(RunEvent(run_id, state, minutes(at), Reporter.VM))


def test_a_session_pays_for_the_machine_and_says_what_of_it_was_used(
    ledger: Ledger, account: Account
) -> None:
    account.see(on(1, started_at=minutes(-30)), quote)
    session = begin(ledger, REMOTE, NOON, name="exam", lasts_s=3600)
    run(ledger, "a-1", session.id, ("queued", 1), ("setting-up", 2), ("running", 5),
        ("succeeded", 25))  # fmt: skip
    account.see(off(45, since=minutes(40)), quote)
    ledger.add(SessionEnd(session.id, minutes(40), CLOUD))
    (closed,) = all_sessions(ledger)
    found = tally(ledger, closed, minutes(99))

    assert found.paid.time == timedelta(minutes=40)
    assert found.paid.used == timedelta(minutes=20)
    assert found.paid.setup == timedelta(minutes=3)
    assert found.paid.idle == timedelta(minutes=17)
    assert found.paid.amount == Decimal("0.40")
    assert not found.paid.is_estimated
    assert open_session(ledger, "k80") is None


def test_where_the_machine_is_not_counted_a_session_costs_what_its_runs_do(ledger: Ledger) -> None:
    session = begin(ledger, REMOTE, NOON)
    run(ledger, "a-1", session.id, ("running", 5), ("succeeded", 25))
    found = tally(ledger, session, minutes(60))

    assert found.paid.amount == Decimal("0.2")
    assert found.runs == 1


def test_a_budget_is_the_sessions_or_the_remotes_and_a_months_counts_all(
    ledger: Ledger, account: Account
) -> None:
    remote = Remote("k80", "h", price=REMOTE.price, budget=Limits(Decimal(5), Decimal(20)))
    account.see(on(0, started_at=NOON), quote)
    begin(ledger, remote, minutes(50), budget=Decimal(2))
    session, month = budgets(ledger, remote, minutes(100))

    assert (session.limit, session.spent) == (Decimal(2), Decimal("0.5"))
    assert (month.limit, month.spent) == (Decimal(20), Decimal(1))


def test_a_month_counts_what_runs_cost_outside_of_all_sessions(ledger: Ledger) -> None:
    """Where nobody rents the machine out, only sessions are paid time."""
    remote = Remote("k80", "h", price=REMOTE.price, budget=Limits(month=Decimal(20)))
    own = Account(ledger, remote, PLAIN)
    own.see(on(0, since=NOON), quote)
    session = begin(ledger, remote, NOON)
    run(ledger, "in-1", session.id, ("running", 5), ("succeeded", 25))
    own.close(Moment(minutes(60), CLOUD, "the session ended"))
    end(ledger, session, minutes(60), CLOUD)
    run(ledger, "out-1", None, ("running", 100), ("succeeded", 200))
    run(ledger, "out-2", None, ("running", 300))
    (month,) = budgets(ledger, remote, minutes(350))

    # An hour, and then 100 and 50 minutes at $0.60.
    assert month.spent == Decimal("2.10")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(OVERRIDE, str(tmp_path))
    return tmp_path


def test_a_months_budget_of_all_remotes_counts_what_each_cost_in_its_currency(
    ledger: Ledger, home: Path
) -> None:
    remotes_file().write_text("budget: {month: 30, currency: USD}\n")
    in_euros = Remote("v100", "h", price=Price(Decimal(2), "EUR"))
    euros = Quote(Decimal(2), "EUR", "config", NOON)
    Account(ledger, REMOTE, TARIFF).see(on(0, started_at=NOON), quote)
    Account(ledger, replace(REMOTE, name="t4"), TARIFF).see(on(0, started_at=NOON), quote)
    Account(ledger, in_euros, TARIFF).see(on(0, started_at=NOON), lambda: euros)
    (month,) = budgets(ledger, REMOTE, minutes(100))

    assert str(month) == "all remotes this month: $2.00 of $30.00"
    assert budgets(ledger, in_euros, minutes(100)) == ()
    assert "does not bind it" in apart_from_month(ledger, in_euros)[0]
    assert apart_from_month(ledger, REMOTE) == []


def test_amounts_in_two_currencies_have_no_sum(ledger: Ledger, account: Account) -> None:
    session = begin(ledger, REMOTE, NOON)
    account.see(on(0, started_at=NOON), quote)
    account.see(off(10, since=minutes(10)), quote)
    account.see(on(20, started_at=minutes(20)), lambda: Quote(Decimal(2), "EUR", "config", NOON))
    found = tally(ledger, session, minutes(30))

    assert found.paid.amount is None
    assert amount_text(found) == "amounts in EUR and USD"


def test_what_a_run_did_is_told_apart_from_its_setting_up(ledger: Ledger) -> None:
    session = begin(ledger, REMOTE, NOON)
    run(ledger, "a-1", session.id, ("queued", 1), ("setting-up", 2), ("running", 5))
    run(ledger, "a-2", session.id, ("queued", 1), ("setting-up", 3), ("setup-failed", 4))
    run(ledger, "a-3", session.id, ("queued", 1))

    assert works(ledger, "k80", NOON, minutes(9)) == (
        Work((minutes(2), minutes(5)), (minutes(5), minutes(9))),
        Work((minutes(3), minutes(4)), None),
    )


def test_a_run_that_was_interrupted_works_again_from_its_restart_on(ledger: Ledger) -> None:
    session = begin(ledger, REMOTE, NOON)
    run(ledger, "a-1", session.id, ("setting-up", 1), ("running", 2), ("interrupted-0", 5),
        ("resumed-0", 20), ("succeeded", 30))  # fmt: skip

    assert works(ledger, "k80", NOON, minutes(99)) == (
        Work((minutes(1), minutes(2)), (minutes(2), minutes(5))),
        Work((minutes(20), minutes(20)), (minutes(20), minutes(30))),
    )
