"""The terminal: where progress is printed and questions are asked. Progress goes to stderr."""

from __future__ import annotations

import getpass
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.cells import cell_len
from rich.console import Console as Rich
from rich.console import Group
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from orchestrator.hostkeys import Asker
from orchestrator.logview import LogView
from orchestrator.printable import printable
from orchestrator.size import format_size

# A user who sees nothing for longer wonders whether it hangs.
_SILENCE_LIMIT_S = 1.5
# A file or a pipe has no width; a table broken at 80 columns could not be searched.
_NO_WIDTH = 10_000
# Below this a column of words is harder to read than a list.
_WORDS_WIDTH = 20


class Console:
    """A Teller and an Asker for a person, or a Teller for a file that a person will read.

    On a terminal the present doings are one line that is redrawn; elsewhere they are repeated
    as lines whenever nothing else was said for a while.

    Args:
        to_stdout: whether logs are the result (`train logs`) and not progress.
    """

    def __init__(self, *, to_stdout: bool = False) -> None:
        self.err = _rich(stderr=True)
        self.out = _rich(stderr=False)
        # Where both are the terminal, one of them must do it all, or the line that is redrawn
        # runs into the log.
        both = self.err.is_terminal and self.out.is_terminal
        self._logs = self.out if to_stdout and not both else self.err
        self._name_jobs = not to_stdout
        self._views: dict[str, LogView] = {}
        self._doing = ""
        self._since = self._spoke = time.monotonic()
        self._live: Live | None = None
        self._end = threading.Event()
        self._ticker: threading.Thread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._since = self._spoke = time.monotonic()
        if self.err.is_terminal and not self.err.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._line,
                console=self.err,
                transient=True,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        else:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for job, view in self._views.items():
            self._print_lines(job, view.finish())
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._ticker is not None:
            self._end.set()
            self._ticker.join()

    def step(self, text: str) -> None:
        self._print(self.err, Text(f"• {printable(text)}"))

    def warn(self, text: str) -> None:
        self._print(self.err, Text(f"! {printable(text)}", style="yellow"))

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        text = printable(text)
        if total:
            text += f" {format_size(done)} of {format_size(total)} ({100 * done // total} %)"
        elif done:
            text += f" {format_size(done)}"
        if text.partition(" ")[0] != self._doing.partition(" ")[0]:
            self._since = time.monotonic()
        self._doing = text

    def log(self, job: str, data: bytes) -> None:
        view = self._views.setdefault(job, LogView())
        self._print_lines(job, view.feed(data))

    def result(self, renderable: object) -> None:
        """Something the user asked for; to stdout."""
        self._print(self.out, renderable)

    def asker(self) -> Asker | None:
        """Who answers questions; None where nobody would see them or could answer."""
        is_person = sys.stdin is not None and sys.stdin.isatty() and self.err.is_terminal
        return self if is_person else None

    def trust(self, host: str, key_type: str, fingerprint: str) -> bool:
        with self._quiet():
            sys.stderr.write(
                f"{printable(host)} is not known yet. Its {printable(key_type)} key is\n"
                f"  {fingerprint}\n"
                "Compare it with what the machine's console or your provider shows.\n"
                "Trust this machine? [y/N] "
            )
            sys.stderr.flush()
            return sys.stdin.readline().strip().lower() in ("y", "yes")

    def passphrase(self, key: str) -> str | None:
        with self._quiet():
            try:
                return getpass.getpass(f"Passphrase of {printable(key)}: ", stream=sys.stderr)
            except EOFError:
                return None

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """The line that is redrawn would overwrite a question and its answer."""
        if self._live is None:
            yield
            return
        self._live.stop()
        try:
            yield
        finally:
            self._since = time.monotonic()
            self._live.start()

    def _print_lines(self, job: str, lines: list[str]) -> None:
        for line in lines:
            text = Text(f"{job} │ ", style="dim") if self._name_jobs else Text()
            self._print(self._logs, text.append(line, style="not dim"))

    def _print(self, console: Rich, renderable: object) -> None:
        # A line may be as long as it is; only tables are fitted to the screen.
        soft_wrap = not isinstance(renderable, Table)
        if isinstance(renderable, Table):
            renderable = _fitted(renderable, console.width)
        with self._lock:
            console.print(renderable, soft_wrap=soft_wrap)
            self._spoke = time.monotonic()

    def _line(self) -> Spinner:
        bars = [view.current for view in self._views.values() if view.current]
        text = f"{self._doing} ({time.monotonic() - self._since:.0f} s)" if self._doing else ""
        line = Text(" │ ".join([text, *bars]), no_wrap=True)
        line.truncate(max(1, self.err.width - 3))
        return Spinner("dots", line)

    def _tick(self) -> None:
        while not self._end.wait(0.25):
            if time.monotonic() - self._spoke >= _SILENCE_LIMIT_S:
                seconds = time.monotonic() - self._since
                self._print(self.err, Text(f"  {self._doing or 'working'} ({seconds:.0f} s)"))


def _rich(*, stderr: bool) -> Rich:
    made = Rich(stderr=stderr, highlight=False, markup=False)
    if made.is_terminal:
        return made
    return Rich(stderr=stderr, highlight=False, markup=False, width=_NO_WIDTH)


def _fitted(table: Table, width: int) -> Table | Group:
    """The table; where the screen is too narrow for it, its rows one below the other."""
    if sum(map(_needs, table.columns)) + 3 * (len(table.columns) - 1) <= width:
        return table
    rows: list[Text | Padding] = []
    for first, *others in zip(*(column.cells for column in table.columns), strict=True):
        rows.append(Text(str(first), style="bold"))
        parts = []
        for column, cell in zip(table.columns[1:], others, strict=True):
            if str(cell):
                name = Text(f"{column.header}: " if column.header else "", style="dim")
                parts.append(Text.assemble(name, cell if isinstance(cell, Text) else str(cell)))
        rows.append(Padding(Text(", ").join(parts), (0, 0, 0, 2)))
    return Group(*rows)


def _needs(column: Column) -> int:
    longest = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    return longest if column.no_wrap else min(longest, _WORDS_WIDTH)
