"""What the file system of the store says no to, for the user: what it means, and what mends it."""

from __future__ import annotations

import errno
from pathlib import Path

from remote.protocol import No
from remote.room import is_full, say_full

# What flock says where there are none: NFS without its lock service, some FUSE file systems.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)

_MOVE = (
    "put it on a disk of the machine itself, with a link in its place: "
    "ln -s /DISK/trainshed ~/.trainshed"
)


class SlurmTrouble(OSError):
    """One of Slurm's commands is not there, did not answer, or said no; in its own words."""


def explain(error: OSError, root: Path) -> No:
    """The refusal that tells of it; in its fix, NAME is the machine, whatever the laptop calls it.

    Args:
        root: the store's.
    """
    if isinstance(error, SlurmTrouble):
        return No("slurm", f"Slurm refused: {error}", "see: train doctor NAME")
    said = error.strerror or str(error)
    if error.filename is not None:
        said += f": {error.filename}"
    if is_full(error):
        fix = "free some: train gc NAME, or remove files of yours there"
        return No("disk-full", say_full(error, root), fix)
    if error.errno in _NO_LOCKS:
        message = f"the file system of {root} has no locks (flock), which keep runs apart"
        return No("no-locks", message, _MOVE)
    if error.errno == errno.EROFS:
        message = f"the file system of {root} is read-only"
        return No("store", message, "mount it for writing; if it was, see dmesg: the disk may fail")
    if error.errno == errno.EACCES:
        return No("store", said, f"let its user write there: ls -ld ~ {root}")
    if error.errno == errno.EPERM:
        fix = f"if it is not another user's file, its file system keeps no permissions: {_MOVE}"
        return No("store", said, fix)
    return No("system", said)
