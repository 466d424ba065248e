"""A lock has one holder, dies with it, and is not disturbed by those who look."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote.lock import holding, is_held, take
from tests.forks import at_once, fork


def taken(path: Path, *, shared: bool = False) -> int:
    descriptor = take(path, shared=shared)
    assert descriptor is not None
    return descriptor


def test_the_second_does_not_get_it_until_the_first_lets_go(tmp_path: Path) -> None:
    lock = tmp_path / "a lock, 'ugly'\n"
    assert not is_held(lock)
    first = taken(lock)
    assert is_held(lock)
    assert take(lock) is None
    os.close(first)
    assert not is_held(lock)
    os.close(taken(lock))


def test_sharers_share_and_keep_an_exclusive_one_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    sharers = [taken(lock, shared=True), taken(lock, shared=True)]
    assert take(lock) is None
    assert not is_held(lock)  # only a lock of one's own counts as held
    os.close(sharers.pop())
    assert take(lock) is None
    os.close(sharers.pop())
    alone = taken(lock)
    assert take(lock, shared=True) is None
    os.close(alone)


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    ready, done = os.pipe()

    def hold() -> None:
        taken(lock)
        os.write(done, b"x")
        signal.pause()

    child = fork(hold)
    os.read(ready, 1)
    assert is_held(lock)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not is_held(lock)
    os.close(taken(lock))
    os.close(ready)
    os.close(done)


def program(*descriptors: int) -> subprocess.Popen[bytes]:
    """One that runs until its input ends; it is there when this returns."""
    started = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=bool(descriptors),
        pass_fds=descriptors,
    )
    assert started.stdout is not None
    started.stdout.readline()
    return started


def test_a_program_started_meanwhile_does_not_hold_it(tmp_path: Path) -> None:
    with holding(tmp_path / "lock"):
        started = program()
    held = is_held(tmp_path / "lock")
    started.communicate(b"\n")
    assert not held


def test_a_program_that_is_handed_the_descriptor_holds_it_on(tmp_path: Path) -> None:
    with holding(tmp_path / "lock") as descriptor:
        started = program(descriptor)
    held = is_held(tmp_path / "lock")
    started.communicate(b"\n")
    assert held
    assert not is_held(tmp_path / "lock")


def test_one_who_only_looks_never_keeps_anybody_from_taking_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"

    def look() -> None:
        while True:
            is_held(lock)

    lookers = [fork(look), fork(look)]
    refused = 0
    for _ in range(1500):
        descriptor = take(lock)
        if descriptor is None:
            refused += 1
        else:
            os.close(descriptor)
    for looker in lookers:
        os.kill(looker, signal.SIGKILL)
        os.waitpid(looker, 0)
    assert refused == 0


def test_one_at_a_time_is_inside(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count(number: int) -> None:
        for _ in range(3):
            with holding(tmp_path / "lock"):
                counter.write_text(str(int(counter.read_text()) + 1))

    assert at_once(4, count) == [0] * 4
    assert counter.read_text() == "12"


def test_whoever_waits_is_asked_meanwhile_and_may_give_up(tmp_path: Path) -> None:
    first = taken(tmp_path / "lock")
    asked = 0

    def meanwhile() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError), holding(tmp_path / "lock", meanwhile=meanwhile):
        pass
    os.close(first)
    assert not is_held(tmp_path / "lock")


def test_the_lock_is_free_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), holding(tmp_path / "lock"):
        raise KeyError
    assert not is_held(tmp_path / "lock")


def test_a_folder_that_is_not_there_is_an_error_and_not_a_free_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "none" / "lock")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = taken(tmp_path / "lock")
    for _ in range(10):
        take(tmp_path / "lock")
        is_held(tmp_path / "lock")
    os.close(held)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
