"""The ledger against the clouds' bills, in a few of the sessions of `make money`."""

from __future__ import annotations

import pytest

from tests.money.judge import SLACK_S, STEP_S
from tests.money.simulation import Found, simulate

# The simulation takes longer than what is asked of it.
pytestmark = pytest.mark.xdist_group("money")


@pytest.fixture(scope="module")
def found() -> Found:
    return simulate(40, seed=3, each=5)


def test_the_ledger_is_never_below_the_meter_without_saying_so(found: Found) -> None:
    assert found.whole.contacts > 200
    assert found.whole.unmarked_s <= STEP_S, found.whole.broken


def test_no_budget_is_overrun_by_more_than_a_minutes_price(found: Found) -> None:
    assert found.whole.overrun_s <= SLACK_S, found.whole.broken


def test_no_machine_is_on_beyond_its_lease(found: Found) -> None:
    assert found.whole.left == 0, found.whole.broken


def test_where_nothing_would_stop_a_machine_the_user_was_warned(found: Found) -> None:
    assert found.whole.needed > 10
    assert found.whole.given == found.whole.needed, found.whole.broken


def test_where_the_cloud_tells_all_times_the_ledger_is_the_bill(found: Found) -> None:
    assert found.by_provider["gcp"].ratio == pytest.approx(1, abs=0.01)
