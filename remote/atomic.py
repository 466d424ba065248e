"""Writing files so that a reader, a crash or a full disk never shows half of one."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator


def temporary_beside(path: Path) -> Path:
    """A name nobody else uses, in the folder of `path`.

    The same folder, because rename is only atomic within one file system. Short and independent
    of the name it stands for, which may already be as long as a name can be.
    """
    return path.with_name(f".tmp-{secrets.token_hex(8)}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError in the block be about `path`: that of a write names no file, and that of a
    temporary file one that nobody knows.
    """
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Make `content` the whole content of `path`, or leave `path` as it was.

    A reader never sees a half-written file. After return the new content survives a power cut, as
    far as the file system keeps fsync's promise.

    Raises:
        OSError: no space, no permission; `path` is then unchanged and no temporary file is left.

    Source: rename(2) and fsync(2), Linux man-pages.
    """
    temporary = temporary_beside(path)
    try:
        with naming(path):
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink() if temporary.exists() else None
        raise
    sync_folder(path.parent)


def discard(path: Path) -> None:
    """Remove the file or folder, so that no half of it ever stands under its name.

    Gone already is no error. A crash leaves half a folder under a temporary name beside it.

    Raises:
        OSError: no permission.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    temporary = temporary_beside(path)
    try:
        path.rename(temporary)
    except FileNotFoundError:
        return
    # Shared data is read-only, and a job may have left folders that nothing can be removed from.
    temporary.chmod(0o700)
    for folder, names, _ in os.walk(str(temporary)):
        for inner in (Path(folder) / name for name in names):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(temporary)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut, where the system can do that."""
    # Windows cannot open a folder; NTFS journals the rename by itself.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
