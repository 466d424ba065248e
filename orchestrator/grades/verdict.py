"""A grade and how two of them compare. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

# A category's, and so many thresholds a grader has.
POINTS = 5


class Outcome(Enum):
    GRADED = "graded"
    INVALID = "invalid"  # the model's fault
    BROKEN = "broken"  # the grader's, or the grading's own


@dataclass(frozen=True)
class Verdict:
    """What a model is worth in its category.

    Attributes:
        points: 0..5, only when graded.
        metric: the metric's name; "" where the grader was never read.
        value: the metric on the held-out data, only when graded; may be NaN.
        thresholds: the values that earn 1..5 points; empty where the grader was never read.
        reason: why it is invalid or broken, one line of printable text; "" when graded.
        sha256: of the bytes that were graded; None where there were none to read.
        graded_at: in UTC.
        versions: of the framework that graded; "" where none was needed to judge.
        sources: the Python files of the grader's folder that grading opened, sorted real paths.
    """

    category: str
    outcome: Outcome
    points: int | None
    metric: str
    value: float | None
    thresholds: tuple[float, ...]
    higher_is_better: bool
    reason: str
    sha256: str | None
    size_bytes: int | None
    graded_at: datetime
    versions: str
    sources: tuple[str, ...] = ()

    @property
    def next_threshold(self) -> float | None:
        """The metric that the next point needs; None at the top, or where it is not known."""
        earned = self.points or 0
        return self.thresholds[earned] if earned < len(self.thresholds) else None

    @property
    def hidden(self) -> Verdict:
        """As it is shown in an exam: the points, and nothing of how they came about."""
        if self.outcome is not Outcome.GRADED:
            return self
        reason = "not shown in an exam"
        return replace(self, metric="", value=None, thresholds=(), reason=reason)

    def better_than(self, other: Verdict) -> bool:
        """More points, then the better metric, then the smaller file; graded beats all else."""
        return self._rank() > other._rank()

    def _rank(self) -> tuple[bool, int, float, float]:
        value = math.nan if self.value is None else self.value
        if not self.higher_is_better:
            value = -value
        return (
            self.outcome is Outcome.GRADED,
            self.points or 0,
            # NaN compares with nothing, so it would be neither better nor worse.
            -math.inf if math.isnan(value) else value,
            -math.inf if self.size_bytes is None else -self.size_bytes,
        )


def points(value: float, thresholds: Sequence[float], higher_is_better: bool) -> int:
    """How many of the thresholds `value` reaches. NaN reaches none."""
    if higher_is_better:
        return sum(value >= threshold for threshold in thresholds)
    return sum(value <= threshold for threshold in thresholds)


def of_five(points: int) -> str:
    """`3 of 5`."""
    return f"{points} of {POINTS}"
