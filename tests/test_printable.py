"""Nothing that a VM says can steer the terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConnectError
from orchestrator.screen.printable import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("tab\tstays", "tab\tstays"),
        ("a\nb\r", r"a\nb\r"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x1b\\", "link"),
        ("\x1b", r"\x1b"),
        ("\x1b[999", r"\x1b[999"),
        ("\x9b2J", r"\x9b2J"),
        ("exe\u202egpj.h5", r"exe\u202egpj.h5"),
        ("\ud800", r"\ud800"),
        ("\x00\x7f", r"\x00\x7f"),
        ("prüfung 試験 😀", "prüfung 試験 😀"),
        ("", ""),
    ],
)
def test_sequences_vanish_and_other_controls_are_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_sequence_cannot_be_put_together_from_what_is_left() -> None:
    assert "\x1b" not in printable("\x1b\x1b[31m[31m")


@given(st.text())
def test_the_result_is_one_line_without_controls(text: str) -> None:
    shown = printable(text)

    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c != "\t" for c in shown)
    assert not set("\u200e\u200f\u202a\u202e\u2066\u2069") & set(shown)
    shown.encode("utf-8")


@given(st.text())
def test_what_is_printable_stays_as_it_is(text: str) -> None:
    assert printable(printable(text)) == printable(text)


def test_a_text_without_end_is_cut() -> None:
    for text in ("x" * 10**6, "\x1b" * 10**6):
        assert len(printable(text)) == 10_000
        assert printable(text).endswith(" ...")
    assert printable("x" * 10_000) == "x" * 10_000


def test_only_the_last_lines_are_shown_each_made_printable() -> None:
    text = "".join(f"line {number}\x07\n" for number in range(30))

    assert printable_lines(text, 2) == "line 28\\x07\nline 29\\x07"
    assert printable_lines("") == ""


def test_an_error_that_repeats_a_servers_words_stays_harmless_line_by_line() -> None:
    evil = "a\x1b]0;title\x07\x1b[2J\x9b\rb"
    error = ConnectError(f"{evil}\nand more", fix=evil)
    error.__cause__ = OSError(evil)

    assert error.render().split("\n") == [
        r"error: a\x9b\rb",
        "and more",
        r"cause: OSError: a\x9b\rb",
        r"fix:   a\x9b\rb",
    ]
