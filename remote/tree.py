"""A file tree as data: its entries, its canonical bytes, and the digest that names it."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from json.encoder import encode_basestring_ascii
from typing import Dict, Mapping, NamedTuple

FILE = "file"
LINK = "link"

# Linux: NAME_MAX and PATH_MAX, in bytes.
NAME_LIMIT_BYTES = 255
PATH_LIMIT_BYTES = 4000
# 2**53 is where other JSON readers stop being exact; no file here is larger.
SIZE_LIMIT_BYTES = 2**53

_HEX = re.compile("[0-9a-f]{64}")
# In ASCII; most paths are, and one look at them is enough.
_PLAIN_NAME = r"(?!\.\.?(?:/|\Z))[^/\0]{1,255}"
_PLAIN_PATH = re.compile(f"{_PLAIN_NAME}(?:/{_PLAIN_NAME})*")


class BadTree(ValueError):
    """A manifest that names what a tree of ours cannot hold. The text says which entry and why."""


class Entry(NamedTuple):
    """One file or symbolic link of a tree. A tuple: 100,000 are made in a third of the time.

    Attributes:
        kind: FILE or LINK.
        sha256: of the content, 64 hex digits; empty for a link.
        target: where a link points, relative to its own folder; empty for a file.
    """

    kind: str
    size_bytes: int
    sha256: str
    executable: bool
    target: str = ""


Tree = Dict[str, Entry]
"""Entries by path: relative, separated by `/`, no empty folder."""


def encode_tree(tree: Mapping[str, Entry]) -> bytes:
    """The canonical bytes of a tree: equal trees give equal bytes, on every machine."""
    text = encode_basestring_ascii
    rows = []
    for path in sorted(tree):
        kind, size_bytes, sha256, executable, target = tree[path]
        word = "true" if executable else "false"
        # As json.dumps writes it, in a third of the time. Kind and digest need no escape.
        rows.append(f'[{text(path)},"{kind}",{size_bytes},"{sha256}",{word},{text(target)}]')
    return f"[{','.join(rows)}]".encode("ascii")


def digest_of(manifest: bytes) -> str:
    """What names the tree of these canonical bytes."""
    return hashlib.sha256(manifest).hexdigest()


def content_sizes(tree: Mapping[str, Entry]) -> Dict[str, int]:
    """Of each content of the tree, in bytes, by digest, in order."""
    sizes = {entry.sha256: entry.size_bytes for entry in tree.values() if entry.sha256}
    return dict(sorted(sizes.items()))


def decode_tree(data: bytes) -> Tree:
    """The tree in `data`, every entry checked.

    Raises:
        BadTree: not the form of `encode_tree`, a name that leaves the tree, a link that does, a
            path that is both file and folder, or the same path twice.
    """
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadTree("not JSON") from error
    if not isinstance(rows, list):
        raise BadTree("not a list of entries")
    tree: Tree = {}
    for row in rows:
        path, entry = _decode_row(row)
        if path in tree:
            raise BadTree(f"{path!r} stands twice")
        tree[path] = entry
    check_folders(tree)
    return tree


def read_tree(manifest: bytes) -> Tree:
    """As `decode_tree`, of bytes whose digest tells that they were checked before."""
    return {path: Entry(*rest) for path, *rest in json.loads(manifest)}


def check_folders(tree: Mapping[str, Entry]) -> None:
    """Raises:
    BadTree: a path is both file and folder.
    """
    known = {""}
    for path in tree:
        folder = posixpath.dirname(path)
        while folder not in known:
            if folder in tree:
                raise BadTree(f"{folder!r} is a {tree[folder].kind} and a folder at once")
            known.add(folder)
            folder = posixpath.dirname(folder)


def check_path(path: str) -> None:
    """Accept a relative path of plain names, else say what is wrong with it.

    Raises:
        BadTree: absolute, empty, `.` or `..` parts, NUL, longer than Linux takes, or no text that
            a file name can hold.
    """
    if path.isascii() and len(path) <= PATH_LIMIT_BYTES and _PLAIN_PATH.fullmatch(path):
        return
    raw = _raw(path)
    if not path or path.startswith("/"):
        raise BadTree(f"{path[:80]!r} is not a relative path")
    if len(raw) > PATH_LIMIT_BYTES:
        raise BadTree(f"{path[:80]!r}... is longer than {PATH_LIMIT_BYTES} bytes")
    if "\0" in path:
        raise BadTree(f"{path[:80]!r} holds a NUL")
    for name in path.split("/"):
        if name in ("", ".", ".."):
            raise BadTree(f"{path[:80]!r} is not made of plain names")
        if len(_raw(name)) > NAME_LIMIT_BYTES:
            raise BadTree(f"{name[:80]!r}... is longer than {NAME_LIMIT_BYTES} bytes")


def _raw(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadTree(f"{name[:80]!r} is no file name") from error


def link_leaves(path: str, target: str) -> bool:
    """Whether a link at `path` to `target` points out of the tree, read as text alone."""
    if not target or target.startswith("/"):
        return True
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return resolved == ".." or resolved.startswith("../")


def is_digest(text: str) -> bool:
    """Whether `text` is 64 lower-case hex digits."""
    return _HEX.fullmatch(text) is not None


def _decode_row(row: object) -> tuple[str, Entry]:
    if not (isinstance(row, list) and len(row) == 6):
        raise BadTree("an entry is not a list of six")
    path, kind, size_bytes, sha256, executable, target = row
    # bool is an int to isinstance, hence the exact types.
    if [type(part) for part in row] != [str, str, int, str, bool, str]:
        name = path[:80] if isinstance(path, str) else type(path).__name__
        raise BadTree(f"entry {name!r} has a part of the wrong type")
    check_path(path)
    if kind == LINK:
        if sha256 or size_bytes or executable:
            raise BadTree(f"link {path[:80]!r} has a content")
        if len(_raw(target)) > PATH_LIMIT_BYTES or "\0" in target or link_leaves(path, target):
            raise BadTree(f"link {path[:80]!r} points to {target[:80]!r}, outside the tree")
    elif kind != FILE or target or not is_digest(sha256):
        raise BadTree(f"entry {path[:80]!r} is neither a file nor a link")
    elif not 0 <= size_bytes < SIZE_LIMIT_BYTES:
        raise BadTree(f"{path[:80]!r} has the size {size_bytes}")
    return path, Entry(kind, size_bytes, sha256, executable, target)
