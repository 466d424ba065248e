"""What the live view says in words, and what of it is told as lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.watch.board import (
    Board,
    CategoryView,
    Chart,
    Curve,
    RemoteView,
    RunDetail,
    RunView,
    sparkline,
)
from orchestrator.watch.plain import Plain

RUN = RunView(
    *("a-20260101-120000-beef", "a", "running", "vm", "3 of 10", "40 s left", "2 min"),
    *("$0.02", "", False),
)
BOARD = Board(
    "exam",
    (CategoryView("a", "4 of 5", "accuracy 0.9", RUN.progress, RUN.run_id, "vm"),),
    (RUN,),
    (RemoteView("vm", 0.5),),
)


@pytest.mark.parametrize(
    ("remote", "text"),
    [
        (RemoteView("vm", 0.5), "vm: connected"),
        (RemoteView("vm", None), "vm: not heard of yet, connecting"),
        (RemoteView("vm", 14.2), "vm: what is shown is 14 s old, connecting"),
        (
            RemoteView("vm", 190, "the line is gone", 4.6),
            "vm: what is shown is 3 min old; again in 5 s: the line is gone",
        ),
        (
            RemoteView("vm", None, "nobody answers"),
            "vm: not heard of yet; trying again: nobody answers",
        ),
    ],
)
def test_a_remote_says_how_old_what_it_shows_is(remote: RemoteView, text: str) -> None:
    assert remote.text == text


def test_a_sparkline_is_as_high_as_its_values() -> None:
    assert sparkline((0, 50, 100, 250), 100.0) == "▁▅██"


def told(*boards: tuple[Board, float]) -> list[str]:
    said: list[str] = []
    plain = Plain(said.append)
    for board, now_s in boards:
        plain.show(board, now_s)
    return said


def test_plain_lines_say_everything_once() -> None:
    assert told((BOARD, 0), (BOARD, 1)) == [
        "vm: connected",
        "a: 4 of 5, accuracy 0.9",
        "a-20260101-120000-beef: running",
        "a-20260101-120000-beef: running, epoch 3 of 10, 40 s left",
    ]


def test_plain_lines_tell_what_changed_and_nothing_else() -> None:
    ended = replace(RUN, state="succeeded", left="", has_ended=True)

    assert told((BOARD, 0), (replace(BOARD, runs=(ended,)), 1))[4:] == [
        "a-20260101-120000-beef: succeeded"
    ]


def test_epochs_that_fly_by_are_told_seldom() -> None:
    boards = [(replace(BOARD, runs=(replace(RUN, epoch=f"{n} of 90"),)), n) for n in range(25)]
    epochs = [line for line in told(*boards) if "epoch" in line]

    assert len(epochs) == 3


def test_a_lost_line_is_told_without_its_seconds() -> None:
    lost = [
        (replace(BOARD, remotes=(RemoteView("vm", age, "the line is gone", 1),)), age)
        for age in range(20, 40)
    ]

    assert told((BOARD, 0), *lost)[4:] == ["vm: the line is gone"]


def test_plain_lines_have_the_curves_as_numbers() -> None:
    chart = Chart("loss", (Curve("training", ((1, 0.5), (2, 0.25))), Curve("best", ((1, 0.3),))))
    detail = RunDetail(RUN.run_id, (), (chart,), ("cpu 10 %",))

    assert told((replace(BOARD, detail=detail), 0))[4:] == [
        f"{RUN.run_id}: loss: training 0.25, best 0.3",
        f"{RUN.run_id}: cpu 10 %",
    ]
