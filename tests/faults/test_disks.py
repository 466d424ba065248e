"""Disks that are full, read-only or odd, on either machine: said, survived, and gone on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disk import fill, make_room, quota_disk, small_disk, use_up_inodes
from tests.faults.points import chosen, tell
from tests.faults.scene import set_up, train_until_done
from tests.faults.truth import Scene
from tests.laptop import Finished, Laptop
from tests.servers import SshServer, embedded

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

# Beyond it, all of a run finds room: our program, the tree twice, a log, the model.
VM_KIB, VM_INODES = 1501, 70
# The ledger, a copy of the log, the model on the shelf and in its folder.
LAPTOP_KIB, LAPTOP_INODES = 1100, 60

FULL = ("no space left", "bytes free, the upload needs", "no more files fit", "quota for")


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[SshServer]:
    """Its user's home is a small disk."""
    with (
        small_disk(tmp_path / "machine" / "home", 8192, inodes=500),
        embedded(tmp_path / "machine") as server,
    ):
        yield server


def says_what_is_full(done: Finished) -> bool:
    """Whether it ended as it must where the VM has no room, with what to do about it."""
    return (
        done.returncode in (1, 5)
        and any(words in done.stderr for words in FULL)
        and ("train gc" in done.stderr or "remove files of yours" in done.stderr)
        and "this is a bug" not in done.stderr
    )


def finishes(laptop: Laptop, scene: Scene, done: Finished) -> None:
    """Now that there is room, the same command finishes the job: in the run that it made before
    (`done`), or in another if that one failed.
    """
    if done.returncode:
        train_until_done(laptop)
    assert scene.lies_when_done() == []
    assert len(list(scene.store.glob("runs/*-*"))) == (2 if done.returncode == 1 else 1)


def test_a_vm_with_so_much_room_left(vm: SshServer, tmp_path: Path) -> None:
    points = chosen(range(0, VM_KIB, 4), few=6)
    for left_kib in points:
        laptop, scene = set_up(tmp_path / f"{left_kib}", vm, vm.port)
        fill(vm.home, left_kib)
        done = laptop.train("--remote", "far")
        make_room(vm.home)
        assert done.returncode == 0 or says_what_is_full(done), f"{left_kib}: {done.stderr}"
        assert scene.lies() == [], left_kib
        if "setup-failed" in done.stderr:
            assert list(scene.store.glob("runs/*/tree")) == []
        finishes(laptop, scene, done)
    tell("disk full on the VM", len(points), "said; with room, the same command finishes the job")


def test_a_vm_with_room_for_so_many_files(vm: SshServer, tmp_path: Path) -> None:
    points = chosen(range(VM_INODES))
    for left in points:
        laptop, scene = set_up(tmp_path / f"{left}", vm, vm.port)
        use_up_inodes(vm.home, left)
        done = laptop.train("--remote", "far")
        make_room(vm.home)
        assert done.returncode == 0 or says_what_is_full(done), f"{left}: {done.stderr}"
        assert done.returncode == 0 or "no more files fit" in done.stderr, f"{left}: {done.stderr}"
        assert scene.lies() == [], left
        finishes(laptop, scene, done)
    tell("inodes gone on the VM", len(points), "said; with some, the same command finishes the job")


# The first output is whole before the disk is full, and nothing is freed at the end.
FILLING = """\
import os, pathlib
pathlib.Path("b/mymodel.h5").write_bytes(b"a model")
try:
    with open(os.path.join(os.environ["HOME"], "filler"), "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    print("x" * 5000, flush=True)
"""


def test_a_run_that_fills_the_disk_itself_is_told_and_loses_nothing(
    vm: SshServer, tmp_path: Path
) -> None:
    laptop, scene = set_up(tmp_path / "laptop", vm, vm.port)
    laptop.add_job("b", script=FILLING)
    done = laptop.train("b", "--remote", "far")
    assert done.returncode == 1
    assert says_what_is_full(done), done.stderr
    # Still full.
    assert set(laptop.states().values()) == {"failed"}
    assert len(list(laptop.root.glob(".train/models/*/mymodel.h5"))) == 1
    assert scene.lies() == []
    make_room(vm.home)
    laptop.ok("a", "--remote", "far")
    assert scene.lies_when_done() == []
    tell("a run fills the VM's disk", 1, "it ends as failed, told why; what it finished is home")


def test_a_vm_whose_user_has_so_much_quota_left(tmp_path: Path) -> None:
    limits = chosen(range(256, 4096, 64), few=2)
    with (
        quota_disk(tmp_path / "machine" / "home") as allow_kib,
        embedded(tmp_path / "machine") as vm,
    ):
        for limit_kib in limits:
            allow_kib(None)
            laptop, scene = set_up(tmp_path / f"{limit_kib}", vm, vm.port)
            allow_kib(limit_kib)
            done = laptop.train("--remote", "far")
            allow_kib(None)
            assert done.returncode == 0 or says_what_is_full(done), f"{limit_kib}: {done.stderr}"
            assert scene.lies() == [], limit_kib
            finishes(laptop, scene, done)
    tell("quota used up on the VM", len(limits), "said; with more, the same command finishes")


def says_laptop_is_full(done: Finished) -> bool:
    fixes = ("make room on that disk", "free some disk space", "free some space")
    return (
        done.returncode == 2
        and any(fix in done.stderr for fix in fixes)
        and "this is a bug" not in done.stderr
    )


def test_a_laptop_with_so_much_room_left(embedded_server: SshServer, tmp_path: Path) -> None:
    points = chosen(range(0, LAPTOP_KIB, 4))
    for left_kib in points:
        with small_disk(tmp_path / f"{left_kib}", 4096) as disk:
            laptop, scene = set_up(disk / "user", embedded_server, embedded_server.port)
            fill(disk, left_kib)
            done = laptop.train("--remote", "far")
            assert done.returncode == 0 or says_laptop_is_full(done), f"{left_kib}: {done.stderr}"
            assert scene.lies() == [], left_kib
            make_room(disk)
            finishes(laptop, scene, done)
    tell("disk full on the laptop", len(points), "said; with room, the same command goes on")


def test_a_laptop_with_room_for_so_many_files(embedded_server: SshServer, tmp_path: Path) -> None:
    points = chosen(range(LAPTOP_INODES))
    for left in points:
        with small_disk(tmp_path / f"{left}", 4096, inodes=200) as disk:
            laptop, scene = set_up(disk / "user", embedded_server, embedded_server.port)
            use_up_inodes(disk, left)
            done = laptop.train("--remote", "far")
            assert done.returncode == 0 or says_laptop_is_full(done), f"{left}: {done.stderr}"
            assert scene.lies() == [], left
            make_room(disk)
            finishes(laptop, scene, done)
    tell("inodes gone on the laptop", len(points), "said; with some, the same command goes on")
