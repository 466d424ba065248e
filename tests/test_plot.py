"""Geometry of pictures: ticks that people count in, and no value that breaks it."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.stories.plot import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    Plot,
    Shape,
    draw,
    stairs,
    time_axis,
)
from orchestrator.stories.plots import elapsed

PLAIN = Axis("x", "{:g}".format)


def line(*points: tuple[float, float], x: Axis = PLAIN, y: Axis = PLAIN) -> Plot:
    return draw("title", "text", x, y, [Shape("line", points)])


def test_a_line_goes_from_corner_to_corner_of_its_frame() -> None:
    plot = line((1, 0), (2, 10))

    assert plot.paths == (("line", f"M{LEFT:.1f},{BOTTOM:.1f} {RIGHT:.1f},{TOP:.1f}"),)
    assert [tick.text for tick in plot.y_ticks] == ["0", "2", "4", "6", "8", "10"]
    assert [tick.place for tick in plot.y_ticks][::5] == [BOTTOM, TOP]


@pytest.mark.parametrize(
    ("end_s", "texts"),
    [
        (50, ["0", "10 s", "20 s", "30 s", "40 s", "50 s"]),
        (5400, ["0", "30 min", "1 h", "1.5 h"]),
        (86400 * 9, ["0", "2 d", "4 d", "6 d", "8 d"]),
    ],
)
def test_ticks_of_time_are_what_people_count_in(end_s: float, texts: list[str]) -> None:
    plot = line((0, 0), (1, 1), x=time_axis("time", elapsed, end_s))

    assert [tick.text for tick in plot.x_ticks] == texts


def test_a_value_that_stays_lies_in_the_middle() -> None:
    ((_, path),) = line((1, 0.001), (2, 0.001)).paths

    assert path.count(f",{(BOTTOM + TOP) / 2:.1f}") == 2


def test_a_value_stays_until_the_next_comes() -> None:
    assert stairs(((0, 1), (5, 3)), until=9) == ((0, 1), (5, 1), (5, 3), (9, 3))


@example([0.0, 5e-324])
@example([1.0, 1.0 + 2**-52])
@example([-1e30, 1e30, 1e308])
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_whatever_a_vm_tells_is_drawn_within_the_frame(values: list[float]) -> None:
    plot = line(*((float(step), value) for step, value in enumerate(values)))

    for _, path in plot.paths:
        for across, up in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path):
            assert LEFT <= float(across) <= RIGHT
            assert TOP - 0.1 <= float(up) <= BOTTOM + 0.1
    assert len(plot.y_ticks) < 20
