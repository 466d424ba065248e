"""Which of the many points of a sweep are tried, and what is told of them afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest

Point = TypeVar("Point")

# Set by `make faults`: how many points each sweep tries; else a few, so that the tests stay quick.
_COUNT = "TRAINSHED_FAULT_POINTS"
_FEW = 4
# Where what was tried is told, a line each, for docs/reliability.md.
_REPORT = "TRAINSHED_FAULT_REPORT"


def chosen(points: Sequence[Point], few: int = _FEW) -> list[Point]:
    """As many as asked for, from all over the sweep; the first and the last are among them."""
    count = min(len(points), int(os.environ.get(_COUNT, few)))
    if count < 2:
        return list(points[:count])
    return [points[round(n * (len(points) - 1) / (count - 1))] for n in range(count)]


# What takes too long for `make test`.
slow = pytest.mark.skipif(_COUNT not in os.environ, reason="only in make faults")


def tell(fault: str, tried: int, holds: str) -> None:
    """Note what a sweep that held has tried."""
    report = os.environ.get(_REPORT)
    if report:
        line = json.dumps({"fault": fault, "tried": tried, "holds": holds})
        with Path(report).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
