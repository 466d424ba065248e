"""When a guarded machine stops: the rules, over looks that a test makes up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote.guardrules import (
    BLIND_LIMIT_S,
    BOOT_GRACE_S,
    GOES_DOWN_S,
    LOOK_LIMIT_S,
    REBOOT_S,
    SAVING_S,
    TICK_S,
    Act,
    Count,
    Decision,
    Limits,
    Look,
    advance,
    begin,
    decide,
)

START = Look("boot 1", 1000.0, 1_800_000_000.0)
HOUR = 3600.0


def later(
    look: Look,
    seconds: float,
    wall_s: float | None = None,
    active: bool | None = False,
    needs_s: float = 0.0,
) -> Look:
    """A look so much later; `wall_s` is how far the wall clock moved where it moved otherwise."""
    passed_s = seconds if wall_s is None else wall_s
    return Look(look.boot_id, look.mono_s + seconds, look.wall_s + passed_s, active, needs_s)


def rebooted(look: Look, away_s: float, up_s: float) -> Look:
    return Look(look.boot_id + "'", up_s, look.wall_s + away_s + up_s)


def counted(*looks: Look) -> Count:
    count = begin(START)
    for look in looks:
        count = advance(count, look)
    return count


def decided(limits: Limits, *looks: Look) -> Decision:
    return decide(limits, counted(*looks), looks[-1])


@pytest.mark.parametrize(
    ("limits", "passed_s", "seen", "act", "why", "left_s"),
    [
        (Limits(), 50, {}, Act.WAIT, "", None),
        (Limits(ends_in_s=60), 50, {}, Act.WAIT, "the session's end", 10),
        (Limits(ends_in_s=60), 60, {}, Act.STOP, "the session's end", 0),
        (Limits(paid_s=60), 60, {}, Act.STOP, "the budget's end", 0),
        (Limits(ends_in_s=90, paid_s=60), 50, {}, Act.WAIT, "the budget's end", 10),
        (Limits(idle_s=50), 40, {}, Act.WAIT, "idle for 50 s", 10),
        (Limits(idle_s=50), 50, {}, Act.STOP, "idle for 50 s", 0),
        (Limits(idle_s=50), 50, {"active": True}, Act.WAIT, "idle for 50 s", 50),
        (Limits(idle_s=50), 50, {"active": None}, Act.WAIT, "idle for 50 s", 50),
        (Limits(ends_in_s=60, idle_s=50), 40, {}, Act.WAIT, "idle for 50 s", 10),
        (Limits(ends_in_s=60, idle_s=50), 59, {"active": True}, Act.WAIT, "the session's end", 1),
        # Runs are warned so early that they can save, but not before the last quarter.
        (Limits(ends_in_s=60), 44, {"needs_s": 40.0}, Act.WAIT, "the session's end", 16),
        (Limits(ends_in_s=60), 45, {"needs_s": 40.0}, Act.WARN, "the session's end", 15),
        (Limits(ends_in_s=60), 54, {"needs_s": 5.0}, Act.WAIT, "the session's end", 6),
        # And have a little more where they are still at it.
        (Limits(ends_in_s=60), 61, {"needs_s": 5.0}, Act.WARN, "the session's end", 0),
        (Limits(ends_in_s=60), 60 + SAVING_S, {"needs_s": 5.0}, Act.STOP, "the session's end", 0),
    ],
)
def test_what_is_decided(
    limits: Limits,
    passed_s: float,
    seen: dict[str, object],
    act: Act,
    why: str,
    left_s: float | None,
) -> None:
    decision = decided(limits, later(START, passed_s)._replace(**seen))  # type: ignore[arg-type]
    assert (decision.act, decision.why) == (act, why)
    assert decision.left_s == (None if left_s is None else pytest.approx(left_s))


@pytest.mark.parametrize("jump_s", [-1e9, -HOUR, HOUR, 1e9])
def test_a_wall_clock_that_is_set_changes_nothing_within_a_boot(jump_s: float) -> None:
    count = counted(later(START, 60, wall_s=jump_s))
    assert (count.passed_s, count.on_s, count.idle_s) == (60, 60, 60)


def test_a_reboot_is_paid_for_and_counts_for_the_end() -> None:
    count = counted(later(START, 600), rebooted(later(START, 600), 40, 20))
    assert (count.passed_s, count.on_s) == (660, 660)
    assert count.idle_s == 0


def test_a_night_off_counts_for_the_end_but_only_a_reboots_time_of_it_is_paid_for() -> None:
    count = counted(rebooted(START, 8 * HOUR, 20))
    assert count.passed_s == 8 * HOUR + 20
    assert count.on_s == REBOOT_S + 20


def test_of_a_night_off_that_its_guard_began_only_the_shutdown_is_paid_for() -> None:
    count = advance(begin(START), rebooted(START, 8 * HOUR, 20), stopped=True)
    assert (count.passed_s, count.on_s) == (8 * HOUR + 20, GOES_DOWN_S + 20)


def test_a_wall_clock_that_went_back_over_a_reboot_leaves_the_time_since_the_boot() -> None:
    count = counted(rebooted(START, -1e9, 20))
    assert (count.passed_s, count.on_s) == (20, 20)


def test_the_uptime_of_a_containers_host_is_not_its_own() -> None:
    count = counted(Look("boot 2", 1e6, START.wall_s + 5))
    assert (count.passed_s, count.on_s) == (5, 5)


def test_after_a_boot_there_is_time_to_ask_for_something_new() -> None:
    up = rebooted(START, 9 * HOUR, 30)
    limits = Limits(ends_in_s=HOUR)
    first = decided(limits, up)
    assert first.act is not Act.STOP
    assert first.left_s == BOOT_GRACE_S
    last = decided(limits, up, later(up, BOOT_GRACE_S))
    assert (last.act, last.why) == (Act.STOP, "the session's end")


def test_a_long_sleep_of_the_guard_is_not_idleness_of_the_machine() -> None:
    assert decided(Limits(idle_s=600), later(START, 9 * HOUR)).act is Act.WAIT
    assert counted(later(START, 9 * HOUR)).idle_s == LOOK_LIMIT_S


def test_a_guard_that_cannot_see_stops_at_the_end_and_after_hours_for_idleness() -> None:
    blind = later(START, HOUR, active=None)
    assert decided(Limits(ends_in_s=HOUR, idle_s=60), blind).act is Act.STOP
    looks = [later(START, 60.0 * n, active=None) for n in range(1, int(BLIND_LIMIT_S / 60) + 3)]
    assert decided(Limits(idle_s=60), *looks[:-2]).act is Act.WAIT
    assert decided(Limits(idle_s=60), *looks).act is Act.STOP


STEPS = st.tuples(
    st.floats(0.1, 15.0),  # until the next look
    st.sampled_from([0.0, 0.0, 0.0, -HOUR, HOUR, 30 * HOUR]),  # how the wall clock is set
    st.sampled_from([True, False, False, None]),
    st.sampled_from([0.0, 0.0, 35.0, 330.0]),
    st.sampled_from([False] * 9 + [True]),  # a reboot
)
SOME = st.none() | st.floats(1.0, 400.0)


@settings(max_examples=150, deadline=None)
@given(limits=st.builds(Limits, SOME, SOME, SOME), steps=st.lists(STEPS, max_size=80))
def test_it_stops_in_time_and_never_while_anything_extends_it(
    limits: Limits, steps: list[tuple[float, float, bool | None, float, bool]]
) -> None:
    """Judged by what truly passed, which the rules are not told.

    A reboot comes back at once and the clocks go right over it; otherwise see the tests above.
    """
    look, count = START, begin(START)
    passed_s, active_at, booted_at, look_in_s = 0.0, 0.0, -math.inf, TICK_S
    for seconds, jump_s, active, needs_s, reboots in steps:
        seconds = min(seconds, look_in_s)
        passed_s += seconds
        if reboots:
            look = rebooted(look, 0.0, seconds)._replace(active=False)
            booted_at = passed_s
        else:
            look = later(look, seconds, seconds + jump_s, bool(needs_s) or active, needs_s)
        if reboots or look.active is not False:
            active_at = passed_s
        count = advance(count, look)
        decision = decide(limits, count, look)
        ends = [s for s in (limits.ends_in_s, limits.paid_s) if s is not None]
        over_s = passed_s - min(ends, default=math.inf)
        if decision.act is Act.STOP:
            is_idle = limits.idle_s is not None and passed_s - active_at >= limits.idle_s - 1e-6
            assert over_s >= -1e-6 or is_idle
            return
        assert over_s < SAVING_S or passed_s - booted_at < BOOT_GRACE_S
        assert decision.left_s is None or decision.left_s >= 0
        assert 0 < decision.look_in_s <= TICK_S
        look_in_s = decision.look_in_s
