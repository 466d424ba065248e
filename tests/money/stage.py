"""Time on which many things happen by themselves, each at its moment, while somebody sleeps."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


class Actor(Protocol):
    """Somebody who does something by himself."""

    def next_s(self) -> float:
        """When; infinity for never."""

    def act(self) -> None:
        """Do all that is due."""


class Stage:
    """A clock, as `tests.clouds.clock.Clock`, that goes on only when somebody sleeps by it.

    Attributes:
        s: seconds since the start.
    """

    def __init__(self) -> None:
        self.s = 0.0
        self.actors: list[Actor] = []
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.s)

    def monotonic(self) -> float:
        return self.s

    def plan(self, in_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._planned, (self.s + in_s, next(self._count), act))

    def sleep(self, seconds: float) -> None:
        end_s = self.s + seconds
        while (next_s := self._next_s()) <= end_s:
            self.s = max(self.s, next_s)
            while self._planned and self._planned[0][0] <= self.s:
                heapq.heappop(self._planned)[2]()
            for actor in self.actors:
                actor.act()
        self.s = end_s

    def _next_s(self) -> float:
        planned = self._planned[0][0] if self._planned else float("inf")
        return min(planned, *(actor.next_s() for actor in self.actors))


def seconds_of(at: datetime) -> float:
    """On a stage."""
    return (at - START).total_seconds()
