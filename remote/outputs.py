"""The outputs of a run: which files the declared patterns mean, and their digests."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Iterable, Iterator, List, Tuple

from remote.protocol import CHUNK_BYTES
from remote.runfolder import Artifact
from remote.tree import BadTree, check_path


def find_outputs(tree: Path, patterns: Iterable[str]) -> Tuple[Artifact, ...]:
    """The regular files in `tree` that the patterns name, hashed, sorted by path, each once.

    A pattern is a path, a glob, or a folder (then all files below it). Links are left out: what
    they point to need not be the run's.

    Raises:
        OSError: a file cannot be read.
    """
    paths = {path for pattern in patterns for path in _matches(tree, pattern)}
    return tuple(_hash(tree, path) for path in sorted(paths))


def _matches(tree: Path, pattern: str) -> Iterator[str]:
    for found in _found(tree, pattern):
        if found.is_symlink():
            continue
        if found.is_dir():
            for folder, _, names in os.walk(str(found)):
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
