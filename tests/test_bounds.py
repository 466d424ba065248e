"""What is told and done about a session's end while its runs are followed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.clouds.power import Provenance
from orchestrator.costs import bounds
from orchestrator.costs.bounds import Bounds, past_end
from orchestrator.costs.sessions import begin
from orchestrator.records.ledger import Ledger, StintFact
from orchestrator.records.mirror import Mirror
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Limits, Price, Remote
from orchestrator.vm.link import Link
from remote.protocol import Cancel
from remote.runfolder import SESSION_OVER

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
REMOTE = Remote("k80", "203.0.113.7", price=Price(Decimal("0.60")), budget=Limits())


class Told(Silence):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Asked:
    def __init__(self) -> None:
        self.calls: list[object] = []

    def call(self, call: object, answer: object) -> None:
        self.calls.append(call)


class Following:
    """One run, and a clock that is set."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.told, self.asked = ledger, Told(), Asked()
        self.minute = 0.0
        mirror = cast(Mirror, SimpleNamespace(run_id="a-1", ended=False))
        self.bounds = Bounds(ledger, REMOTE, [mirror], self.told, self.now)

    def now(self) -> datetime:
        return NOON + timedelta(minutes=self.minute)

    def look(self, minute: float) -> None:
        self.minute = minute
        self.bounds.look(cast(Link, self.asked))


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(bounds, "_LOOK_S", 0.0)
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        price = Decimal("0.60"), "USD", "config", "", False, NOON, None, 0.0, 1.0
        ledger.add(StintFact("k80", "k80", NOON, Provenance.CLOUD, *price))
        yield ledger


def test_a_budget_that_runs_low_while_a_run_is_followed_is_told_once(ledger: Ledger) -> None:
    begin(ledger, REMOTE, NOON, budget=Decimal("0.60"))
    following = Following(ledger)
    following.look(47)
    assert following.told.warnings == []
    following.look(49)
    following.look(50)
    (warning,) = following.told.warnings
    assert "the budget is nearly used up (the session k80-" in warning
    assert "$0.49 of $0.60" in warning
    assert following.asked.calls == []


def test_runs_that_go_on_past_the_end_are_ended_a_minute_after_it(ledger: Ledger) -> None:
    begin(ledger, REMOTE, NOON, lasts_s=3600.0)
    following = Following(ledger)
    following.look(60.1)
    assert past_end(ledger, REMOTE, following.now()) == "the session's end"
    following.look(61)
    assert following.asked.calls == []
    following.look(61.2)
    following.look(62)
    assert following.asked.calls == [Cancel("a-1", why=SESSION_OVER)]
    assert "the session's end has passed and runs go on" in following.told.warnings[0]


def test_a_config_that_is_wrong_just_now_ends_nothing_and_is_read_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path))
    begin(ledger, REMOTE, NOON, lasts_s=3600.0)
    following = Following(ledger)
    (tmp_path / "remotes.yaml").write_text("budget: [\n")
    following.look(61)
    (tmp_path / "remotes.yaml").unlink()
    following.look(62)
    following.look(64)
    assert following.asked.calls == [Cancel("a-1", why=SESSION_OVER)]


def test_a_used_up_budget_is_an_end_and_without_a_session_nothing_is(ledger: Ledger) -> None:
    assert past_end(ledger, REMOTE, NOON + timedelta(hours=9)) == ""
    begin(ledger, REMOTE, NOON, budget=Decimal("0.60"))
    assert past_end(ledger, REMOTE, NOON + timedelta(minutes=59)) == ""
    assert past_end(ledger, REMOTE, NOON + timedelta(minutes=60)).startswith("the budget's end")
