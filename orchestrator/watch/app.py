"""The live view on a terminal. Draws boards, and starts commands; knows nothing else.

Only the terminal's own colours are used, so that it is as readable as all else there; what they
tell is told in words too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import DescendantFocus
from textual.widgets import DataTable, Footer

from orchestrator.screen.desktop import open_page
from orchestrator.watch.board import Board
from orchestrator.watch.errand import Errand
from orchestrator.watch.gathering import Gathering
from orchestrator.watch.widgets import Curves, Question, Rows, Words

# A new board is shown within this time of its making.
_LOOK_S = 0.2
# What a narrow screen cuts off stands last.
_CATEGORIES = ("category", "points", "last run", "metric")
_RUNS = ("run", "state", "note", "epoch", "time", "cost", "remote")
# Of a note, on a narrow screen: `not here yet`. Below the table the chosen run's stands in full.
_NOTE_CHARACTERS = 12

_HELP = """\
The upper table has the categories: the points of the model in each
folder, and how its last run stands. The lower one has the runs, the
last one first. Below are the log and the curves of the chosen run,
and what it uses.

  tab     from one table to the other, and to the log
  ↑ ↓     choose a category, or a run; scroll the log

  s       run the chosen category: train run CATEGORY --detach
  c       cancel the chosen run
  p       pull what has ended in the chosen category
  g       grade the chosen category
  h       hand in its model (in an exam)
  o       make the report, and open it
  v       log or curves, where there is no room for both
  esc     put away what a command said
  q       quit; runs go on, and so do commands that were begun here

