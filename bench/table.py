"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench.figures import OURS, Figure, Results, ratios

_NOTE = """\
Medians, in brackets the lowest and the highest; `x`: how many times ours it takes; after the
semicolon, seconds of processor. Cold: every connection is new. Warm: over an OpenSSH master
connection that was open before; its own seconds of processor are not counted.
"""

_LINES = """\
Loopback, and a delay line between two network namespaces. It holds packets back and limits nothing
else: eight connections carry several times what TCP's own window lets one carry.

"""


def markdown(results: Results) -> str:
    """Every part as a table, with what it was measured on."""
    sections = [f"# Measurements\n\n{_NOTE}", _machines(results), *_lines(results)]
    for part in results.about:
        figures = [figure for figure in results.figures if figure.part == part]
        sections.append(f"## {part}\n\n{_races(figures)}")
    if results.left_out:
        sections.append("## Left out\n\n" + "".join(f"- {text}\n" for text in results.left_out))
    return "\n".join(sections)


def _machines(results: Results) -> str:
    """What each part was measured on; parts that were measured together share a line."""
    together: dict[str, list[str]] = {}
    for part, facts in results.about.items():
        text = "; ".join(f"{name} {value}" for name, value in facts.items())
        together.setdefault(text, []).append(part)
    return "".join(f"- {', '.join(parts)}: {text}\n" for text, parts in together.items())


def _lines(results: Results) -> Iterator[str]:
    if results.lines:
        rows = [
            (
                f"{line.asked_ms:g} ms",
                f"{line.measured_ms:.2f} ms",
                f"{line.one_mb_per_s:.0f} MB/s",
                f"{line.many_mb_per_s:.0f} MB/s",
            )
            for line in results.lines
        ]
        yield (
            "## The lines\n\n"
            + _LINES
            + _table(("RTT asked", "measured", "one TCP connection", "eight"), rows)
        )


def _races(figures: Sequence[Figure]) -> str:
    """A row for each case and distance, a column for each program."""
    programs = list(dict.fromkeys(figure.program for figure in figures))
    times = {(other.race, other.program): ratio for _, other, ratio in ratios(figures)}
    found = {(figure.race, figure.program): figure for figure in figures}
    rows = []
    for race in dict.fromkeys(figure.race for figure in figures):
        cells = []
        for program in programs:
            figure = found.get((race, program))
            cells.append("" if figure is None else _cell(figure, times.get((race, program))))
        mine = found.get((race, OURS))
        spent = "" if mine is None or mine.cpu_s is None else _spent(mine)
        repeats = max(len(figure.values) for figure in figures if figure.race == race)
        rows.append((race[1], f"{race[2]:g} ms", *cells, spent, f"{repeats}"))
    head = ("case", "RTT", *programs, f"{OURS}'s processor and memory", "repeats")
    return _table(head, rows)


def _cell(figure: Figure, ratio: float | None) -> str:
    low, high = min(figure.values), max(figure.values)
    text = f"{figure.median:.3g} {figure.unit} ({low:.3g}-{high:.3g})"
    if ratio is not None:
        text += f" {ratio:.2g}x"
    if figure.cpu_s is not None and figure.program != OURS:
        text += f"; {figure.cpu_s:.2g} s"
    return text


def _spent(figure: Figure) -> str:
    return f"{figure.cpu_s:.2g} s, {figure.peak_mib:.0f} MiB"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
