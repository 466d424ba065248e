"""The code of past runs, content by content, so that two of them can be compared and each restored.

.train/code/objects/aa/<sha256>     a content, each once
.train/code/trees/<digest>          a tree's manifest; its time is that of its last run
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from difflib import unified_diff
from pathlib import Path, PurePosixPath

from orchestrator.errors import UsageError
from orchestrator.filelock import alone
from orchestrator.size import format_size
from orchestrator.source.snapshot import LocalTree
from remote.atomic import naming, temporary_beside
from remote.tree import LINK, Entry, Tree, decode_tree, digest_of

# Code is smaller; what is larger is data that nobody declared, and nobody would compare.
FILE_LIMIT_BYTES = 1024 * 1024
# Of all that is kept; what belongs to the oldest runs goes first.
LIMIT_BYTES = 256 * 1024 * 1024


class PastCode:
    """Of one workspace."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "code"

    def keep(self, code: LocalTree, limit_bytes: int = LIMIT_BYTES) -> None:
        """Keep a tree, as far as its files are small and still what they were when it was taken.

        Only what is new is written. A crash leaves a content whole or not at all, and no manifest
        before its contents were tried.

        Raises:
            OSError: it cannot be written.
        """
        manifest = self._manifest(code.digest)
        with suppress(FileNotFoundError):
            # What a power cut spoilt is written anew.
            if digest_of(manifest.read_bytes()) == code.digest:
                os.utime(manifest)
                return
        with alone(self.folder / "lock"):
            for path, entry in code.tree.items():
                target = self._object(entry.sha256)
                if entry.sha256 and entry.size_bytes <= FILE_LIMIT_BYTES and not target.exists():
                    _copy(code.folder / path, target, entry.sha256)
            manifest.parent.mkdir(parents=True, exist_ok=True)
            _write(manifest, code.manifest)
            self._drop(limit_bytes)

    def find(self, text: str) -> str | None:
        """The digest of a kept tree that begins so; None where none does, or several do."""
        folder = self.folder / "trees"
        names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names, not paths
        found = [name for name in names if name.startswith(text)]
        return found[0] if len(found) == 1 else None

    def tree(self, digest: str) -> Tree:
        """Raises:
        UsageError: it is not kept.
        """
        try:
            data = self._manifest(digest).read_bytes()
        except FileNotFoundError:
            data = b""
        if digest_of(data) != digest:
            raise UsageError(
                f"the code {digest[:12]} is not kept here",
                cause="it is of before code was kept, or older than what there is room for",
            )
        return decode_tree(data)

    def content(self, entry: Entry) -> bytes | None:
        """None where it is not kept."""
        try:
            data = self._object(entry.sha256).read_bytes()
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == entry.sha256 else None

    def restore(self, digest: str, target: Path) -> list[str]:
        """Write a tree's files into a folder; returns those that are not kept.

        Links are written as small files would be: as links, which stay in the tree.
        """
        lacking = []
        for path, entry in self.tree(digest).items():
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if entry.kind == LINK:
                file.unlink(missing_ok=True)
                file.symlink_to(entry.target)
                continue
            data = self.content(entry)
            if data is None:
                lacking.append(path)
                continue
            # What stands there may be a link to elsewhere, or a second name of another file.
            _write(file, data)
            file.chmod(0o755 if entry.executable else 0o644)
        return lacking

    def differing(self, digest: str, target: Path) -> list[str]:
        """Files of a folder that restoring a tree there would change."""
        found = []
        for path, entry in self.tree(digest).items():
            file = target / path
            same = (
                file.is_symlink() and os.readlink(file) == entry.target  # noqa: PTH115 - its text
                if entry.kind == LINK
                else file.is_file() and _sha256(file) == entry.sha256
            )
            if os.path.lexists(file) and not same:
                found.append(path)
        return found

    def diff(self, old: str, new: str, without: Iterable[PurePosixPath] = ()) -> Iterator[str]:
        """What changed from one tree to another, as `diff -u` has it; no lines for nothing.

        Args:
            without: folders that are passed over.
        """
        before, after = self.tree(old), self.tree(new)
        left_out = tuple(without)
        for path in sorted(before.keys() | after.keys()):
            one, two = before.get(path), after.get(path)
            if one == two or any(PurePosixPath(path).is_relative_to(f) for f in left_out):
                continue
            yield from self._diff_file(path, one, two)

    def _diff_file(self, path: str, one: Entry | None, two: Entry | None) -> Iterator[str]:
        before, after = self._text(one), self._text(two)
        if before is None or after is None or before == after:
            yield f"{path}: {_said(one)} -> {_said(two)}"
            return
        old, new = (f"a/{path}" if one else "/dev/null"), (f"b/{path}" if two else "/dev/null")
        yield from unified_diff(before, after, old, new, lineterm="")

    def _text(self, entry: Entry | None) -> list[str] | None:
        """Its lines; None where it is not kept, or no text."""
        if entry is None:
            return []
        data = entry.target.encode() if entry.kind == LINK else self.content(entry)
        if data is None or b"\0" in data:
            return None
        return data.decode("utf-8", "replace").splitlines()

    def _drop(self, limit_bytes: int) -> None:
        """Keep within bounds; the newest tree stays, whatever its size."""
        folder = self.folder / "trees"
        manifests = sorted(folder.iterdir(), key=lambda file: -file.stat().st_mtime_ns)
        wanted: dict[str, int] = {}
        size_bytes = 0
        for number, manifest in enumerate(manifests):
            data = manifest.read_bytes()
            if digest_of(data) != manifest.name:
                manifest.unlink()  # a kill or a power cut left it
                continue
            tree = decode_tree(data)
            new = {
                entry.sha256: entry.size_bytes
                for entry in tree.values()
                if entry.sha256 not in wanted and entry.size_bytes <= FILE_LIMIT_BYTES
            }
            size_bytes += sum(new.values()) + manifest.stat().st_size
            if number and size_bytes > limit_bytes:
                for old in manifests[number:]:
                    old.unlink(missing_ok=True)
                break
            wanted |= new
        else:
            return
        for file in (self.folder / "objects").glob("*/*"):
            if file.name not in wanted:
                file.unlink()

    def _object(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256[:2] / sha256

    def _manifest(self, digest: str) -> Path:
        return self.folder / "trees" / digest


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Of what was changed since it was hashed there is nothing to keep."""
    with suppress(FileNotFoundError, IsADirectoryError):
        with source.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
        if hashlib.sha256(data).hexdigest() == sha256:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, data)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all. Not flushed to the disk: what a power cut spoils has another digest,
    and a flush for each file would take longer than the run's way to the VM.
    """
    temporary = temporary_beside(path)
    try:
        with naming(path):
            temporary.write_bytes(data)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _said(entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    what = entry.target or f"{format_size(entry.size_bytes)}, sha256 {entry.sha256[:12]}"
    return f"{what}{', executable' if entry.executable else ''}"
