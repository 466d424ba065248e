"""What many runs on a cluster take, from their submission to the books.

`python -m bench.scale` starts a Slurm of eight nodes on this machine, and writes scale.json,
scale.md and scale.png beside this file. It ends with 1 where a run was lost, or executed twice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import crowd, queue
from bench.figures import OURS, Figure
from bench.machine import about
from bench.plots import draw
from bench.race import say

HERE = Path(__file__).parent
_ABOUT = ("date", "machine", "load before", "system", "trainshed", "python")


@dataclass(frozen=True)
class Section:
    """A table, by the number of runs.

    Attributes:
        text: what was done, and what the columns are.
        rows: number of runs, and a value for each further column.
        drawn: which columns are seconds, to be drawn over the number of runs.
    """

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    drawn: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        table = [["runs", *self.columns], ["---:"] * (1 + len(self.columns))]
        table += [[f"{value:,}" for value in row] for row in self.rows]
        rows = (f"| {' | '.join(row)} |" for row in table)
        return ["", f"## {self.title}", "", self.text, "", *rows]

    def figures(self) -> list[Figure]:
        return [
            Figure(
                "scale", f"{row[0]:,} runs, {name.removesuffix(', s')}", 0.0, OURS, "s", (value,)
            )
            for row in self.rows
            for name, value in zip(self.columns, row[1:], strict=True)
            if name in self.drawn
        ]


def measure() -> tuple[Section, ...]:
    """Raises:
    AssertionError: a run was lost, or executed twice.
    """
    return (
        Section(
            "Short runs on eight nodes",
            (crowd.__doc__ or "").strip(),
            crowd.COLUMNS,
            tuple(crowd.measure()),
            crowd.DRAWN,
        ),
        Section(
            "A question about many runs that wait",
            (queue.__doc__ or "").strip(),
            queue.COLUMNS,
            tuple(queue.measure()),
            queue.DRAWN,
        ),
    )


def write(sections: Sequence[Section], machine: dict[str, str]) -> None:
    kept = {"about": machine, "sections": [asdict(section) for section in sections]}
    (HERE / "scale.json").write_text(json.dumps(kept, indent=1) + "\n")
    on = "; ".join(f"{name}: {value}" for name, value in machine.items())
    lines = ["# Many runs", "", f"`make scale`, on one machine: {on}."]
    lines += ["With a load above some tenths, others were at work there, too.", ""]
    lines += ["![seconds over the number of runs](scale.png)"]
    for section in sections:
        lines += section.lines()
    text = "\n".join(lines) + "\n"
    (HERE / "scale.md").write_text(text)
    draw([figure for section in sections for figure in section.figures()], HERE)
    sys.stdout.write(text)


def main() -> None:
    machine = {name: value for name, value in about().items() if name in _ABOUT}
    try:
        sections = measure()
    except AssertionError as error:
        say(f"error: {error}")
        sys.exit(1)
    write(sections, machine)


if __name__ == "__main__":
    main()
