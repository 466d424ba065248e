"""The byte stream below SSH, where the tests of the connection do not get at it."""

from __future__ import annotations

import socket
import time

import pytest

from orchestrator.connection.line import Line


def test_a_far_end_that_takes_nothing_is_given_up_within_the_limit() -> None:
    near, far = socket.socketpair()
    line = Line(near, limit_s=0.2)
    line.settimeout(0.02)
    started = time.monotonic()
    with far, pytest.raises(ConnectionAbortedError, match=r"nothing taken for 0\.2 s"):
        send_for_ever(line)
    line.close()

    assert 0.2 <= time.monotonic() - started < 10


def test_a_far_end_that_takes_something_now_and_then_is_not_given_up() -> None:
    near, far = socket.socketpair()
    line = Line(near, limit_s=1.0)
    line.settimeout(0.2)
    timeouts = 0
    with far:
        while timeouts < 8:
            try:
                line.send(bytes(2**16))
            except TimeoutError:
                timeouts += 1
                if timeouts % 2:
                    far.recv(2**20)
    line.close()


def send_for_ever(line: Line) -> None:
    while True:
        try:
            line.send(bytes(2**16))
        except TimeoutError:
            continue


def test_what_was_said_is_shown_without_control_characters_and_not_at_length() -> None:
    near, far = socket.socketpair()
    line = Line(near, limit_s=1)
    with far:
        far.sendall(b"\x1b[2Jhello\r\n\tthere \xff" + b"x" * 5000)
        for _ in range(10):
            line.recv(100)
    line.close()

    assert line.said().startswith("[2Jhello there \ufffdxxx")
    assert len(line.said()) <= 200
