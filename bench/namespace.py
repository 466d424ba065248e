"""Network namespaces that live as long as this process or what runs in them. Needs root."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # Source: linux/sched.h
_LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network of its own, with TCP tuned as it is outside.

    Raises:
        OSError: this user may not.
    """

    def __init__(self) -> None:
        outside = _current()
        _check(_LIBC.unshare(_CLONE_NEWNET))
        try:
            self._file = _current()
            ip("link", "set", "lo", "up")
            # Otherwise a connection's slow start would depend on the one before it.
            Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
        finally:
            _enter(outside)
            os.close(outside)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside, and the processes it starts; a socket stays where it is made."""
        outside = _current()
        _enter(self._file)
        try:
            yield
        finally:
            _enter(outside)
            os.close(outside)

    def close(self) -> None:
        os.close(self._file)


def ip(*words: str) -> None:
    """iproute2's program, in the namespace this thread is in."""
    subprocess.run(["ip", *words], check=True)


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(file: int) -> None:
    _check(_LIBC.setns(file, _CLONE_NEWNET))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
