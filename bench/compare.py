"""A guard that is no timer: ratios now against those of the last committed results."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Results, from_json, ratios

# Less than this changes from run to run.
_FALL = 0.2


def committed(file: Path) -> Results | None:
    """The results as of the last commit; None if there are none."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:./{file.name}"], cwd=file.parent, capture_output=True, check=False
    )
    return from_json(shown.stdout.decode()) if shown.returncode == 0 else None


def fallen(before: Results, now: Results) -> Iterator[str]:
    """The ratios that are lower by more than a fifth, a line each."""
    old = {(theirs.race, theirs.program): ratio for _, theirs, ratio in ratios(before.figures)}
    for _, theirs, ratio in ratios(now.figures):
        was = old.get((theirs.race, theirs.program))
        if was is not None and ratio < was * (1 - _FALL):
            part, case, rtt_ms = theirs.race
            yield (
                f"{part}, {case}, {rtt_ms:g} ms: {theirs.program} takes {ratio:.2f} times ours,"
                f" was {was:.2f}"
            )
