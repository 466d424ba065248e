"""Logs as a person expects to see them, however their bytes come."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.screen.logview import LogView, last_lines

# What Keras 2 writes (a bar wiped by backspaces), and Keras 3 (carriage returns, colours).
KERAS_2 = (
    b"Epoch 1/2\n 1/10 [=>...] - loss: 0.9" + b"\b" * 25 + b"10/10 [====] - loss: 0.5\nEpoch 2/2\n"
)
KERAS_3 = (
    b"Epoch 1/2\n\r\x1b[1m 1/10\x1b[0m \x1b[37m--\x1b[0m loss: 0.9\r\x1b[1m10/10\x1b[0m loss: 0.5\n"
)


def lines(*pieces: bytes) -> list[str]:
    view = LogView()
    return [line for piece in pieces for line in view.feed(piece)] + view.finish()


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (KERAS_2, ["Epoch 1/2", "10/10 [====] - loss: 0.5", "Epoch 2/2"]),
        (KERAS_3, ["Epoch 1/2", "10/10 loss: 0.5"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\n\n", ["", ""]),
        (b"no end", ["no end"]),
        (b"cut \xc3", ["cut \N{REPLACEMENT CHARACTER}"]),
        (b"bar 3/3\r\x1b[K\n", ["bar 3/3"]),
        (b"bar 3/3\r   \n", ["bar 3/3"]),
        (b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m\n", ["red"]),
        (b"bell\x07 \x9b2J\n", [r"bell\x07 " + "\N{REPLACEMENT CHARACTER}2J"]),
        ("Größe 試\n".encode(), ["Größe 試"]),
        (b"", []),
    ],
)
def test_a_line_is_shown_as_it_looked_when_it_ended(log: bytes, shown: list[str]) -> None:
    assert lines(log) == shown


def test_the_line_being_drawn_is_known_before_it_ends() -> None:
    view = LogView()
    assert view.feed(b"\r 1/10 loss: 0.9") == []
    assert view.current == " 1/10 loss: 0.9"
    assert view.feed(b"\r 2/10 loss: 0.8") == []
    assert view.current == " 2/10 loss: 0.8"
    assert view.feed(b"\ndone") == [" 2/10 loss: 0.8"]
    assert view.current == "done"


def test_a_character_cut_in_two_pieces_stays_one() -> None:
    whole = "é試😀\n".encode()
    assert lines(*(bytes([byte]) for byte in whole)) == ["é試😀"]


def test_a_line_without_end_takes_no_more_memory_than_its_limit() -> None:
    view = LogView()
    for _ in range(50):
        view.feed(b"x" * 10_000)

    assert view.current == "x" * 10_000
    assert len(view._open) == 10_000


def test_a_bar_that_is_redrawn_a_thousand_times_is_one_line() -> None:
    steps = b"".join(b"\r%4d/1000 loss: 0.1" % step for step in range(1001))
    assert lines(steps, b"\n") == ["1000/1000 loss: 0.1"]


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from(
            [b"\n", b"\r", b"\r\n", b"\b\b", b"\x1b[1m", b"\x1b[", b"\x1b]0;t", b"\x07", b"loss"]
        ),
        st.text(max_size=5).map(lambda text: text.encode("utf-8", "surrogatepass")),
    ),
    max_size=30,
)


@given(PIECES)
def test_the_lines_are_the_same_in_whatever_pieces_the_log_comes(pieces: list[bytes]) -> None:
    assert lines(*pieces) == lines(b"".join(pieces))


@given(st.lists(st.binary(min_size=1, max_size=9000), min_size=2, max_size=4))
def test_so_are_those_that_are_too_long_to_keep(pieces: list[bytes]) -> None:
    pieces = [piece.ljust(9000, b"x") for piece in pieces]
    assert lines(*pieces) == lines(b"".join(pieces))


@given(st.binary(max_size=300))
def test_whatever_comes_is_harmless_to_print(log: bytes) -> None:
    for line in lines(log):
        assert "\x1b" not in line
        assert all(c.isprintable() or c in "\t" or ord(c) > 0x9F for c in line)


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=9))
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_last_lines_are_those_that_tail_shows(end: bytes, texts: list[bytes]) -> None:
    log = b"\n".join(texts) + end
    lines = log.removesuffix(b"\n").split(b"\n")
    for count in range(len(texts) + 2):
        shown = log[last_lines(io.BytesIO(log), count) :]
        assert shown.removesuffix(b"\n") == b"\n".join(lines[-count:] if count else [])


class Sparse(io.BytesIO):
    """A gigabyte of one line, of which what is read is counted."""

    read_bytes = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return 10**9 if whence == 2 else offset

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        self.read_bytes += size
        return b"x" * size


def test_the_last_lines_of_a_gigabyte_without_an_end_are_looked_for_in_its_last_part() -> None:
    file = Sparse()
    assert last_lines(file, 1) == 10**9 - 2**24
    assert file.read_bytes == 2**24
