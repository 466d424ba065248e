"""Every pulled file by its digest, so that none is ever lost to a better one.

.train/models/<sha256>/<name>
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from orchestrator.errors import ModelDamaged
from remote.atomic import naming, sync_folder, temporary_beside
from remote.protocol import CHUNK_BYTES

# A disk takes what many ask it to keep at about the price of one: of ten thousand small files, each
# takes 0.3 ms instead of 7 (ext4).
DISK_THREADS = 16


class Shelf:
    """Several threads may use it at once."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "models"
        self._verified: dict[Path, tuple[int, ...]] = {}

    def find(self, sha256: str) -> Path | None:
        """The kept file, if there is one."""
        folder = self.folder / sha256
        return next(iter(sorted(folder.iterdir())), None) if folder.is_dir() else None

    def keep(self, verified: Path, sha256: str, name: str) -> Path:
        """Move a verified file onto the shelf; if its content is there already, that one stays."""
        known = self.find(sha256)
        if known is not None:
            verified.unlink()
            return known
        folder = self.folder / sha256
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / name
        with naming(target), verified.open("r+b") as file:
            os.fsync(file.fileno())
        verified.replace(target)
        sync_folder(folder)
        self._verified[target] = _stamp(target)
        return target

    def adopt(self, path: Path) -> str:
        """Keep a copy of a file that did not come from a VM; returns its sha256."""
        self.folder.mkdir(parents=True, exist_ok=True)
        copy = temporary_beside(self.folder / "x")
        try:
            sha256 = _copy(path, copy, self.folder)
            self.keep(copy, sha256, path.name)
        finally:
            copy.unlink(missing_ok=True)
        return sha256

    def place(self, sha256: str, target: Path) -> None:
        """Put a copy where the exam expects it: the whole file or none of it, verified.

        Raises:
            ModelDamaged: the kept file no longer has its digest; `target` is as it was.
        """
        kept = self.find(sha256)
        if kept is None:
            raise ModelDamaged(f"no file with sha256 {sha256} is kept in {self.folder}")
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = temporary_beside(target)
        try:
            if self._verified.get(kept) == _stamp(kept):
                # Not again what this process has just done: it is most of what placing takes.
                with naming(target):
                    shutil.copyfile(kept, copy)
                    with copy.open("r+b") as file:
                        os.fsync(file.fileno())
            elif (found := _copy(kept, copy, target)) != sha256:
                raise ModelDamaged(
                    f"{kept} was changed on this laptop",
                    cause=f"its sha256 is now {found}",
                    fix=f"remove {kept.parent} and pull again",
                )
            os.replace(copy, target)
            sync_folder(target.parent)
        finally:
            copy.unlink(missing_ok=True)


def file_sha256(path: Path) -> str | None:
    """The file's digest; None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def file_copy(source: Path, target: Path) -> str:
    """Copy a file; returns the sha256 of what was copied."""
    return _copy(source, target, target)


def _stamp(path: Path) -> tuple[int, ...]:
    """Is another when the file was replaced or written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _copy(source: Path, target: Path, name: Path) -> str:
    """Returns the sha256; `name` is what the user knows the target by."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, naming(name), target.open("wb") as writing:
        while block := reading.read(CHUNK_BYTES):
            digest.update(block)
            writing.write(block)
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest()
