"""A log as a person expects to see it: a progress bar that redraws itself is one line."""

from __future__ import annotations

import codecs
import re
from typing import BinaryIO

from orchestrator.screen.printable import printable

# Keras 2 goes back by backspaces, Keras 3 by a carriage return; both redraw the whole line.
_MARKS = re.compile("(\n|\r|[\b]+)")
_LINE_LIMIT = 10_000
_BLOCK_BYTES = 2**16
# A line that is longer has its end shown, from here on.
_TAIL_LIMIT_BYTES = 2**24


class LogView:
    """Turns bytes as they come into lines; in whatever pieces they come, the lines are the same."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drawn = ""  # what the line last looked like, before it began to be drawn again
        self._open = ""  # what came since then, raw

    @property
    def current(self) -> str:
        """The line being drawn now, such as a progress bar; empty between lines."""
        return printable(self._open).rstrip() or self._drawn

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now, each as it looked when it ended, harmless to print."""
        return self._take(self._decoder.decode(data))

    def finish(self) -> list[str]:
        """What is left when nothing more comes."""
        lines = self._take(self._decoder.decode(b"", final=True))
        last, self._drawn, self._open = self.current, "", ""
        return [*lines, last] if last else lines

    def _take(self, text: str) -> list[str]:
        lines = []
        for part in _MARKS.split(text):
            if part not in ("\n", "\r") and part[:1] != "\b":
                # The beginning of a line without end is enough.
                self._open = (self._open + part)[:_LINE_LIMIT]
                continue
            self._drawn, self._open = self.current, ""
            if part == "\n":
                lines.append(self._drawn)
                self._drawn = ""
        return lines


def last_lines(file: BinaryIO, count: int, end: int | None = None) -> int:
    """Where the last `count` lines of a file begin; no more than its last 16 MiB are looked at.

    Args:
        end: where the file is taken to end; None for all of it.
    """
    size_bytes = start = file.seek(0, 2) if end is None else end
    limit = max(0, size_bytes - _TAIL_LIMIT_BYTES)
    while count and start > limit:
        end, start = start, max(limit, start - _BLOCK_BYTES)
        file.seek(start)
        block = file.read(end - start)
        # The mark at the very end ends the last line and begins none.
        at = len(block) - (end == size_bytes and block.endswith(b"\n"))
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            count -= 1
            if not count:
                return start + at + 1
    return start
