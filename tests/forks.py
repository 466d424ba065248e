"""Other processes for a test: several at once, and one that is killed at each of its steps."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator

# What Python reports (sys.addaudithook) before it changes a file system.
_CHANGES = (
    "open os.link os.symlink os.mkdir os.rename os.remove os.rmdir os.chmod os.utime os.truncate"
)


def fork(action: Callable[[], object]) -> int:
    """Do it in a child; returns its process id. The child exits with 0, or 1 after an exception."""
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; the child does not touch what they may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        action()
    except BaseException:  # noqa: BLE001  # a child must never go on as a second pytest
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def at_once(count: int, action: Callable[[int], object]) -> list[int]:
    """Do it in so many processes that start together; returns their exit codes."""
    start, go = os.pipe()

    def wait_and_do(number: int) -> None:
        os.close(go)
        os.read(start, 1)  # until the parent closes its end
        action(number)

    children = []
    for number in range(count):
        children.append(fork(lambda number=number: wait_and_do(number)))  # type: ignore[misc]
    os.close(start)
    os.close(go)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


def killed_at_each_step(
    action: Callable[[int], object], prepare: Callable[[int], object] = lambda step: None
) -> Iterator[int]:
    """Do `action(step)` in a child that is killed (SIGKILL) just before its step-th change of the
    file system, for every step from 0 until one gets through; yields after each kill.

    Args:
        prepare: is done before, in this process.
    """
    for step in itertools.count():
        prepare(step)
        pid = fork(lambda step=step: _do_until(step, action))  # type: ignore[misc]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 0:
            assert step > 1, "an action without steps proves nothing"
            return
        assert code == -signal.SIGKILL, f"the child failed at step {step}"
        yield step


def _do_until(step: int, action: Callable[[int], object]) -> None:
    before_each_change(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    action(step)


def before_each_change(step: int, strike: Callable[[], object]) -> Callable[[], int]:
    """Call `strike` just before this process's step-th change of the file system, from now on.

    Returns:
        What tells how many there were so far, to any thread.
    """
    changes = frozenset(_CHANGES.split())
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in changes or (event == "open" and not _writes(arguments)):
            return
        count += 1
        if count == step + 1:
            strike()

    sys.addaudithook(watch)
    return lambda: count


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