For lines instead of a screen: train watch --plain"""


class WatchApp(App[None]):
    """Args:
    gathering: makes the boards; begun and ended by somebody else.
    root: the workspace, in which commands are started.
    remote: where `s` submits to; empty for where the category was trained last.
    """

    TITLE = "train watch"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012  # as App has it
    CSS_PATH = "app.tcss"
    # The first two are the ones that a narrow screen must not cut off.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("s", "submit", "run"),
        Binding("c", "cancel", "cancel"),
        Binding("p", "errand('pull')", "pull"),
        Binding("g", "errand('grade')", "grade"),
        Binding("h", "hand_in", "hand in"),
        Binding("o", "report", "report"),
        Binding("v", "turn", "curves"),
        Binding("escape", "put_away", show=False),
    ]

    def __init__(self, gathering: Gathering, root: Path, remote: str = "") -> None:
        # Said here too: else NO_COLOR would draw the terminal's own colours as black on black.
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.errands: list[Errand] = []
        self._gathering = gathering
        self._root = root
        self._remote = remote
        self._board: Board | None = None
        self._category = ""
        # The row that somebody chose: a category's name, or a run's id.
        self._chosen = ""
        self._head = Words("head", "looking")
        self._categories = Rows("categories", _CATEGORIES)
        self._runs = Rows("runs", _RUNS)
        self._run = Words("run")
        self._usage = Words("usage")
        self._lines = Words("lines")
        self._curves = Curves()
        self._said = Words("said")
        self._on_success: dict[Errand, Callable[[], str]] = {}

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._categories
        yield self._runs
        yield self._run
        yield self._usage
        with Horizontal(id="detail"):
            with VerticalScroll(id="log") as log:
                yield self._lines
            log.anchor()
            yield self._curves
        yield self._said
        yield Footer()

    def on_mount(self) -> None:
        self._said.display = False
        self.set_interval(_LOOK_S, self._look)

    def _look(self) -> None:
        if not self.screen_stack:
            return  # it is being closed
        if self._gathering.has_ended:
            self.exit()
        for errand in tuple(self.errands):
            self._look_at(errand)
        board = self._gathering.board
        if board is not None and board is not self._board:
            before, self._board = self._board, board
            self._show(board)
            if before is None or bool(before.exam) != bool(board.exam):
                self.refresh_bindings()

    def _show(self, board: Board) -> None:
        self._head.write(_head(board))
        categories = {
            view.name: (view.name, view.points, view.state, view.metric)
            for view in board.categories
        }
        cut = _NOTE_CHARACTERS if self.screen.has_class("-narrow") else None
        runs = {
            run.run_id: (
                *(run.run_id, run.state, run.note[:cut], run.epoch, run.time, run.cost, run.remote),
            )
            for run in board.runs
        }
        detail = board.detail
        run = board.run(detail.run_id) if detail is not None else None
        if not self._chosen:
            first = next((view.name for view in board.categories), "")
            self._category = run.category if run is not None else first
        view = board.category(self._chosen)
        if view is not None and run is not None and view.run_id not in ("", run.run_id):
            self._gathering.look_at(view.run_id)
        # Until somebody has chosen a row, the cursor shows which run is told of.
        stays = bool(self._chosen)
        self._categories.fill(categories, self._category, stays=stays)
        self._runs.fill(runs, run.run_id if run is not None else "", stays=stays)
        if detail is None or run is None:
            return
        self._run.write(f"{run.run_id}: {run.progress}{f', {run.note}' if run.note else ''}")
        self._usage.write("\n".join(detail.usage))
        self._lines.write("\n".join(detail.log) or "no log yet")
        self._curves.show(detail.charts)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Somebody chose a row."""
        if event.row_key.value is not None:
            self._choose(event.row_key.value)

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Who comes to the runs chooses the one that is lit; it may be of another category."""
        table = self._runs
        if event.widget is table and table.is_valid_row_index(table.cursor_row):
            self._choose(str(list(table.rows)[table.cursor_row].value))

    def _choose(self, name: str) -> None:
        board = self._board
        if board is None:
            return
        self._chosen = name
        run = board.run(name)
        self._category = run.category if run else name
        view = board.category(self._category)
        self._gathering.look_at(run.run_id if run else view.run_id if view else "")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys the footer names."""
        if action == "hand_in":
            return self._board is not None and bool(self._board.exam)
        return action != "turn" or self.screen.has_class("-narrow")

    def action_submit(self) -> None:
        board = self._board
        if board is None or not self._category:
            return
        view = board.category(self._category)
        remote = (
            self._remote
            or (view.remote if view else "")
            or next((run.remote for run in board.runs), "")
        )
        where = ("--remote", remote) if remote else ()
        self._ask(
            f"run {self._category}{f' on {remote}' if remote else ''}?",
            ("run", self._category, *where, "--detach", "--yes"),
        )

    def action_cancel(self) -> None:
        detail = self._board.detail if self._board else None
        run = self._board.run(detail.run_id) if self._board and detail else None
        if run is None or run.has_ended:
            self._say("the chosen run has ended" if run else "no run is chosen")
        else:
            self._ask(f"cancel {run.run_id}?", ("cancel", run.run_id))

    def action_hand_in(self) -> None:
        if self._category:
            self._ask(f"hand in the model of {self._category}?", ("submit", self._category))

    def action_errand(self, word: str) -> None:
        if self._category:
            self._begin((word, self._category))

    def action_report(self) -> None:
        file = self._root / ".train" / "report.html"

        def opened() -> str:
            return f"{'opened' if open_page(file.as_uri()) else 'it is in'} {file}"

        self._begin(("report", "-o", str(file)), opened)

    def action_turn(self) -> None:
        self.screen.toggle_class("curves")

    def action_help(self) -> None:
        self.push_screen(Question(_HELP))

    def action_put_away(self) -> None:
        self._say("")

    def _ask(self, question: str, words: Sequence[str]) -> None:
        def answered(is_yes: bool | None) -> None:
            if is_yes:
                self._begin(words)

        self.push_screen(Question(f"{question}   y / n"), answered)

    def _begin(self, words: Sequence[str], on_success: Callable[[], str] | None = None) -> None:
        errand = Errand(self._root, words)
        self.errands.append(errand)
        if on_success is not None:
            self._on_success[errand] = on_success
        self._say(f"{errand.name} ...")

    def _look_at(self, errand: Errand) -> None:
        end = errand.end()
        if end is None:
            return
        self.errands.remove(errand)
        went_well, said = end
        on_success = self._on_success.pop(errand, None)
        if went_well and on_success is not None:
            said = on_success()
        how = "done" if went_well else "did not go well"
        self._say(f"{errand.name}: {how} (esc puts this away)\n{said}".strip())
        self._gathering.look_at()

    def _say(self, text: str) -> None:
        self._said.write(text)
        self._said.display = bool(text)
        # One that changes again while it is being shown for the first time keeps its first height.
        self.call_after_refresh(self._said.refresh, layout=True)


def _head(board: Board) -> str:
    """What is true of the whole; the first line is there always."""
    remotes = [view.text for view in board.remotes if view.is_fresh]
    others = [view.text for view in board.remotes if not view.is_fresh]
    first = ", ".join((board.workspace, *(remotes or ([] if others else ["no run goes on"]))))
    lines = (board.trouble, first, *others, board.exam, *board.sessions)
    advice = f"next: {board.advice}" if board.advice else ""
    return "\n".join(line for line in (*lines, advice) if line)
