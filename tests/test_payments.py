"""What a login tells of a machine's past, without anybody asking for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.clouds.lifecycle import Clock
from orchestrator.clouds.power import Machine, Power, Provider
from orchestrator.clouds.pricetable import price_rows
from orchestrator.costs.account import stints
from orchestrator.costs.payments import Payments
from orchestrator.records.ledger import Ledger
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import CloudSpec, Price, Remote
from remote.protocol import Boot, Hello

REMOTE = Remote(
    "k80",
    "203.0.113.7",
    price=Price(Decimal("0.60")),
    cloud=CloudSpec("command", (("start", "false"), ("stop", "false"), ("status", "false"))),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        yield ledger


def hello(boot: str, at: datetime, up_s: float, boots: tuple[Boot, ...] = ()) -> Hello:
    return Hello(1, "3.8.0", "python3", "Linux", "me", "/s", boot, at.timestamp(), 0, 1, up_s,
                 boots)  # fmt: skip


def at(now: datetime) -> Clock:
    return Clock(lambda: now)


def test_a_restart_behind_our_back_is_closed_by_the_guards_last_sign_at_any_contact(
    ledger: Ledger,
) -> None:
    now = datetime(2026, 8, 1, 12, tzinfo=UTC)
    Payments(ledger, REMOTE, Silence(), at(now)).by_login(hello("one", now, 60.0), 0.0)
    later, off_at = now + timedelta(hours=3), now + timedelta(minutes=30)
    gone = Boot(off_at.timestamp(), 1850.0, stopped=True)
    again = Payments(ledger, REMOTE, Silence(), at(later))
    again.by_login(hello("two", later, 600.0, (gone,)), 0.0)
    first, second = stints(ledger, "k80", later)

    assert first.ended_at == off_at + timedelta(minutes=1)
    assert not first.is_estimated
    assert second.started_at == later - timedelta(seconds=660)


def test_a_clock_that_was_set_back_since_ends_nothing_too_early(ledger: Ledger) -> None:
    now = datetime(2026, 8, 1, 12, tzinfo=UTC)
    Payments(ledger, REMOTE, Silence(), at(now)).by_login(hello("one", now, 60.0), 0.0)
    later = now + timedelta(hours=3)
    # It was on for two hours, and by its clock it went off after one.
    gone = Boot((now + timedelta(hours=1)).timestamp(), 7200.0, stopped=True)
    again = Payments(ledger, REMOTE, Silence(), at(later))
    again.by_login(hello("two", later, 600.0, (gone,)), 0.0)
    first, _ = stints(ledger, "k80", later)

    assert first.is_estimated
    assert first.ended_at > now + timedelta(hours=2)


def test_the_table_is_asked_for_a_machine_that_was_not_described_yet(ledger: Ledger) -> None:
    row = next(row for row in price_rows() if row.cloud == "gcp")
    place = (("project", "p"), ("zone", f"{row.region}-a"), ("instance", "i"))
    remote = replace(REMOTE, price=None, cloud=CloudSpec("gcp", place))
    payments = Payments(ledger, remote, Silence(), at(datetime(2026, 8, 1, 12, tzinfo=UTC)))
    described = Machine(Power.STOPPED_FREE, size=row.size, region=row.region)
    asked: list[None] = []

    def describe() -> Machine:
        asked.append(None)
        return described

    payments.provider = cast(Provider, SimpleNamespace(describe=describe, quote=lambda: None))
    for _ in range(2):
        quote = payments.quote()
        assert quote is not None
        assert (quote.per_hour, quote.source) == (row.per_hour, "table")
    assert len(asked) == 1


def test_what_costs_nobody_knows_what_is_counted_from_when_the_user_says_it(
    ledger: Ledger,
) -> None:
    noon = datetime(2026, 8, 1, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    unknown = replace(REMOTE, price=None)
    Payments(ledger, unknown, Silence(), at(noon)).by_login(hello("one", noon, 60.0), 0.0)
    for turn in (1, 2):
        now = noon + turn * hour
        payments = Payments(ledger, REMOTE, Silence(), at(now))
        payments.by_login(hello("one", now, 60.0 + turn * 3600), 0.0)
    off = Machine(Power.STOPPED_FREE, since=noon + 3 * hour)
    Payments(ledger, REMOTE, Silence(), at(noon + 4 * hour)).by_cloud(off, noon + 4 * hour)
    first, second = stints(ledger, "k80", noon + 5 * hour)

    assert (first.per_hour, first.ended_at) == (None, noon + hour)
    assert (second.per_hour, second.started_at) == (Decimal("0.60"), noon + hour)
    assert second.ended_at == noon + 3 * hour
    assert not second.goes_on
