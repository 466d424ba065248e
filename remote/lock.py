"""Locks that die with their holder: flock on a file that is never removed while in use."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Optional

# One who looks (`is_held`) holds a shared lock for microseconds, or until it gets the CPU again.
_LOOKS, _LOOK_S = 20, 0.002


def take(path: Path, *, shared: bool = False) -> Optional[int]:
    """The lock's file descriptor, or None where another holds it. Closing it frees the lock.

    Raises:
        OSError: the file cannot be opened, or the file system has no locks.

    Source: flock(2), Linux man-pages.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(_LOOKS):
            if _try(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                return descriptor
            # An exclusive lock has a holder. A shared one may be somebody's who only looks.
            if shared or not _try(descriptor, fcntl.LOCK_SH):
                break
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            time.sleep(_LOOK_S)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who only look do not take each other for the holder.
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


@contextmanager
def holding(
    path: Path, *, shared: bool = False, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[int]:
    """Wait for the lock, hold it for the block; `meanwhile` is called between the attempts.

    Yields:
        The lock's file descriptor. A process that inherits it holds the lock, too.
    """
    descriptor = take(path, shared=shared)
    while descriptor is None:
        meanwhile()
        time.sleep(0.05)
        descriptor = take(path, shared=shared)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
