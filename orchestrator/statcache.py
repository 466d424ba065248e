"""Digests of files that have not changed since they were last read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from orchestrator.hashing import Known
from remote.atomic import replace_file

_FORM = 1
# A file changed twice within one tick of its file system's clock looks unchanged the second time.
# FAT has the longest tick.  Source: git's technical notes on "racy git"; FAT32 specification.
_TICK_NS = 2_000_000_000


class StatCache:
    """What is known of files by path, for as long as their size, times and inode stay.

    Args:
        file: where it is kept. A file that is missing, damaged or of another form counts as empty.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows = _load(file)
        self._changed = False

    def get(self, path: str, status: os.stat_result) -> Known | None:
        row = self._rows.get(path)
        if row is None or row[:4] != _marks(status):
            return None
        return Known(str(row[4]), bool(row[5]))

    def put(self, path: str, status: os.stat_result, known: Known, started_ns: int) -> None:
        """Remember, unless the file is so new that a change could still go unseen.

        Args:
            started_ns: when the scan began, before anything was read.
        """
        if status.st_mtime_ns <= started_ns - _TICK_NS:
            self._rows[path] = [*_marks(status), known.sha256, known.holds_key]
            self._changed = True

    def save(self, is_gone: Callable[[str], bool]) -> None:
        """Keep what is known, but of the files that are gone; a crash leaves the old cache."""
        gone = [path for path in self._rows if is_gone(path)]
        if not gone and not self._changed:
            return
        for path in gone:
            del self._rows[path]
        body = json.dumps([_FORM, self._rows], separators=(",", ":")).encode()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._file, _seal(body) + body)
        except OSError:
            # Without it the next scan is slower, and still right.
            pass


def _marks(status: os.stat_result) -> list[object]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _seal(body: bytes) -> bytes:
    # A flipped bit in a digest would otherwise be believed for ever.
    return hashlib.sha256(body).hexdigest().encode() + b"\n"


def _load(file: Path) -> dict[str, list[object]]:
    try:
        content = file.read_bytes()
    except OSError:
        return {}
    body = content[65:]
    if content[:65] != _seal(body):
        return {}
    # The seal says that it is a list of ours; the form, that it is one of this version.
    form, rows = json.loads(body)
    return dict(rows) if form == _FORM else {}
