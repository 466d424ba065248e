"""Where progress is printed and questions are asked. Progress goes to stderr.

rich is imported only for a terminal: it takes longer than many a command.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from orchestrator.screen.headway import Headway
from orchestrator.screen.logview import LogView
from orchestrator.screen.printable import printable
from orchestrator.screen.table import Table

if TYPE_CHECKING:
    from rich.live import Live

    from orchestrator.connection.hostkeys import Asker
    from orchestrator.screen.terminal import Terminal

# A user who sees nothing for longer wonders whether it hangs; of what was told before and goes on,
# less and less often is enough.
_SILENCE_LIMIT_S = 1.5
_REPEAT_LIMIT_S = 60.0
# By which users tell programs that a pipe ends at a terminal.
_TOLD = {"FORCE_COLOR", "TTY_COMPATIBLE"}


class Console:
    """A Teller and an Asker for a person, or a Teller for a file that a person will read.

    On a terminal the present doings are one line that is redrawn; elsewhere they are lines, told
    whenever nothing else was said for a while, and the same again ever more seldom.

    Args:
        to_stdout: whether logs are the result (`train logs`) and not progress.
    """

    def __init__(self, *, to_stdout: bool = False) -> None:
        self.err = _screen("stderr")
        self.out = _screen("stdout")
        # Where both are the terminal, one of them must do it all, or the line that is redrawn
        # runs into the log.
        both = self.err.is_terminal and self.out.is_terminal
        self._logs = self.out if to_stdout and not both else self.err
        self._name_jobs = not to_stdout
        self._views: dict[str, LogView] = {}
        self._doing = ""
        self._headway: Headway | None = None
        self._silence_s = _SILENCE_LIMIT_S
        self._since = self._spoke = time.monotonic()
        self._live: Live | None = None
        self._end = threading.Event()
        self._ticker: threading.Thread | None = None
        self._lock = threading.Lock()
        self._asking = threading.Lock()

    def __enter__(self) -> Self:
        self._since = self._spoke = time.monotonic()
        self._live = self.err.live(self._line)
        if self._live is not None:
            self._live.start()
        else:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for job in self._views:
            self.log_ends(job)
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._ticker is not None:
            self._end.set()
            self._ticker.join()

    def step(self, text: str) -> None:
        with self._speaking():
            self.err.say(f"• {printable(text)}")

    def warn(self, text: str) -> None:
        with self._speaking():
            self.err.say(f"! {printable(text)}", "yellow")

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        text = printable(text).expandtabs()
        now, headway = time.monotonic(), self._headway
        if headway is None or text != self._doing or headway.total != total:
            headway = Headway(done, total, now)
        headway.see(done, now)
        self._headway = headway if done or total else None
        if text != self._doing:
            self._silence_s = _SILENCE_LIMIT_S
        if text.partition(" ")[0] != self._doing.partition(" ")[0]:
            self._since = now
        self._doing = text

    def log(self, job: str, data: bytes) -> None:
        view = self._views.setdefault(job, LogView())
        self._print_lines(job, view.feed(data))

    def log_ends(self, job: str) -> None:
        if job in self._views:
            self._print_lines(job, self._views[job].finish())

    def result(self, found: Table | str) -> None:
        """Something the user asked for; to stdout."""
        # As with logs: the line that is redrawn must know of what is said above it.
        screen = self.err if self._live is not None and self.out.is_terminal else self.out
        with self._speaking():
            if isinstance(found, Table):
                screen.show(found)
            else:
                screen.say(found)

    def prose(self, text: str) -> None:
        """Sentences the user asked for; to stdout, broken between words where that is a screen."""
        with self._speaking():
            self.out.tell(text)

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
            import getpass

            try:
                return getpass.getpass(f"Passphrase of {printable(key)}: ", stream=sys.stderr)
            except EOFError:
                return None

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """One question at a time; the line that is redrawn would overwrite it and its answer."""
        with self._asking:
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
        with self._speaking():
            for line in lines:
                self._logs.log(job if self._name_jobs else "", line)

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        with self._lock:
            yield
            self._spoke = time.monotonic()

    def _line(self, width: int) -> str:
        # A tab's width is not known before it is drawn.
        bars = [view.current.expandtabs() for view in self._views.values() if view.current]
        text = _fitting(self._doing, self._forms(), width) if self._doing else ""
        return " │ ".join([text, *bars])

    def _forms(self) -> list[str]:
        """How far what goes on has come, ever shorter."""
        now, headway = time.monotonic(), self._headway
        return list(headway.forms(now)) if headway else [f"({now - self._since:.0f} s)"]

    def _tick(self) -> None:
        while not self._end.wait(0.25):
            if time.monotonic() - self._spoke >= self._silence_s:
                with self._speaking():
                    self.err.say(f"  {self._doing or 'working'} {self._forms()[0]}")
                self._silence_s = min(self._silence_s * 1.5, _REPEAT_LIMIT_S)


def _fitting(text: str, forms: Iterable[str], width: int) -> str:
    """With the longest form that fits; where none does, the text is cut."""
    form = ""
    for form in forms:
        if len(text) + 1 + len(form) <= width:
            return f"{text} {form}"
    return f"{text[: max(0, width - len(form) - 2)]}… {form}"


class Pipe:
    """A file or another program that reads along: no colours, and lines as long as they are.

    Args:
        name: `stdout` or `stderr`, whichever that is when something is said.
    """

    is_terminal = False

    def __init__(self, name: str) -> None:
        self._name = name

    def say(self, text: str, style: str = "") -> None:
        self._write(f"{text.expandtabs()}\n")

    def tell(self, text: str) -> None:
        self.say(text)

    def log(self, job: str, line: str) -> None:
        self.say(f"{job} │ {line}" if job else line)

    def show(self, table: Table) -> None:
        self._write("".join(f"{line}\n" for line in table.lines()))

    def live(self, line: object) -> None:
        """Nothing is redrawn."""

    def _write(self, text: str) -> None:
        stream = getattr(sys, self._name)
        if stream is None:
            return  # closed by who started us
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError:
            # Who read along has seen enough, `head` for one. Python flushes again when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise SystemExit(1) from None


def _screen(name: str) -> Terminal | Pipe:
    stream = getattr(sys, name)
    # What makes rich take a pipe for a terminal, or the other way round, is left to rich.
    if (stream is None or not stream.isatty()) and not _TOLD & os.environ.keys():
        return Pipe(name)
    from rich.console import Console as Rich

    rich = Rich(stderr=name == "stderr", highlight=False, markup=False)
    if not rich.is_terminal:
        return Pipe(name)
    from orchestrator.screen.terminal import Terminal

    return Terminal(rich)
