"""The few results that the README shows, each beside what a user would take instead."""

from __future__ import annotations

from pathlib import Path

from bench.figures import OURS, Figure, Results

# Part, case, the program to compare with, and what the case is for a user.
_ROWS = (
    (
        "sync",
        "1,000 files, 20 MB: unchanged",
        "rsync, cold",
        "the same again, until it is accepted",
    ),
    ("sync", "1,000 files, 20 MB: one changed", "rsync, cold", "one file saved"),
    ("sync", "10,000 files, 100 MB: one changed", "rsync, cold", "one of 10,000 files saved"),
    ("sync", "1,000 files, 20 MB: first", "rsync, cold", "all of 1,000 files, 20 MB"),
    ("sync", "10,000 files, 100 MB: first", "rsync, cold", "all of 10,000 files, 100 MB"),
    ("pull", "25 MB", "scp", "a model of 25 MB pulled"),
    ("pull", "500 MB", "scp", "one of 500 MB"),
    ("upload", "500 MB", "scp", "500 MB of data sent"),
)
_RTTS_MS = (0, 50, 150)
_BEGIN, _END = "<!-- bench -->\n", "<!-- /bench -->\n"


def summary(results: Results) -> str:
    """A Markdown table; a cell is empty where nothing was measured."""
    found = {(figure.race, figure.program): figure for figure in results.figures}

    def cell(part: str, case: str, peer: str, rtt_ms: float) -> str:
        ours, theirs = (found.get(((part, case, rtt_ms), name)) for name in (OURS, peer))
        if ours is None or theirs is None:
            return ""
        return f"{_seconds(ours)} ({peer.partition(',')[0]} {_seconds(theirs)})"

    lines = ["| | " + " | ".join(f"{rtt_ms} ms away" for rtt_ms in _RTTS_MS) + " |"]
    lines.append("| --- " * (1 + len(_RTTS_MS)) + "|")
    for part, case, peer, words in _ROWS:
        cells = (cell(part, case, peer, rtt_ms) for rtt_ms in _RTTS_MS)
        lines.append(f"| {words} | {' | '.join(cells)} |")
    machine = next((facts["machine"] for facts in results.about.values()), "")
    if machine:
        lines.append(f"\nMeasured on {machine}, which both ends share; medians of 5.")
    return "\n".join(lines) + "\n"


def show(results: Results, readme: Path) -> None:
    """Put the table between its marks in the README, where there are any."""
    text = readme.read_text("utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and end:
        readme.write_text(f"{before}{begin}{summary(results)}{end}{after}", "utf-8")


def _seconds(figure: Figure) -> str:
    return f"{figure.median:.2f} s" if figure.median < 10 else f"{figure.median:.0f} s"
