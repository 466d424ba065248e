"""Models pulled: `train pull` of a run that has ended, against copying its file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.figures import OURS, Figure
from bench.programs import PEERS_FOLDER, Peers, Train
from bench.race import Heat, Step
from bench.taken import Taken
from bench.trees import configure
from bench.vm import STORE, Vm

NAME = "pull"
RTTS_MS = (0, 50, 150)
SIZES_MB = (25, 500)
_FILE = "model.bin"


@dataclass(frozen=True)
class Model:
    """The output of a run that ended on the VM, of which nothing has been pulled.

    Attributes:
        kept: what the laptop knew then.
    """

    train: Train
    kept: Path
    size_bytes: int

    @classmethod
    def make(cls, vm: Vm, folder: Path, size_mb: int) -> Self:
        train = Train(vm, folder / "workspace", folder / "home")
        # Random, so that nothing can compress it.
        command = f"head -c {size_mb}000000 /dev/urandom > {_FILE}"
        configure(train.workspace, command, f"outputs: [{_FILE}]")
        train.add_remote()
        train.launch()
        vm.rest()
        shutil.copytree(train.home, folder / "kept" / "home")
        shutil.copytree(train.workspace, folder / "kept" / "workspace")
        return cls(train, folder / "kept", size_mb * 10**6)

    def forget(self) -> None:
        """Nothing has been pulled."""
        for used in (self.train.home, self.train.workspace):
            shutil.rmtree(used)
            shutil.copytree(self.kept / used.name, used)

    def pull(self) -> Taken:
        taken = self.train.run("pull")
        (model,) = self.train.workspace.glob(f".train/models/*/{_FILE}")
        assert model.stat().st_size == self.size_bytes
        return taken

    def partial_bytes(self) -> int:
        """How much of a pull that goes on is on the disk."""
        files = self.train.workspace.glob(".train/runs/*/partial/*")
        return sum(file.stat().st_size for file in files)

    def copy_on_vm(self) -> None:
        """Where the peers fetch it."""
        home = self.train.vm.home
        (model,) = home.glob(f"{STORE}/runs/*/tree/{_FILE}")
        (home / PEERS_FOLDER).mkdir()
        shutil.copy(model, home / PEERS_FOLDER)


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    for size_mb in SIZES_MB[:1] if quick else SIZES_MB:
        # A pull of the largest takes half a minute over a distance.
        repeats = 1 if quick else 5
        yield from _race(vm, folder / f"{size_mb}", size_mb, repeats)


def _race(vm: Vm, folder: Path, size_mb: int, repeats: int) -> Iterator[Figure]:
    model = Model.make(vm, folder, size_mb)
    model.copy_on_vm()
    copy = folder / "copy" / _FILE
    copy.parent.mkdir()
    peers = Peers(vm, copy.parent)

    def forget_copy() -> None:
        copy.unlink(missing_ok=True)

    steps = {
        OURS: Step(model.pull, model.forget),
        "scp": Step(lambda: peers.pull_by_scp(_FILE), forget_copy),
        "rsync": Step(lambda: peers.pull_by_rsync(_FILE), forget_copy),
    }
    yield from Heat(NAME, f"{size_mb} MB", vm, repeats).race(steps)
    vm.forget(STORE, PEERS_FOLDER)
    shutil.rmtree(folder)
