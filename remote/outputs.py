"""The outputs of a run: which files the declared patterns mean, and their digests."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, Set, Tuple

from remote.protocol import CHUNK_BYTES, share_of_head
from remote.runfolder import Artifact
from remote.tree import BadTree, check_path

LIMIT = 50_000
# The laptop is told of all of them in the head of one frame, beside the state and other runs.
LIMIT_SHARE = 0.75

Tell = Callable[[str], None]


def find_outputs(
    tree: Path, patterns: Iterable[str], tell: Tell = lambda trouble: None
) -> Tuple[Artifact, ...]:
    """The regular files in `tree` that the patterns name, hashed, sorted by path, each once.

    A pattern is a path, a glob, or a folder (then all files below it). Links are left out: what
    they point to need not be the run's. Of what a pattern names itself, that it is a link or no
    file; of what cannot be read, and of what comes after the first LIMIT, or of long names fewer,
    `tell` is told.
    """

    def unreadable(error: OSError) -> None:
        name = os.path.relpath(error.filename, tree) if error.filename else "an output"
        tell(f"{name!r} cannot be read: {error.strerror}")

    paths: Set[str] = set()
    for pattern in patterns:
        try:
            paths.update(_matches(tree, pattern, unreadable, tell))
        except OSError as error:
            unreadable(error)
    some = _as_many_as_can_be_told(sorted(paths))
    if len(some) < len(paths):
        tell(f"of {len(paths)} outputs only the first {len(some)} are recorded")
    found: List[Artifact] = []
    for path in some:
        try:
            found.append(_hash(tree, path))
        except OSError as error:
            unreadable(error)
    return tuple(found)


def _as_many_as_can_be_told(paths: List[str]) -> List[str]:
    share = 0.0
    for count, path in enumerate(paths[:LIMIT]):
        share += share_of_head([path])
        if share > LIMIT_SHARE:
            return paths[:count]
    return paths[:LIMIT]


def _matches(
    tree: Path, pattern: str, unreadable: Callable[[OSError], None], tell: Tell
) -> Iterator[str]:
    for found in _found(tree, pattern):
        mode = found.lstat().st_mode
        left_out = ""
        if stat.S_ISLNK(mode) or _is_behind_link(tree, found):
            left_out = "a link, or behind one"
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            left_out = "no file"
        if left_out:
            if found == tree / pattern:
                tell(f"{pattern!r} is {left_out}, and is left out")
        elif stat.S_ISDIR(mode):
            for folder, _, names in os.walk(str(found), onerror=unreadable):
                for name in names:
                    yield from _plain(tree, Path(folder) / name)
        else:
            yield from _plain(tree, found)


def _found(tree: Path, pattern: str) -> List[Path]:
    try:
        (tree / pattern).lstat()
        return [tree / pattern]  # its name may hold what a glob takes for its own
    except (FileNotFoundError, NotADirectoryError):
        pass
    # Python 3.13 reads `**` inside a name like `*`, earlier ones refuse it.
    parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.split("/")]
    try:
        return list(tree.glob("/".join(parts)))
    except re.error:
        return []  # Python 3.8, of a range that holds nothing: `[z-a]`


def _plain(tree: Path, path: Path) -> Iterator[str]:
    relative = path.relative_to(tree).as_posix()
    try:
        check_path(relative)
    except BadTree:
        return
    if stat.S_ISREG(path.lstat().st_mode):
        yield relative


def _is_behind_link(tree: Path, path: Path) -> bool:
    return any((tree / parent).is_symlink() for parent in path.relative_to(tree).parents)


def _hash(tree: Path, relative: str) -> Artifact:
    digest, size_bytes = hashlib.sha256(), 0
    with (tree / relative).open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
            size_bytes += len(block)
    return Artifact(relative, size_bytes, digest.hexdigest())
