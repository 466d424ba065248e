"""The live view as lines that are added and never redrawn: for screen readers and pipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from orchestrator.watch.board import Board, Chart


class Line(NamedTuple):
    """Attributes:
    topic: a line is told only where it differs from the last of its topic.
    rest_s: and no sooner than so long after that.
    """

    topic: str
    text: str
    rest_s: float = 0.0


class Plain:
    """Args:
    say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, tuple[str, float]] = {}

    def show(self, board: Board, now_s: float) -> None:
        """Args:
        now_s: by the monotonic clock.
        """
        for line in lines(board):
            text, at_s = self._told.get(line.topic, ("", float("-inf")))
            if line.text != text and now_s - at_s >= line.rest_s:
                self._say(line.text)
                self._told[line.topic] = (line.text, now_s)


def lines(board: Board) -> Iterator[Line]:
    """All there is to be told of a board, what matters most first."""
    if board.trouble:
        yield Line("trouble", f"not up to date: {board.trouble}")
    for remote in board.remotes:
        # Not the seconds, which change with every look.
        state = remote.trouble or ("connected" if remote.is_fresh else "connecting")
        yield Line(f"remote {remote.name}", f"{remote.name}: {state}", 10.0)
    if board.exam:
        yield Line("exam", board.exam, 60.0)
    for number, session in enumerate(board.sessions):
        yield Line(f"session {number}", session, 60.0)
    if board.advice:
        yield Line("advice", f"next: {board.advice}")
    for view in board.categories:
        points = "" if view.points == "-" else f"{view.points}, "
        yield Line(f"points {view.name}", f"{view.name}: {points}{view.metric}")
    for run in reversed(board.runs):
        note = f", {run.note}" if run.note else ""
        yield Line(f"run {run.run_id}", f"{run.run_id}: {run.state}{note}")
        if run.epoch and not run.has_ended:
            yield Line(f"epoch {run.run_id}", f"{run.run_id}: {run.progress}", 10.0)
    if board.detail is not None:
        run_id = board.detail.run_id
        for chart in board.detail.charts:
            yield Line(f"{chart.metric} {run_id}", f"{run_id}: {_last_values(chart)}", 10.0)
        for number, usage in enumerate(board.detail.usage):
            yield Line(f"usage {number}", f"{run_id}: {usage}", 60.0)


def _last_values(chart: Chart) -> str:
    """`loss: training 0.31, validation 0.42, best earlier 0.4`."""
    values = (f"{curve.label} {curve.points[-1][1]:.4g}" for curve in chart.curves)
    return f"{chart.metric}: {', '.join(values)}"
