"""Curves and areas as paths of an SVG picture, with the ticks of their axes. Pure.

Only geometry: what a path looks like is said by its class in the page's style, so that one picture
serves light and dark screens and paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Points = tuple[tuple[float, float], ...]

# The picture's pixels, and within them the frame of the axes.
WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 454, 12, 198

# In seconds: a tick falls on what people count in.
_TIME_STEPS = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200),
    *(86400 * days for days in (1, 2, 7, 14, 28, 91, 182, 364)),
)
# Of what is beyond, the picture of the rest could not be told from a flat line.
LARGEST, _SMALLEST = 1e30, 1e-30


@dataclass(frozen=True)
class Shape:
    """Something to draw, in the units of its axes.

    Attributes:
        style: the class of the path.
        is_area: closed and filled, else a line.
    """

    style: str
    points: Points
    is_area: bool = False


@dataclass(frozen=True)
class Key:
    """What a style stands for, as the legend says it."""

    style: str
    text: str
    is_area: bool = False


@dataclass(frozen=True)
class Tick:
    """Attributes:
    place: in the picture's pixels.
    """

    place: float
    text: str


@dataclass(frozen=True)
class Label:
    """A text anywhere in the picture; `style` is its class."""

    x: float
    y: float
    text: str
    style: str


@dataclass(frozen=True)
class Plot:
    """A picture.

    Attributes:
        text: what it shows, for those who do not see it.
        paths: class and data of each.
        height: in pixels; its width is always the same.
    """

    title: str
    text: str
    x_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    paths: tuple[tuple[str, str], ...]
    keys: tuple[Key, ...]
    labels: tuple[Label, ...] = ()
    height: int = HEIGHT


@dataclass(frozen=True)
class Axis:
    """Attributes:
    steps: between two ticks; empty for 1, 2 or 5 times a power of ten.
    least: what is shown at least, from and to.
    """

    name: str
    format: Callable[[float], str]
    least: tuple[float, float] | None = None
    steps: tuple[float, ...] = ()

    def range(self, values: Iterable[float]) -> tuple[float, float]:
        found = [*values, *(self.least or ())]
        low, high = min(found, default=0.0), max(found, default=1.0)
        # What differs by less is rounding, or a value that stays.
        if high - low > 1e-9 * max(abs(low), abs(high)) and high - low > _SMALLEST:
            return low, high
        margin = abs(low) / 2 if abs(low) > _SMALLEST else 0.5
        return low - margin, high + margin

    def ticks(self, low: float, high: float, most: int) -> list[float]:
        step = self._step((high - low) / most)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _step(self, least: float) -> float:
        for step in self.steps:
            if step >= least:
                return step
        power = 10.0 ** math.floor(math.log10(least))
        return next(times * power for times in (1, 2, 5, 10) if times * power >= least * 0.999)


def time_axis(name: str, format_time: Callable[[float], str], end_s: float) -> Axis:
    return Axis(name, format_time, (0.0, end_s), _TIME_STEPS)


def draw(
    title: str, text: str, x: Axis, y: Axis, shapes: Iterable[Shape], keys: Iterable[Key] = ()
) -> Plot:
    """In the order of the shapes, the last one on top."""
    drawable = [
        Shape(shape.style, tuple(p for p in shape.points if _fits(p)), shape.is_area)
        for shape in shapes
    ]
    left, right = x.range(at for shape in drawable for at, _ in shape.points)
    low, high = y.range(value for shape in drawable for _, value in shape.points)

    def across(at: float) -> float:
        return LEFT + (at - left) / (right - left) * (RIGHT - LEFT)

    def up(value: float) -> float:
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    def path(shape: Shape) -> str:
        places = " ".join(f"{across(at):.1f},{up(value):.1f}" for at, value in shape.points)
        return f"M{places}{'Z' if shape.is_area else ''}"

    return Plot(
        title=title,
        text=text,
        x_name=x.name,
        x_ticks=tuple(Tick(across(at), x.format(at)) for at in x.ticks(left, right, 5)),
        y_ticks=tuple(Tick(up(value), y.format(value)) for value in y.ticks(low, high, 5)),
        paths=tuple((shape.style, path(shape)) for shape in drawable if shape.points),
        keys=tuple(keys),
    )


def stairs(points: Points, until: float) -> Points:
    """A value that stays until the next one comes."""
    found: list[tuple[float, float]] = []
    for at, value in points:
        if found:
            found.append((at, found[-1][1]))
        found.append((at, value))
    if found:
        found.append((until, found[-1][1]))
    return tuple(found)


def _fits(point: tuple[float, float]) -> bool:
    return all(abs(value) <= LARGEST for value in point)
