"""The event files of a run, of which TensorBoard makes its pictures: found, and read as they grow.

There are two places for them: the run's folder `events`, where our own callback writes, and the
tree, where a script may write its own. Files are named by their paths below either; our own are in
folders `fit-1`, `fit-2`, ..., so that the two do not get into each other's way.
"""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, Callable, Dict, List, Tuple

from remote.protocol import Events, News, Piece
from remote.runfolder import RunFolder
from remote.tree import BadTree, check_path

Tick = Callable[[], None]

# What TensorBoard takes for an event file.  Source: tensorboard/backend/event_processing/
# io_wrapper.py, `IsSummaryEventsFile`.
MARK = "tfevents"

# Beyond what anybody looks at; what comes later is left out.
FILES_LIMIT = 1000

# Of one answer: well below what a frame may hold, and nothing that a training would notice.
ANSWER_LIMIT_BYTES = 4 * 2**20

# Each record ends in a checksum of its own and holds the time, so no two files are alike for long.
_TAIL_BYTES = 1024


def read_events(folder: RunFolder, call: Events, tick: Tick = lambda: None) -> Tuple[News, bytes]:
    """What there is beyond what the laptop has, as much as goes into one answer."""
    have = {file.name: file for file in call.have}
    pieces: List[Piece] = []
    body = bytearray()
    found = find_events(folder, tick)
    # What the laptop has goes on, and what is new takes the places that are left: else another
    # choice at each look would be more files together than it takes.
    new = sorted(found.keys() - have.keys())[: max(0, FILES_LIMIT - len(have))]
    for name in sorted([*(found.keys() & have.keys()), *new]):
        path = found[name]
        left = ANSWER_LIMIT_BYTES - len(body)
        try:
            with path.open("rb") as file:
                size_bytes = file.seek(0, os.SEEK_END)
                begin = 0
                if name in have and checksum(file, have[name].size_bytes) == have[name].tail:
                    begin = have[name].size_bytes  # else begun anew
                file.seek(begin)
                block = file.read(min(left, size_bytes - begin))
        except OSError:
            continue  # removed meanwhile, or not ours to read
        if block:
            pieces.append(Piece(folder.path.name, name, begin, len(block)))
            body += block
    return News((), tuple(pieces), ()), bytes(body)


def checksum(file: BinaryIO, end: int) -> int:
    """Of the last bytes before `end`; a file that was begun anew, and has grown beyond it since,
    has others there.
    """
    begin = max(0, end - _TAIL_BYTES)
    file.seek(begin)
    return zlib.crc32(file.read(end - begin))


def find_events(folder: RunFolder, tick: Tick = lambda: None) -> Dict[str, Path]:
    """All regular files by name. Links are left out: what they point to need not be the run's, and
    a run's data, which may be large, is behind one.
    """
    found: Dict[str, Path] = {}
    for root in (folder.events, folder.tree):
        for place, _, names in os.walk(str(root)):
            tick()
            for leaf in (leaf for leaf in names if MARK in leaf):
                path = Path(place, leaf)
                name = path.relative_to(root).as_posix()
                if is_event_name(name) and _is_file(path):
                    found.setdefault(name, path)
    return found


def is_event_name(name: str) -> bool:
    """Whether it is a plain relative path to what may be an event file. An editor's copy is none:
    the laptop marks with `~` the second and further beginnings of a file.
    """
    try:
        check_path(name)
    except BadTree:
        return False
    leaf = name.rpartition("/")[2]
    return MARK in leaf and "~" not in leaf and name.isprintable()


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
