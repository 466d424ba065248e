"""How fast something goes and how long it still takes, on screens of any width."""

from __future__ import annotations

import pytest

from orchestrator.screen.console import Console
from orchestrator.screen.headway import Headway, took

MB = 10**6


def test_the_rate_and_the_time_left_are_those_of_the_last_seconds() -> None:
    headway = Headway(0, 100 * MB, 0.0)
    for second in range(1, 21):  # 4 MB a second, then 1 MB a second
        headway.see((min(second, 10) * 4 + max(0, second - 10)) * MB, float(second))

    assert next(headway.forms(20.0)) == "50.0 MB of 100 MB (50 %), 1.0 MB/s, 50 s left"


def test_what_was_there_before_is_not_counted_as_done_now() -> None:
    headway = Headway(90 * MB, 100 * MB, 0.0)
    headway.see(92 * MB, 2.0)

    assert next(headway.forms(2.0)) == "92.0 MB of 100 MB (92 %), 1.0 MB/s, 8 s left"


def test_a_line_that_stands_still_gets_slower_without_a_word() -> None:
    headway = Headway(0, 10 * MB, 0.0)
    headway.see(5 * MB, 1.0)

    assert next(headway.forms(2.0)).endswith("2.5 MB/s, 2 s left")
    assert next(headway.forms(10.0)).endswith("500 kB/s, 10 s left")


def test_what_is_lost_again_is_a_new_beginning() -> None:
    headway = Headway(0, 10 * MB, 0.0)
    headway.see(8 * MB, 1.0)
    headway.see(2 * MB, 2.0)

    assert next(headway.forms(3.0)) == "2.0 MB of 10.0 MB (20 %)"
    headway.see(4 * MB, 4.0)
    assert next(headway.forms(4.0)) == "4.0 MB of 10.0 MB (40 %), 1.0 MB/s, 6 s left"


def test_what_is_done_has_no_time_left() -> None:
    headway = Headway(0, 10 * MB, 0.0)
    headway.see(10 * MB, 5.0)

    assert next(headway.forms(5.0)) == "10.0 MB of 10.0 MB (100 %)"


def test_before_a_second_has_passed_nobody_guesses() -> None:
    headway = Headway(0, 10 * MB, 0.0)
    headway.see(MB, 0.9)

    assert list(headway.forms(0.9)) == ["1.0 MB of 10.0 MB (10 %)", "10 %"]


def test_what_took_less_than_a_second_boasts_of_no_rate() -> None:
    assert took(5 * MB, 0.9) == ""
    assert took(5 * MB, 2.0) == ", 2 s, 2.5 MB/s"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (77, "sending category1/data 5.0 MB of 10.0 MB (50 %), 2.5 MB/s, 2 s left"),
        (50, "sending category1/data 50 %, 2.5 MB/s, 2 s left"),
        (37, "sending category1/data 50 %, 2 s left"),
        (30, "sending category1/data 50 %"),
        (20, "sending catego… 50 %"),
    ],
)
def test_a_narrow_screen_keeps_what_matters_most(
    width: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0] * 9)
    monkeypatch.setattr("time.monotonic", lambda: next(times, 2.0))
    console = Console()
    console.doing("sending category1/data", 0, 10 * MB)
    list(times)
    console.doing("sending category1/data", 5 * MB, 10 * MB)

    assert console._line(width) == line
