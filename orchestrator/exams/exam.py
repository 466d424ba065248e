"""An exam's clock, its marks and where its time went: arithmetic, without a clock or a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from orchestrator.grades.verdict import POINTS

CATEGORIES = tuple(f"category{number}" for number in range(1, 6))
PASS_POINTS = 20

# A clock that a time server sets right moves by less; a person moves it by more.
_MOVED_S = 60.0

Span = tuple[datetime, datetime]


@dataclass(frozen=True)
class Instant:
    """What this laptop's clocks say at one moment.

    Attributes:
        at: the wall clock, which anybody can move.
        boot: what tells this boot from the next; empty where the system does not say.
        up_s: since that boot, sleep included, which nobody can move.
    """

    at: datetime
    boot: str
    up_s: float


@dataclass(frozen=True)
class Reading:
    """Attributes:
    passed_s: of the exam.
    moved_s: how far the wall clock was moved since it was last read; 0 for not, as far as known.
    """

    passed_s: float
    moved_s: float = 0.0


def read_clock(last: Instant, passed_s: float, now: Instant) -> Reading:
    """How much of an exam has passed, if it was `passed_s` at the instant `last`.

    Within one boot the time since that boot counts, and the wall clock says nothing. Over a reboot
    the wall clock counts, but never less than the laptop has been on since. Time that has passed is
    never given back.
    """
    wall_s = (now.at - last.at).total_seconds()
    if now.boot and now.boot == last.boot:
        since_s = max(0.0, now.up_s - last.up_s)
    else:
        since_s = max(0.0, wall_s, now.up_s if now.boot else 0.0)
    moved_s = wall_s - since_s
    return Reading(passed_s + since_s, moved_s if abs(moved_s) > _MOVED_S else 0.0)


@dataclass(frozen=True)
class Mark:
    """What a category has come to.

    Attributes:
        points: of the best that was handed in; None where nothing was graded.
        attempts: what was handed in.
    """

    points: int | None = None
    attempts: int = 0

    @property
    def score(self) -> int:
        """A category without a submission scores zero."""
        return self.points or 0


@dataclass(frozen=True)
class Score:
    marks: Mapping[str, Mark]
    pass_points: int

    @property
    def points(self) -> int:
        return sum(mark.score for mark in self.marks.values())

    @property
    def out_of(self) -> int:
        return POINTS * len(self.marks)

    @property
    def passed(self) -> bool:
        return self.points >= self.pass_points and all(m.score for m in self.marks.values())

    @property
    def rule(self) -> str:
        return f"at least {self.pass_points} of {self.out_of} points, and none of 0 in a category"


def score(
    categories: Iterable[str], attempts: Iterable[tuple[str, int | None]], pass_points: int
) -> Score:
    """The best attempt of each category counts.

    Args:
        attempts: the category of each, and its points; None where it has none (yet).
    """
    found = {category: Mark() for category in categories}
    for category, points in attempts:
        known = found.get(category, Mark())
        best = max((p for p in (known.points, points) if p is not None), default=None)
        found[category] = Mark(best, known.attempts + 1)
    return Score(found, pass_points)


@dataclass(frozen=True)
class Spent:
    """Where an exam's time went, in seconds; the parts add up to what has passed.

    Attributes:
        waiting: something was queued, set up or graded, and nothing was trained.
        idle: a machine was paid for and had nothing to do.
        coding: the rest.
    """

    training: float
    waiting: float
    idle: float
    coding: float


def spend(
    window: Span,
    passed_s: float,
    training: Sequence[Span],
    waiting: Sequence[Span],
    idle: Sequence[Span],
) -> Spent:
    """Each instant counts once: as the first of these that it lies in.

    Args:
        window: the exam by the wall clock; spans are cut to it.
        passed_s: by the exam's own clock.
    """
    parts = [0.0, 0.0, 0.0]
    kinds = [[_cut(span, window) for span in spans] for spans in (training, waiting, idle)]
    edges = sorted({edge for spans in kinds for span in spans for edge in span})
    for begin, end in pairwise(edges):
        for number, spans in enumerate(kinds):
            if any(start <= begin and end <= stop for start, stop in spans):
                parts[number] += (end - begin) / timedelta(seconds=1)
                break
    return Spent(parts[0], parts[1], parts[2], max(0.0, passed_s - sum(parts)))


def _cut(span: Span, window: Span) -> Span:
    begin, end = max(span[0], window[0]), min(span[1], window[1])
    return begin, max(begin, end)
