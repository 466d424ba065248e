"""A screen that a person looks at: colours, tables that fit, one line that is redrawn."""

from __future__ import annotations

import os
from collections.abc import Callable

from rich import box
from rich.cells import cell_len
from rich.console import Console as Rich
from rich.console import Group
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.screen.table import Column, Table

# Below this a column of words is harder to read than a list.
_WORDS_WIDTH = 20


class Terminal:
    """What `console.Pipe` is for a file."""

    is_terminal = True

    def __init__(self, rich: Rich) -> None:
        self._rich = rich

    def say(self, text: str, style: str = "") -> None:
        # A line may be as long as it is; only tables are fitted to the screen.
        self._rich.print(Text(text, style=style), soft_wrap=True)

    def tell(self, text: str) -> None:
        self._rich.print(Text(text))

    def log(self, job: str, line: str) -> None:
        text = Text(f"{job} │ ", style="dim") if job else Text()
        self._rich.print(text.append(line, style="not dim"), soft_wrap=True)

    def show(self, table: Table) -> None:
        fits = _width(table) <= self._rich.width
        self._rich.print(_table(table) if fits else _list(table))

    def live(self, line: Callable[[int], str]) -> Live | None:
        """The line that is redrawn; None where the terminal cannot, or only a log is kept of it.

        Args:
            line: what it says, if possible in so many places.
        """
        if self._rich.is_dumb_terminal or os.environ.get("CI", "false") not in ("", "0", "false"):
            return None

        def draw() -> Spinner:
            width = max(1, self._rich.width - 3)
            text = Text(line(width), no_wrap=True)
            text.truncate(width, overflow="ellipsis")
            return Spinner("dots", text)

        return Live(
            get_renderable=draw,
            console=self._rich,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )


def _table(table: Table) -> RichTable:
    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in table.columns:
        made.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            overflow="fold",
        )
    for row in table.rows:
        made.add_row(*(Text(cell.text, style=cell.style) for cell in row))
    return made


def _list(table: Table) -> Group:
    """Where the screen is too narrow for a table, its rows one below the other."""
    rows: list[Text | Padding] = []
    for first, *others in table.rows:
        rows.append(Text(first.text, style="bold"))
        parts = []
        for column, cell in zip(table.columns[1:], others, strict=True):
            if cell.text:
                name = Text(f"{column.name}: " if column.name else "", style="dim")
                parts.append(Text.assemble(name, Text(cell.text, style=cell.style)))
        rows.append(Padding(Text(", ").join(parts), (0, 0, 0, 2)))
    return Group(*rows)


def _width(table: Table) -> int:
    """The least in which it can be read."""
    widths = [
        _needs(column, [row[number].text for row in table.rows])
        for number, column in enumerate(table.columns)
    ]
    return sum(widths) + 3 * (len(widths) - 1)


def _needs(column: Column, texts: list[str]) -> int:
    longest = max(map(cell_len, (column.name, *texts)))
    return min(longest, _WORDS_WIDTH) if column.wraps else longest
