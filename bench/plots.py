"""The results as pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from bench.figures import Figure

# What has an axis to be drawn over.
_OVER_DISTANCE, _OVER_SIZE = ("sync", "pull", "upload"), ("growth", "scale")
_PANEL_INCHES = (4.0, 3.0)
_COLUMNS = 3


def draw(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """A PNG for each part that can be drawn; the files."""
    made = []
    for part in (*_OVER_DISTANCE, *_OVER_SIZE):
        panels: dict[str, list[Figure]] = defaultdict(list)
        for figure in figures:
            if figure.part == part:
                kind = figure.case.partition(" ")[2] if part in _OVER_SIZE else figure.case
                panels[kind].append(figure)
        if panels:
            made.append(folder / f"{part}.png")
            _draw(panels, made[-1], over_size=part in _OVER_SIZE)
    return made


def _draw(panels: dict[str, list[Figure]], file: Path, *, over_size: bool) -> None:
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width, height = _PANEL_INCHES
    canvas = Canvas((columns * width, rows * height), layout="constrained")
    axes = list(canvas.subplots(rows, columns, squeeze=False).flat)
    programs = dict.fromkeys(figure.program for mine in panels.values() for figure in mine)
    colours = {program: f"C{number}" for number, program in enumerate(programs)}
    for panel, (title, figures) in zip(axes, panels.items(), strict=False):
        panel.set_title(title, fontsize="medium")
        panel.set_ylabel("s")
        _curves(panel, figures, colours, over_size=over_size)
    for unused in axes[len(panels) :]:
        unused.set_visible(False)
    canvas.savefig(file, dpi=100)


def _curves(
    panel: Axes, figures: Sequence[Figure], colours: dict[str, str], *, over_size: bool
) -> None:
    """A line for each program, with its spread."""
    for program, colour in colours.items():
        mine = [figure for figure in figures if figure.program == program]
        if not mine:
            continue
        over = [_size(figure) if over_size else figure.rtt_ms for figure in mine]
        panel.plot(
            over, [figure.median for figure in mine], marker=".", color=colour, label=program
        )
        low = [min(figure.values) for figure in mine]
        panel.fill_between(
            over, low, [max(figure.values) for figure in mine], color=colour, alpha=0.2
        )
    if over_size:
        panel.set(xscale="log", yscale="log", xlabel=figures[0].case.split()[1].strip(","))
        # Seconds as one says them; and what hardly changes shall look so.
        seconds = [value for figure in figures for value in figure.values]
        panel.set_ylim(min(0.01, *seconds), max(10.0, *seconds))
        panel.yaxis.set_major_formatter("{x:g}")
    else:
        panel.set(xlabel="round trip, ms")
        panel.set_ylim(bottom=0)
    panel.legend(fontsize="small")


def _size(figure: Figure) -> int:
    """The number a case of growth begins with."""
    return int(figure.case.split()[0].replace(",", ""))
