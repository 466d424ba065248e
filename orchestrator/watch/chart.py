"""Draws a run's curves in characters, in the terminal's own colours."""

from __future__ import annotations

import plotext
from rich.text import Text

from orchestrator.records.curves import thinned
from orchestrator.watch.board import Chart

# A look each, so that they are told apart without colours too: its mark in the legend, plotext's
# marker, and the colour.
_LOOKS = (("──", "braille", "default"), ("••", "•", "cyan"), ("··", "·", "orange"))
# What plotext calls orange is the terminal's yellow.
_RICH = {"orange": "yellow"}
# More than a terminal has columns twice over; drawing more takes time and shows nothing.
_POINTS = 500


def draw(chart: Chart, width: int, height: int) -> Text:
    """A legend, and below it the curves; not for two threads at once, as the library has one
    figure.

    Args:
        width, height: of all of it, in characters.
    """
    legend = Text(chart.metric, style="bold", no_wrap=True, end="")
    plotext.clear_figure()
    plotext.theme("clear")
    # The legend would hide what is behind it.
    plotext.plotsize(width, height - 1)
    looks = tuple(zip(chart.curves, _LOOKS, strict=False))
    for curve, (mark, _, colour) in looks:
        legend.append(f"  {mark} {curve.label}", style=f"not bold {_RICH.get(colour, colour)}")
    # What is drawn last is on top.
    for curve, (_, marker, colour) in reversed(looks):
        steps, values = zip(*thinned(curve.points, _POINTS), strict=True)
        plotext.plot(steps, values, marker=marker, color=colour)
    last = max(curve.points[-1][0] for curve in chart.curves)
    # Of the frame only what has numbers on it.
    plotext.xaxes(True, False)
    plotext.yaxes(True, False)
    plotext.xticks(sorted({1, (1 + last) // 2, last}))
    legend.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True).join((legend, Text.from_ansi(plotext.build())))
