"""An exam's clock, its score, and where its time went."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.exams.exam import CATEGORIES, PASS_POINTS, Instant, read_clock, score, spend
from orchestrator.init import CATEGORIES as PACK

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
START = Instant(BEGIN, "boot-1", 1000.0)
HOUR = 3600.0


def after(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("now", "passed_s", "moved_s"),
    [
        # as it should be, and with the laptop closed for an hour: both clocks go on
        (Instant(after(HOUR), "boot-1", 1000 + HOUR), HOUR, 0.0),
        # the wall clock was set back by two hours, and forward by two
        (Instant(after(-HOUR), "boot-1", 1000 + HOUR), HOUR, -2 * HOUR),
        (Instant(after(3 * HOUR), "boot-1", 1000 + HOUR), HOUR, 2 * HOUR),
        # a time server set it right by a second
        (Instant(after(HOUR + 1), "boot-1", 1000 + HOUR), HOUR, 0.0),
        # a reboot: the time in between counts
        (Instant(after(HOUR), "boot-2", 60.0), HOUR, 0.0),
        # a reboot, with the clock set back: what the laptop is on for counts
        (Instant(after(-HOUR), "boot-2", 900.0), 900.0, -HOUR - 900),
        # a system that knows nothing of boots: the wall clock alone, and never backwards
        (Instant(after(HOUR), "", 0.0), HOUR, 0.0),
        (Instant(after(-HOUR), "", 0.0), 0.0, -HOUR),
    ],
)
def test_a_moved_clock_is_noticed_and_gives_no_time(
    now: Instant, passed_s: float, moved_s: float
) -> None:
    reading = read_clock(START, 500.0, now)

    assert reading.passed_s == pytest.approx(500.0 + passed_s)
    assert reading.moved_s == pytest.approx(moved_s)


@given(
    wall_s=st.lists(st.floats(-1e6, 1e6), min_size=1),
    boots=st.lists(st.sampled_from(["", "boot-1", "boot-2"]), min_size=1),
    up_s=st.lists(st.floats(0, 1e6), min_size=1),
)
def test_time_that_has_passed_is_never_given_back(
    wall_s: list[float], boots: list[str], up_s: list[float]
) -> None:
    last, passed_s = START, 0.0
    for wall, boot, up in zip(wall_s, boots, up_s, strict=False):
        now = Instant(after(wall), boot, up)
        reading = read_clock(last, passed_s, now)
        assert reading.passed_s >= passed_s
        last, passed_s = now, reading.passed_s


def test_the_best_attempt_counts_and_a_category_without_one_scores_zero() -> None:
    attempts = [("category1", 3), ("category1", 5), ("category1", 4), ("category2", None)]

    found = score(CATEGORIES, attempts, PASS_POINTS)

    assert [mark.score for mark in found.marks.values()] == [5, 0, 0, 0, 0]
    assert [mark.attempts for mark in found.marks.values()] == [3, 1, 0, 0, 0]
    assert (found.points, found.out_of, found.passed) == (5, 25, False)


@pytest.mark.parametrize(
    ("points", "passed"),
    [
        ((4, 4, 4, 4, 4), True),
        ((5, 5, 5, 4, 1), True),
        ((5, 5, 5, 4, 0), False),
        ((5, 5, 5, 5, 0), False),
        ((4, 4, 4, 4, 3), False),
    ],
)
def test_it_takes_20_points_and_none_of_0_in_a_category(
    points: tuple[int, ...], passed: bool
) -> None:
    found = score(CATEGORIES, zip(CATEGORIES, points, strict=True), PASS_POINTS)

    assert found.passed is passed
    assert found.rule == "at least 20 of 25 points, and none of 0 in a category"


def test_each_instant_counts_once_and_the_rest_is_coding() -> None:
    def span(begin: float, end: float) -> tuple[datetime, datetime]:
        return after(begin), after(end)

    spent = spend(
        span(0, 1000),
        1000.0,
        training=[span(100, 300), span(200, 400)],
        waiting=[span(50, 150), span(900, 2000)],
        idle=[span(-500, 500)],
    )

    assert (spent.training, spent.waiting, spent.idle, spent.coding) == (300, 150, 150, 400)


def test_time_the_wall_clock_knows_nothing_of_is_coding() -> None:
    nothing = spend((after(0), after(10)), 500.0, [], [], [])

    assert nothing.coding == 500.0
    assert replace(nothing, coding=0.0).training == 0.0


def test_the_categories_are_those_of_the_practice_pack() -> None:
    assert CATEGORIES == PACK
