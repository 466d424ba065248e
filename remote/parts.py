"""A file that comes in parts, in any order, over several lines at once.

    <name>              what has come without a gap, from the first byte on
    <name>.<begin>-*    a part, from that byte on; its size tells how far it came

A part is written once, by the one who made it, and nobody goes on with it: what it lacks becomes
another part. So after a cut at any byte the files' sizes say what has come, there is nothing to
keep in step with them, and those who bring the same file at once cannot spoil each other's parts.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import BinaryIO, Iterable, List, Tuple, Union

from remote.protocol import Span


def new_part(whole: Path, begin: int) -> Path:
    """A name for a part of the file `whole`, which nobody else uses."""
    return whole.with_name(f"{whole.name}.{begin}-{secrets.token_hex(8)}")


def write_all(file: BinaryIO, block: Union[bytes, bytearray]) -> None:
    """Write to a file without a buffer, which takes less than all, silently, as the disk fills up.

    Raises:
        OSError: no space, after what there was is used.
    """
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def find_parts(whole: Path) -> List[Tuple[Span, Path]]:
    """The parts that lie beside `whole`, in the order of their first bytes; none is empty."""
    found = []
    for path in whole.parent.glob(f"{whole.name}.*-*"):
        begin = path.name[len(whole.name) + 1 :].partition("-")[0]
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            continue  # another has just joined it
        if begin.isdecimal() and size_bytes:
            found.append((Span(int(begin), int(begin) + size_bytes), path))
    return sorted(found, key=lambda part: part[0].begin)


def covered(spans: Iterable[Span], begin: int, end: int) -> Tuple[Span, ...]:
    """What `spans` hold between `begin` and `end`, without overlaps, in order."""
    merged: List[Span] = []
    for span in sorted(spans, key=lambda span: span.begin):
        first, last = max(span.begin, begin), min(span.end, end)
        if merged and first <= merged[-1].end:
            first, last = merged[-1].begin, max(last, merged[-1].end)
            merged.pop()
        if first < last:
            merged.append(Span(first, last))
    return tuple(merged)


def gaps(spans: Iterable[Span], begin: int, end: int) -> Tuple[Span, ...]:
    """What is left between `begin` and `end` beside `spans`, in order."""
    left = []
    for span in (*covered(spans, begin, end), Span(end, end)):
        if begin < span.begin:
            left.append(Span(begin, span.begin))
        begin = span.end
    return tuple(left)


def discard_parts(whole: Path) -> None:
    """Remove all parts of the file."""
    for path in whole.parent.glob(f"{whole.name}.*-*"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
