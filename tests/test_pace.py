"""Is it the processor or the line that sending waits for?"""

from __future__ import annotations

import time

import pytest

from orchestrator.vm.pace import Pace


class Clock:
    """Time that passes as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s = self.cpu_s = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.wall_s)
        monkeypatch.setattr(time, "process_time", lambda: self.cpu_s)

    def passes(self, wall_s: float, share: float) -> None:
        self.wall_s += wall_s
        self.cpu_s += wall_s * share


@pytest.mark.parametrize("is_bound", [True, False])
def test_until_it_is_known_it_is_what_was_assumed(
    monkeypatch: pytest.MonkeyPatch, is_bound: bool
) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(is_bound=is_bound)
    clock.passes(0.1, 1.0 - is_bound)
    assert pace.is_processor_bound() is is_bound


@pytest.mark.parametrize(
    ("before", "share", "after"),
    [
        (False, 0.9, True),
        (True, 0.9, True),
        (False, 0.4, False),
        (True, 0.4, True),
        (False, 0.1, False),
        (True, 0.1, False),
        (False, 3.0, True),
    ],
)
def test_it_changes_when_it_is_clear_and_else_stays(
    monkeypatch: pytest.MonkeyPatch, before: bool, share: float, after: bool
) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(is_bound=before)
    clock.passes(0.5, share)
    assert pace.is_processor_bound() is after
    clock.passes(0.1, 1.0 - share)
    assert pace.is_processor_bound() is after


def test_only_what_passed_lately_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = Pace(is_bound=False)
    clock.passes(100, 0.9)
    assert pace.is_processor_bound()
    clock.passes(0.3, 0.1)
    assert not pace.is_processor_bound()
