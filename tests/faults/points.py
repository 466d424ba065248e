"""Which of the many points of a sweep are tried, and what is told of them afterwards."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest

Point = TypeVar("Point")

# Set by `make faults`: how many points each sweep tries; else a few, so that the tests stay quick.
_COUNT = "TRAINSHED_FAULT_POINTS"
_FEW = 4
# For tests that take too long for `make test`, and tell nothing that quicker ones there do not.
only_in_faults = pytest.mark.skipif(_COUNT not in os.environ, reason="slow: make faults")
# Where what was tried is told, a line each, for docs/reliability.md.
_REPORT = "TRAINSHED_FAULT_REPORT"


def chosen(points: Sequence[Point], few: int = _FEW) -> list[Point]:
    """As many as asked for, from all over the sweep; the first and the last are among them."""
    count = min(len(points), int(os.environ.get(_COUNT, few)))
    if count < 2:
        return list(points[:count])
    return [points[round(n * (len(points) - 1) / (count - 1))] for n in range(count)]


def is_thorough() -> bool:
    """Whether there is time for what is too slow or too large for `make test`."""
    return _COUNT in os.environ


def tell(fault: str, tried: int, holds: str) -> None:
    """Note what a sweep that held has tried."""
    test = name_of(os.environ["PYTEST_CURRENT_TEST"])
    _report(json.dumps({"test": test, "fault": fault, "tried": tried, "holds": holds}))


def tell_failure(node_id: str) -> None:
    """Note that a test failed: what its other parameters have told does not stand for it."""
    _report(json.dumps({"test": name_of(node_id), "failed": True}))


def name_of(node_id: str) -> str:
    """A test's name without its file, its parameters and its group."""
    return re.split(r"[\[@ ]", node_id.partition("::")[2])[0]


def _report(line: str) -> None:
    report = os.environ.get(_REPORT)
    if report:
        with Path(report).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
