"""Budgets, and what fits into them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from orchestrator.costs.purse import Budget, check, estimate_s, month_start, paid_s
from orchestrator.errors import Forbidden

HALF = Decimal("0.50")


def budget(spent: str, limit: str = "5") -> Budget:
    return Budget("the session exam", Decimal(limit), Decimal(spent), "USD")


def test_a_run_takes_as_long_as_the_last_ones_did_and_at_most_its_limit() -> None:
    assert estimate_s(None, []) is None
    assert estimate_s(600.0, []) == 600.0
    assert estimate_s(600.0, [50, 60, 100, 60, 61, 59]) == 60
    assert estimate_s(30.0, [60]) == 30.0


def test_what_fits_is_not_spoken_of() -> None:
    assert check([budget("1")], [3600.0, None], HALF) == []


def test_a_run_that_does_not_fit_is_refused_with_its_estimate() -> None:
    said = r"about 2 h 00 min and cost \$1.00, .* left \(the session exam: \$4.50 of \$5.00\)"
    with pytest.raises(Forbidden, match=said):
        check([budget("0"), budget("4.50")], [7200.0], HALF)


def test_several_runs_have_to_fit_together() -> None:
    check([budget("4")], [7200.0], HALF)
    with pytest.raises(Forbidden, match="these 2 runs"):
        check([budget("4")], [7200.0, 7200.0], HALF)


def test_what_is_used_up_takes_nothing_more() -> None:
    with pytest.raises(Forbidden, match="used up"):
        check([budget("5.01")], [None], HALF)


@pytest.mark.parametrize(("spent", "warned"), [("3.99", False), ("4", True)])
def test_from_four_fifths_on_it_is_told(spent: str, warned: bool) -> None:
    assert bool(check([budget(spent)], [None], HALF)) is warned


def test_the_tightest_budget_says_how_long_may_be_paid() -> None:
    assert paid_s([], HALF) is None
    assert paid_s([budget("0"), budget("4.50"), budget("9")], HALF) == 0
    assert paid_s([budget("4")], HALF) == 7200


def test_a_month_begins_at_the_users_own_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    found = month_start(datetime(2026, 8, 17, 12, tzinfo=UTC))
    assert (found.day, found.hour, found.minute) == (1, 0, 0)
    assert found.tzinfo is not None
