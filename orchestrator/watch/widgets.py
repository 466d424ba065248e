"""The parts of the live view's screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.coordinate import Coordinate
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import DataTable, Static

from orchestrator.watch.board import Chart
from orchestrator.watch.chart import draw

# Lower, a chart has more frame than curve.
_CHART_LINES = 8


class Question(ModalScreen[bool]):
    """Text, and whether the user pressed `y`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "dismiss(True)", "yes"),
        ("n,escape,q,question_mark", "dismiss(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(self._text, markup=False, classes="box")


class Rows(DataTable[Text]):
    """A table of which each row has a key."""

    def __init__(self, name: str, headings: tuple[str, ...]) -> None:
        super().__init__(id=name, cursor_type="row")
        self._headings = headings

    def on_mount(self) -> None:
        self.add_columns(*self._headings)

    def fill(self, rows: Mapping[str, tuple[str, ...]], chosen: str, *, stays: bool) -> None:
        """Change what has changed. The cursor is on `chosen`; or it stays where the user has it."""
        known = [str(key.value) for key in self.rows]
        if stays and self.has_focus and self.is_valid_row_index(self.cursor_row):
            chosen = known[self.cursor_row]
        if known != list(rows):
            with self.prevent(DataTable.RowHighlighted):
                self.clear()
                for key, cells in rows.items():
                    self.add_row(*map(Text, cells), key=key)
        for row, cells in enumerate(rows.values()):
            for column, (cell, before) in enumerate(zip(cells, self.get_row_at(row), strict=True)):
                if cell != before.plain:
                    self.update_cell_at(Coordinate(row, column), Text(cell), update_width=True)
        if chosen in rows and (row := list(rows).index(chosen)) != self.cursor_row:
            # The widths of what was just added are not known before.
            self.call_after_refresh(self._move, row)

    def _move(self, row: int) -> None:
        """As the program does, so that nothing follows from it."""
        with self.prevent(DataTable.RowHighlighted):
            self.move_cursor(row=row)


class Curves(Widget):
    """As many charts as there is room for."""

    def __init__(self) -> None:
        super().__init__(id="curves")
        self.charts: tuple[Chart, ...] = ()

    def show(self, charts: tuple[Chart, ...]) -> None:
        if charts != self.charts:
            self.charts = charts
            self.refresh()

    def render(self) -> Text:
        width, height = self.size
        if not self.charts:
            return Text("no epochs yet", style="dim")
        count = min(len(self.charts), max(1, height // _CHART_LINES))
        drawn = (draw(chart, width, height // count) for chart in self.charts[:count])
        return Text("\n", no_wrap=True).join(drawn)


class Words(Static):
    """Text as it is, whatever it may look like."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(text, id=name, markup=False)
        self._text = text

    def write(self, text: str) -> None:
        """What stays as it is costs nothing."""
        if text != self._text:
            self._text = text
            self.update(text)
