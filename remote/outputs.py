"""The outputs of a run: which files the declared patterns mean, and their digests."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, Set, Tuple

from remote.protocol import CHUNK_BYTES
from remote.runfolder import Artifact
from remote.tree import BadTree, check_path

# The laptop is told of all of them in the head of one frame (HEAD_LIMIT_BYTES), which leaves 670
# bytes for each.
LIMIT = 50_000

Tell = Callable[[str], None]


def find_outputs(
    tree: Path, patterns: Iterable[str], tell: Tell = lambda trouble: None
) -> Tuple[Artifact, ...]:
    """The regular files in `tree` that the patterns name, hashed, sorted by path, each once.

    A pattern is a path, a glob, or a folder (then all files below it). Links are left out: what
    they point to need not be the run's. What cannot be read, and what comes after the first LIMIT,
    is left out with a word to `tell`.
    """

    def unreadable(error: OSError) -> None:
        name = os.path.relpath(error.filename, tree) if error.filename else "an output"
        tell(f"{name!r} cannot be read: {error.strerror}")

    paths: Set[str] = set()
    for pattern in patterns:
        try:
            paths.update(_matches(tree, pattern, unreadable))
        except OSError as error:
            unreadable(error)
    if len(paths) > LIMIT:
        tell(f"of {len(paths)} outputs only the first {LIMIT} are recorded")
    found: List[Artifact] = []
    for path in sorted(paths)[:LIMIT]:
        try:
            found.append(_hash(tree, path))
        except OSError as error:
            unreadable(error)
    return tuple(found)


def _matches(tree: Path, pattern: str, unreadable: Callable[[OSError], None]) -> Iterator[str]:
    for found in _found(tree, pattern):
        if found.is_symlink():
            continue
        if found.is_dir():
            for folder, _, names in os.walk(str(found), onerror=unreadable):
                for name in names:
                    yield from _plain(tree, Path(folder) / name)
        else:
            yield from _plain(tree, found)


def _found(tree: Path, pattern: str) -> List[Path]:
    if os.path.lexists(tree / pattern):
        return [tree / pattern]  # its name may hold what a glob takes for its own
    # Python 3.13 reads `**` inside a name like `*`, earlier ones refuse it.
    parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.split("/")]
    try:
        return list(tree.glob("/".join(parts)))
    except re.error:
        return []  # Python 3.8, of a range that holds nothing: `[z-a]`


def _plain(tree: Path, path: Path) -> Iterator[str]:
    relative = path.relative_to(tree).as_posix()
    if any((tree / parent).is_symlink() for parent in Path(relative).parents):
        return
    try:
        check_path(relative)
    except BadTree:
        return
    if stat.S_ISREG(path.lstat().st_mode):
        yield relative


def _hash(tree: Path, relative: str) -> Artifact:
    digest, size_bytes = hashlib.sha256(), 0
    with (tree / relative).open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
            size_bytes += len(block)
    return Artifact(relative, size_bytes, digest.hexdigest())
