"""What a login tells of a machine's past, without anybody asking for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.account import stints
from orchestrator.ledger import Ledger
from orchestrator.lifecycle import Clock
from orchestrator.payments import Payments
from orchestrator.spec import CloudSpec, Price, Remote
from orchestrator.tell import Silence
from remote.protocol import Hello

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


def hello(boot: str, at: datetime, up_s: float, last_sign_s: float | None = None) -> Hello:
    return Hello(1, "3.8.0", "python3", "Linux", "me", "/s", boot, at.timestamp(), 0, 1, up_s,
                 last_sign_s)  # fmt: skip


def test_a_restart_behind_our_back_is_closed_by_the_guards_last_sign_at_any_contact(
    ledger: Ledger,
) -> None:
    now = datetime(2026, 8, 1, 12, tzinfo=UTC)
    later, off_at = now + timedelta(hours=3), now + timedelta(minutes=30)
    times = [now]
    payments = Payments(ledger, REMOTE, Silence(), Clock(now=lambda: times[-1]))
    payments.by_login(hello("one", now, 60.0), 0.0)
    times.append(later)
    payments.by_login(hello("two", later, 600.0, off_at.timestamp()), 0.0)
    first, second = stints(ledger, "k80", later)

    # A sign comes every quarter of a minute, and a boot takes a while.
    margin = timedelta(seconds=60)
    assert off_at <= first.ended_at <= off_at + margin
    assert later - timedelta(seconds=600) - margin <= second.started_at <= later
