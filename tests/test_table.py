"""Tables and lines in a pipe read as they do on a wide screen, without what draws the screen."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console as Rich

from orchestrator.screen.console import Console, Pipe
from orchestrator.screen.table import Cell, Table
from orchestrator.screen.terminal import Terminal

TEXTS = st.text(st.sampled_from("ab cü試│\u0301\x1b\n"), max_size=9).map(str.strip)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=4))
def test_a_table_in_a_pipe_is_the_one_of_a_screen_that_is_wide_enough(
    rows: list[tuple[str, str, str]],
) -> None:
    table = Table("run", ">cost", "~a note")
    for first, second, third in rows:
        table.add_row(first, Cell(second, "bold red"), third)
    screen = io.StringIO()
    Terminal(Rich(file=screen, width=1000, color_system=None)).show(table)

    # Only a screen is filled to its edge.
    shown = [line.rstrip() for line in screen.getvalue().removesuffix("\n").split("\n")]
    assert list(table.lines()) == shown


def test_columns_stand_below_each_other_whatever_is_in_them() -> None:
    table = Table("name", ">size", "~note")
    table.add_row("試験", "5", "a\tb")
    table.add_row("a\x1b[2J", "12345", "")

    assert list(table.lines()) == [
        "name    size   note",
        "────────────────────────",
        "試験       5   a       b",
        "a      12345",
    ]


def test_a_line_in_a_pipe_is_as_long_as_it_is_and_without_colours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console()
    console.warn("long " * 100)
    console.log("a", b"1 of 2\r2 of 2\nlast")
    console.result("[bold] is no markup :smile:")
    with console:
        pass
    told = capsys.readouterr()

    assert told.err == "! " + "long " * 100 + "\na │ 2 of 2\na │ last\n"
    assert told.out == "[bold] is no markup :smile:\n"


def test_whoever_wants_colours_in_a_pipe_gets_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(Console().err, Pipe)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    Console().warn("careful")

    assert "\x1b[33m! careful" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_bug() -> None:
    code = """
from orchestrator.screen.console import Console
console = Console()
while True:
    console.result("again " * 1000)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
