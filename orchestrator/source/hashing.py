"""One file, read to its end: its digest, and whether it begins like a private key."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[str, int], None]
"""Told a path and how many bytes of it have just been read."""

_BLOCK_BYTES = 1 << 20
_HEAD_BYTES = 64 << 10
_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY")
_TRIES = 3
# A link or named pipe may have taken the file's place: neither is followed nor waited for.
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_OPEN |= getattr(os, "O_BINARY", 0)


class Changing(Exception):
    """A file that is written to each time it is read."""


@dataclass(frozen=True)
class Known:
    """What reading a file told.

    Attributes:
        holds_key: a private key's header is in the first 64 KiB.
    """

    sha256: str
    holds_key: bool


def read_known(full: str, path: str, progress: Progress | None) -> tuple[os.stat_result, Known]:
    """What the file at `full` holds, and its status when it held that.

    Args:
        path: what to call it to `progress`.

    Raises:
        Changing: it was written to during each of three readings.
        OSError: it is gone, or cannot be read.
    """
    for _ in range(_TRIES):
        descriptor = os.open(full, _OPEN)
        try:
            before = os.fstat(descriptor)
            known = _read(descriptor, path, progress)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if _marks(before) == _marks(after) and stat.S_ISREG(after.st_mode):
            return after, known
    raise Changing(f"changed each of the {_TRIES} times it was read")


def _read(descriptor: int, path: str, progress: Progress | None) -> Known:
    digest = hashlib.sha256()
    head = b""
    while block := os.read(descriptor, _BLOCK_BYTES):
        head = head or block[:_HEAD_BYTES]
        digest.update(block)
        if progress is not None:
            progress(path, len(block))
    return Known(digest.hexdigest(), bool(_KEY.search(head)))


def _marks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
