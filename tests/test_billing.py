"""Paid time from what was seen of a machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.clouds.power import Power, Provenance, Tariff
from orchestrator.costs.billing import (
    Before,
    Boot,
    Change,
    Moment,
    Paid,
    Sight,
    Stint,
    Work,
    length,
    paid,
    reconcile,
)

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
CLOUD, VM, ESTIMATED = Provenance.CLOUD, Provenance.VM, Provenance.ESTIMATED
AZURE = Tariff(
    60.0,
    1.0,
    frozenset({Power.STARTING, Power.RUNNING, Power.STOPPING, Power.STOPPED_BILLED}),
)


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


def seen(power: Power, at: float = 60, source: Provenance = CLOUD, **facts: object) -> Sight:
    return Sight(minutes(at), power, source, **facts)  # type: ignore[arg-type]


ON, OFF = Power.RUNNING, Power.STOPPED_FREE
OPEN = Before(opened_at=NOON, seen_on_at=minutes(30), boot="one")

TABLE: list[tuple[str, Before, Sight, Change]] = [
    ("nobody can say", OPEN, seen(Power.UNKNOWN), Change()),
    ("off, and was", Before(), seen(OFF), Change()),
    ("still on", OPEN, seen(ON), Change()),
    ("stopped, but billed", OPEN, seen(Power.STOPPED_BILLED), Change()),
    ("found on, nobody knows since when", Before(), seen(ON),
     Change(start=Moment(minutes(60), ESTIMATED))),
    ("found on, the cloud knows since when", Before(), seen(ON, started_at=minutes(50)),
     Change(start=Moment(minutes(50), CLOUD))),
    ("found running, the cloud knows since when", Before(), seen(ON, since=minutes(50)),
     Change(start=Moment(minutes(50), CLOUD))),
    ("found on, it says itself since when", Before(), seen(ON, 60, VM, started_at=minutes(50)),
     Change(start=Moment(minutes(49), VM))),
    ("what is paid is not paid twice", Before(closed=((minutes(20), minutes(55)),)),
     seen(ON, started_at=minutes(50)), Change(start=Moment(minutes(55), ESTIMATED))),
    ("off, the cloud knows since when", OPEN, seen(OFF, since=minutes(40)),
     Change(end=Moment(minutes(40), CLOUD))),
    ("off, nobody knows since when", OPEN, seen(OFF), Change()),
    ("off before it was on: a clock that lies", OPEN, seen(OFF, since=minutes(-5)), Change()),
    ("restarted behind our back, the guard noted the end", OPEN,
     seen(ON, 600, VM, started_at=minutes(590), boots=(Boot(minutes(0), minutes(45), True),),
          boot="two"),
     Change(Moment(minutes(46), VM), Moment(minutes(589), VM))),
    ("restarted behind our back, nobody noted the end", OPEN,
     seen(ON, 600, started_at=minutes(590)),
     Change(None, Moment(minutes(590), CLOUD))),
    ("restarted, and only its last sign is known: off by itself it may be billed", OPEN,
     seen(ON, 600, VM, started_at=minutes(590), boots=(Boot(minutes(0), minutes(45)),), boot="two"),
     Change(Moment(minutes(46), ESTIMATED), Moment(minutes(589), VM))),
    ("started again from stopped-but-billed", replace(OPEN, was_halted=True),
     seen(Power.STARTING, 600, started_at=minutes(600)), Change()),
    ("starts: since then it is not off", OPEN,
     seen(Power.STARTING, 600, since=minutes(600), started_at=minutes(600)),
     Change(None, Moment(minutes(600), CLOUD))),
    ("a lost one is found", Before(opened_at=minutes(500), lost=((NOON, NOON, minutes(500)),)),
     seen(ON, 510, VM, started_at=minutes(500), boots=(Boot(minutes(0), minutes(45), True),),
          boot="two"),
     Change(found=(Moment(minutes(46), VM),))),
    ("found on, and it says itself that it came on before",
     Before(opened_at=minutes(59), is_guess=True, closed=((NOON, minutes(10)),)),
     seen(ON, 60, VM, started_at=minutes(50)), Change(missed=Moment(minutes(49), VM))),
    ("went on and off unseen, the cloud knows when", Before(seen_at=minutes(5)),
     seen(OFF, started_at=minutes(20), since=minutes(40)),
     Change(start=Moment(minutes(20), CLOUD), over=Moment(minutes(40), CLOUD))),
    ("went on and off unseen, soon after it was seen off",
     Before(closed=((NOON, minutes(5)),), seen_at=minutes(19.5)),
     seen(OFF, started_at=minutes(20), since=minutes(22)),
     Change(start=Moment(minutes(20), CLOUD), over=Moment(minutes(22), CLOUD))),
    ("a start that is counted, told again", Before(closed=((NOON, minutes(5)),),
     seen_at=minutes(5)), seen(OFF, started_at=NOON, since=minutes(5)), Change()),
    ("a start in vain, told once it was seen off again",
     Before(closed=((NOON, minutes(5)),), seen_at=minutes(20)),
     seen(OFF, started_at=minutes(19), since=minutes(19.5)), Change()),
    ("went off unseen again, nobody knows when it came on", Before(closed=((NOON, minutes(5)),),
     seen_at=minutes(5)), seen(OFF, since=minutes(40)),
     Change(start=Moment(minutes(40), ESTIMATED), over=Moment(minutes(40), CLOUD))),
    ("off before it was last seen on: a clock that lies", OPEN, seen(OFF, since=minutes(20)),
     Change()),
    ("rebooted", OPEN,
     seen(ON, 60, VM, started_at=minutes(47), boots=(Boot(minutes(0), minutes(45)),),
          boot="two"), Change()),
    ("its clock was put right", OPEN, seen(ON, 60, VM, started_at=minutes(50), boot="one"),
     Change()),
    ("the cloud's start is in whole seconds", OPEN, seen(ON, started_at=minutes(0.01)), Change()),
]  # fmt: skip


@pytest.mark.parametrize(("before", "sight", "change"), [row[1:] for row in TABLE],
                         ids=[row[0] for row in TABLE])  # fmt: skip
def test_what_a_sight_of_a_machine_adds(before: Before, sight: Sight, change: Change) -> None:
    assert reconcile(before, sight, AZURE) == change


def test_a_state_that_this_cloud_does_not_bill_ends_the_stint() -> None:
    aws = Tariff(60.0, 1.0, frozenset({Power.RUNNING}))
    sight = seen(Power.STOPPING, since=minutes(50))
    assert reconcile(OPEN, sight, aws).end == Moment(minutes(50), CLOUD)


def test_another_boot_is_no_start_where_the_cloud_tells_those() -> None:
    tells = Tariff(60.0, 1.0, frozenset({Power.RUNNING}), tells_starts=True)
    sight = seen(ON, 600, VM, started_at=minutes(590), boot="two")
    assert reconcile(OPEN, sight, tells).start is None
    assert reconcile(OPEN, sight, replace(tells, tells_starts=False)).start is not None


def test_off_long_after_its_guard_would_have_stopped_it_it_was_started_again() -> None:
    """Azure tells no starts: what lies between is an estimate until the machine tells its boots."""
    before = replace(OPEN, lease_ends_at=minutes(60))
    off_at = minutes(600)
    sight = seen(OFF, 610, since=off_at)
    again = Change(None, Moment(off_at, ESTIMATED), Moment(off_at, CLOUD))
    assert reconcile(before, sight, AZURE) == again
    assert reconcile(before, sight, replace(AZURE, tells_starts=True)).end == again.over
    late = replace(before, lease_ends_at=minutes(597))
    assert reconcile(late, sight, AZURE).end == again.over


def test_a_start_that_was_seen_as_it_ended_again_is_another_stint() -> None:
    aws = Tariff(60.0, 1.0, frozenset({Power.RUNNING}), tells_starts=True)
    before = replace(OPEN, seen_at=minutes(91))
    sight = seen(OFF, 92, started_at=minutes(90), since=minutes(91))
    start, over = Moment(minutes(90), CLOUD), Moment(minutes(91), CLOUD)
    assert reconcile(before, sight, aws) == Change(None, start, over)


def test_a_boot_before_it_was_last_seen_on_does_not_end_it() -> None:
    boots = (Boot(NOON, minutes(40), True),)
    lost = ((NOON, minutes(200), minutes(500)),)
    sight = seen(ON, 510, VM, started_at=minutes(500), boots=boots, boot="two")
    assert reconcile(Before(opened_at=minutes(500), lost=lost), sight, AZURE).found == (None,)


TELLS = Tariff(60.0, 1.0, frozenset({Power.RUNNING}), tells_starts=True)
PAST = Before(closed=((minutes(0), minutes(30)), (minutes(300), minutes(330))))


def woken(boot: Boot, before: Before = PAST, tariff: Tariff = TELLS) -> Change:
    """What the machine adds that tells of an earlier boot when it is met again."""
    sight = seen(ON, 600, VM, started_at=minutes(599), boot="now", boots=(boot,))
    return reconcile(before, sight, tariff)


def test_a_start_that_nobody_saw_is_counted_by_the_guards_record_of_it() -> None:
    ((start, end),) = woken(Boot(minutes(100), minutes(140), stopped=True)).unseen
    assert (start, end.at) == (Moment(minutes(100), VM), minutes(140) + timedelta(seconds=20))


def test_what_lies_in_a_stint_or_before_the_first_is_not_counted_again() -> None:
    assert woken(Boot(minutes(1), minutes(29))).unseen == ()
    assert woken(Boot(minutes(-50), minutes(-20))).unseen == ()
    assert woken(Boot(minutes(100), minutes(140)), Before()).unseen == ()


def test_where_only_sessions_are_counted_a_start_between_them_is_not() -> None:
    plain = replace(TELLS, counts_all=False)
    assert woken(Boot(minutes(100), minutes(140)), tariff=plain).unseen == ()


def test_a_boot_whose_clock_was_set_is_an_estimate_or_that_of_the_start_it_follows() -> None:
    astray = Boot(minutes(100), minutes(140), stopped=True, doubt=timedelta(hours=1))
    ((start, _),) = woken(astray).unseen
    assert start == Moment(minutes(100), ESTIMATED)
    lost = replace(PAST, lost=((minutes(159), minutes(159), minutes(299)),))
    change = woken(astray, lost)
    assert change.unseen == ()
    assert change.found == (Moment(minutes(200) + timedelta(seconds=20), VM),)


def test_a_machine_that_was_met_in_a_boot_needs_no_clock_to_tell_its_end() -> None:
    fast = Boot(minutes(500), minutes(540))
    assert fast.met(minutes(100), minutes(110)) == Boot(minutes(100), minutes(140))
    assert fast.met(minutes(100), minutes(150)) == Boot(minutes(100), minutes(150))


def stint(begin: float, end: float, **facts: object) -> Stint:
    whole = {"per_hour": Decimal(6), "currency": "USD", "minimum_s": 60.0, **facts}
    return Stint("vm", minutes(begin), minutes(end), is_estimated=False, goes_on=False, **whole)  # type: ignore[arg-type]


ALWAYS = (minutes(-1e6), minutes(1e6))


def test_a_start_costs_at_least_the_minimum_and_counts_in_whole_steps() -> None:
    assert paid(stint(0, 0.5), ALWAYS).time == timedelta(minutes=1)
    assert paid(stint(0, 61, step_s=3600.0), ALWAYS).amount == Decimal(12)


def test_paid_time_is_split_into_used_setup_and_idle() -> None:
    first = Work((minutes(1), minutes(3)), (minutes(3), minutes(13)))
    beside = Work((minutes(5), minutes(6)), (minutes(6), minutes(15)))
    found = paid(stint(0, 20), ALWAYS, [first, beside])

    assert found.used == timedelta(minutes=12)
    assert found.setup == timedelta(minutes=2)
    assert found.idle == timedelta(minutes=6)
    assert found.amount == Decimal(2)


def test_of_a_session_only_its_own_part_of_a_stint_is_paid() -> None:
    whole = stint(0, 60)
    assert paid(whole, (minutes(10), minutes(20))).time == timedelta(minutes=10)
    assert paid(whole, (minutes(70), minutes(80))) == Paid()


def test_an_unknown_price_makes_the_sum_unknown() -> None:
    total = paid(stint(0, 1, per_hour=None), ALWAYS) + paid(stint(2, 3), ALWAYS)
    assert total.amount is None
    assert total.time == timedelta(minutes=2)


@given(st.lists(st.integers(0, 7200), min_size=3, max_size=6), st.integers(0, 120))
def test_the_parts_of_a_stint_add_up_to_it(seconds: list[int], lasted_s: int) -> None:
    whole = stint(0, lasted_s / 60)
    cuts = [ALWAYS[0], *(NOON + timedelta(seconds=s, microseconds=1) for s in sorted(seconds)),
            ALWAYS[1]]  # fmt: skip
    parts = sum((paid(whole, (a, b)) for a, b in pairwise(cuts)), Paid())

    assert parts.time == whole.paid
    assert parts.amount is not None
    assert 0 <= parts.amount - (paid(whole, ALWAYS).amount or 0) < Decimal("1e-7")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
def test_the_length_of_spans_is_the_time_in_any_of_them(pairs: list[tuple[int, int]]) -> None:
    spans = [(minutes(min(pair)), minutes(max(pair))) for pair in pairs]
    inside = sum(any(a <= n < b for a, b in (sorted(p) for p in pairs)) for n in range(50))
    assert length(spans) == timedelta(minutes=inside)
