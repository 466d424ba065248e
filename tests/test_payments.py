"""What a login tells of a machine's past, without anybody asking for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.account import stints
from orchestrator.ledger import Ledger
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
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments = Payments(ledger, REMOTE, Silence())
    now = datetime.now(UTC)
    payments.by_login(hello("one", now, 60.0), 0.0)
    later = now + timedelta(hours=3)

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Later:
            return cls.fromtimestamp(later.timestamp(), tz)

    monkeypatch.setattr("orchestrator.payments.datetime", Later)
    off_at = now + timedelta(minutes=30)
    payments.by_login(hello("two", later, 600.0, off_at.timestamp()), 0.0)
    first, second = stints(ledger, "k80", later)

    assert first.ended_at == off_at
    assert second.started_at == later - timedelta(seconds=600)
