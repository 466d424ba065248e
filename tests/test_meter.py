"""The stand-ins' own world and meter, which judge the product, against what the clouds write."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clouds.clock import MovedClock
from tests.clouds.meter import bill, billed_seconds, billed_spans
from tests.clouds.world import AWS, AZURE, GCE, NoRoom, Rules, Shortage, State, World, WrongState

HOUR = Fraction(36, 10)
CLOUDS = pytest.mark.parametrize("rules", [AZURE, AWS, GCE], ids=lambda rules: rules.name)


def state(world: World) -> State:
    """Asked anew: it changes with the clock, which a type checker does not know."""
    return world.state


def seconds(world: World) -> int:
    now, _ = world.clock.now(), world.state
    spans = billed_spans(world.history, world.rules)
    return sum(billed_seconds(span, world.rules, now) for span in spans)


@pytest.mark.parametrize(
    ("rules", "billed"),
    [(AZURE, 40 + 3600), (AWS, 3600), (GCE, 3600 + 30)],
    ids=["az", "aws", "gce"],
)
def test_an_hour_from_start_to_stop(rules: Rules, billed: int) -> None:
    """Azure bills the start, Google the stop, and Amazon neither."""
    clock = MovedClock()
    world = World(clock, rules)
    world.start()
    clock.sleep(40 + 3600)
    world.stop()
    clock.sleep(86400)

    assert state(world) is State.RELEASED
    assert seconds(world) == billed
    assert bill(world, HOUR) == HOUR * billed / 3600


@pytest.mark.parametrize(
    ("rules", "billed"), [(AZURE, 60), (AWS, 0), (GCE, 0)], ids=["az", "aws", "gce"]
)
def test_a_start_that_is_stopped_before_it_ran_costs_what_the_start_costs(
    rules: Rules, billed: int
) -> None:
    clock = MovedClock()
    world = World(clock, rules)
    world.start()
    clock.sleep(10)
    world.stop()
    clock.sleep(3600)

    assert seconds(world) == billed


@CLOUDS
def test_a_machine_that_turns_itself_off_costs_on_at_azure_only(rules: Rules) -> None:
    clock = MovedClock()
    world = World(clock, rules, first=State.RUNNING)
    clock.sleep(600)
    world.shut_down()
    clock.sleep(86400)
    assert (state(world) is State.HALTED) is (rules is AZURE)
    before = seconds(world)
    clock.sleep(86400)

    assert seconds(world) - before == (86400 if rules is AZURE else 0)


@CLOUDS
def test_every_start_costs_a_minute_at_least(rules: Rules) -> None:
    clock = MovedClock()
    world = World(clock, rules)
    for _ in range(3):
        world.start()
        clock.sleep(41)
        world.stop()
        clock.sleep(600)

    assert seconds(world) >= 180
    if rules is AWS:
        assert seconds(world) == 180


@CLOUDS
def test_a_part_of_a_second_is_a_second(rules: Rules) -> None:
    clock = MovedClock()
    world = World(clock, rules, first=State.RUNNING)
    clock.sleep(100.25)

    assert seconds(world) == 101


@CLOUDS
def test_a_spot_machine_is_taken_away_after_its_notice(rules: Rules) -> None:
    clock = MovedClock()
    world = World(clock, rules, spot=True, first=State.RUNNING)
    world.evict()
    assert world.notice == clock.now() + timedelta(seconds=rules.notice_s)
    assert state(world) is State.RUNNING
    clock.sleep(rules.notice_s + 1)
    assert state(world) is State.RELEASING
    clock.sleep(60)

    assert (state(world), world.why) == (State.RELEASED, "evicted")
    assert not world.notice


def test_no_room_is_said_at_once_or_found_later() -> None:
    clock = MovedClock()
    world = World(clock, AZURE, shortage=Shortage("AllocationFailed", at_once=True))
    with pytest.raises(NoRoom):
        world.start()
    world.shortage = Shortage("AllocationFailed", until=clock.now() + timedelta(hours=1))
    order = world.start()
    assert state(world) is State.STARTING
    clock.sleep(10)
    assert order.is_done(clock.now())
    assert (state(world), world.why) == (State.RELEASED, "AllocationFailed")
    clock.sleep(3600)
    world.start()
    clock.sleep(60)
    assert state(world) is State.RUNNING


def test_the_address_changes_at_every_start_and_a_reboot_is_not_seen() -> None:
    clock = MovedClock()
    world = World(clock, AZURE)
    seen = []
    for _ in range(2):
        world.start()
        clock.sleep(60)
        assert state(world) is State.RUNNING
        before = len(world.history)
        world.reboot()
        assert len(world.history) == before
        seen.append(world.address)
        world.stop()
        clock.sleep(60)
        assert state(world) is State.RELEASED
        assert world.address == ""
    assert len(set(seen)) == 2
    assert world.boots == 4


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(
            ["start", "stop", "shut_down", "reboot", "evict", "stop_in_portal", "wait"]
        ),
        st.floats(0, 500),
    ),
    max_size=25,
)


@given(DEEDS, st.sampled_from([AZURE, AWS, GCE]))
def test_it_makes_no_difference_how_often_one_looks(
    deeds: list[tuple[str, float]], rules: Rules
) -> None:
    worlds = []
    for steps in (1, 7):
        clock = MovedClock()
        world = World(clock, rules, spot=True)
        start = clock.now()
        gone_s = 0.0
        for deed, pause in deeds:
            if deed != "wait":
                try:
                    getattr(world, deed)()
                except WrongState:
                    pass
            for step in range(1, steps + 1):
                at = start + timedelta(seconds=gone_s + pause * step / steps)
                clock.sleep((at - clock.now()).total_seconds())
                if steps > 1:
                    _ = world.state
            gone_s += pause
        worlds.append((world.state, world.history, seconds(world)))

    assert worlds[0] == worlds[1]
    times = [change.at for change in worlds[0][1]]
    assert times == sorted(times)
