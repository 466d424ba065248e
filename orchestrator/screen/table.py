"""Rows under headings: text for a file or a pipe; `terminal.py` fits them to a screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.screen.printable import printable


@dataclass(frozen=True)
class Column:
    """Attributes:
    wraps: whether it may be broken where the screen is narrow.
    """

    name: str
    right: bool
    wraps: bool


@dataclass(frozen=True)
class Cell:
    """Attributes:
    style: its colour on a terminal, as rich names them.
    """

    text: str
    style: str = ""


class Table:
    """Text that cannot steer the terminal, wherever it came from.

    Args:
        columns: their names; those that begin with `>` are right-aligned, those with `~` may wrap.
    """

    def __init__(self, *columns: str) -> None:
        self.columns = tuple(
            Column(name.lstrip(">~"), right=name[:1] == ">", wraps=name[:1] == "~")
            for name in columns
        )
        self.rows: list[tuple[Cell, ...]] = []

    def add_row(self, *cells: str | Cell) -> None:
        made = (cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)
        self.rows.append(tuple(Cell(printable(cell.text), cell.style) for cell in made))

    def lines(self) -> Iterator[str]:
        """Each row as one line, however long: one broken somewhere could not be searched."""
        rows = [tuple(cell.text.expandtabs() for cell in row) for row in self.rows]
        names = tuple(column.name for column in self.columns)
        widths = [max(map(_width, texts)) for texts in zip(names, *rows, strict=True)]
        yield self._line(names, widths)
        yield "─" * (sum(widths) + 3 * (len(widths) - 1))
        for row in rows:
            yield self._line(row, widths)

    def _line(self, texts: Sequence[str], widths: Sequence[int]) -> str:
        padded = []
        for text, width, column in zip(texts, widths, self.columns, strict=True):
            space = " " * (width - _width(text))
            padded.append(space + text if column.right else text + space)
        return "   ".join(padded).rstrip()


def _width(text: str) -> int:
    """How many places it takes; a character of Chinese takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
