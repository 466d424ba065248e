"""Disks that are too small: a file system of a known size, filled until so much is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_FILLER = "filler"


@contextlib.contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    """`mount *words folder` for the block; what was in there is gone after it."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root mounts a disk")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *words, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no such disk here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: what a failed test has left running in there must not keep it.
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def small_disk(
    folder: Path, size_kib: int, inodes: int = 0, options: str = "exec"
) -> Iterator[Path]:
    """An empty disk of that size; `inodes` is how many files it holds, 0 for any number."""
    options = f"size={size_kib}k,nr_inodes={inodes},mode=0755,{options}"
    with mounted(folder, "-t", "tmpfs", "-o", options, "small") as disk:
        yield disk


def fill(disk: Path, left_kib: int) -> None:
    """Leave room for so much, in whole pages."""
    make_room(disk)
    status = os.statvfs(disk)
    size_bytes = status.f_bavail * status.f_frsize - left_kib * 1024
    with (disk / _FILLER).open("wb") as file:
        if size_bytes > 0:
            os.posix_fallocate(file.fileno(), 0, size_bytes)


def use_up_inodes(disk: Path, left: int) -> None:
    """Leave room for so many files."""
    make_room(disk)
    (disk / _FILLER).mkdir()
    for number in range(os.statvfs(disk).f_ffree - left):
        (disk / _FILLER / str(number)).touch()


def make_room(disk: Path) -> None:
    """Undo `fill` or `use_up_inodes`."""
    filler = disk / _FILLER
    if filler.is_dir():
        shutil.rmtree(filler)
    filler.unlink(missing_ok=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """What is in the folder can be read, and that is all."""
    # In two steps, because a first bind ignores the option.  Source: mount(8).
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield


@contextlib.contextmanager
def quota_disk(folder: Path) -> Iterator[Callable[[int | None], None]]:
    """A disk whose user may be allowed only so many KiB; None for any number."""
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("no mkfs.btrfs; on Debian and Ubuntu: apt install btrfs-progs")
    image = folder.with_name("disk.img")
    image.parent.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(128 * 2**20)
    subprocess.run(["mkfs.btrfs", "--quiet", "--mixed", image], check=True)

    def btrfs(*words: object) -> None:
        subprocess.run(["btrfs", *map(str, words)], check=True, capture_output=True)

    def allow_kib(limit: int | None) -> None:
        # What was removed a moment ago counts until it is committed.
        btrfs("filesystem", "sync", folder)
        btrfs("qgroup", "limit", "none" if limit is None else f"{limit}K", folder)

    with mounted(folder, "-o", "loop", str(image)):
        btrfs("quota", "enable", folder)
        yield allow_kib
