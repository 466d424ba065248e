"""Room on a disk: whether there is any, and some set aside for a run's last words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from remote.atomic import temporary_beside

# A state and a list of some hundred outputs. Two files, because a disk may have no room for a
# further file where it has plenty for longer ones.
_ASIDE = (".aside-0", ".aside-1")
_ASIDE_BYTES = 32 * 2**10

# With less than the one and more than the other it is files that a disk has no room for.
_FEW_FILES, _SOME_BYTES = 64, 2**20


def is_full(error: OSError) -> bool:
    """Whether it says that the disk, or this user's share of it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def say_full(error: OSError, folder: Path) -> str:
    """What is used up where `folder` is, or would be.

    Args:
        error: for which `is_full` holds.
    """
    if error.errno == errno.EDQUOT:
        return f"the quota for {folder} is used up"
    status = os.statvfs(str(folder if folder.exists() else folder.parent))
    # What was half made is gone again, and a few with it. btrfs counts no inodes; XFS has none left
    # when the bytes are gone.
    few = status.f_files and status.f_favail < _FEW_FILES
    if few and status.f_bavail * status.f_frsize >= _SOME_BYTES:
        return f"no more files fit on the disk of {folder}, its inodes are used up"
    return f"no space left under {folder}"


def set_aside(folder: Path) -> None:
    """Take up some room in `folder`, for when there is none, where the file system can do that.

    Raises:
        OSError: there is none now.

    Source: posix_fallocate(3), Linux man-pages: later writes cannot fail for lack of space.
    """
    for name in _ASIDE:
        try:
            _take_up(folder / name)
        except OSError as error:
            if is_full(error):
                raise


def give_back(folder: Path) -> bool:
    """Free what was set aside; whether that was anything."""
    was_there = False
    for name in _ASIDE:
        try:
            (folder / name).unlink()
        except FileNotFoundError:
            continue
        was_there = True
    return was_there


def why_full(folder: Path) -> str:
    """What keeps a small file from being made in `folder` now; empty if there is room."""
    probe = temporary_beside(folder / "probe")
    try:
        _take_up(probe)
    except OSError as error:
        return say_full(error, folder) if is_full(error) else ""
    finally:
        probe.unlink() if probe.exists() else None
    return ""


def _take_up(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _ASIDE_BYTES)
    finally:
        os.close(descriptor)
