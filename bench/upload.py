"""A data folder sent with a launch: new data, code that is a few lines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.figures import OURS, Figure
from bench.programs import PEERS_FOLDER, Peers, Train
from bench.race import Heat, Step
from bench.trees import age, configure
from bench.vm import COLD, STORE, Vm

NAME = "upload"
RTTS_MS = (0, 50, 150)
SIZES_MB = (25, 500)


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    for size_mb in SIZES_MB[:1] if quick else SIZES_MB:
        # The largest takes half a minute over a distance.
        repeats = 1 if quick else 3 if size_mb > 100 else 5
        yield from _race(vm, folder / f"{size_mb}", size_mb, repeats)


def _race(vm: Vm, folder: Path, size_mb: int, repeats: int) -> Iterator[Figure]:
    workspace = folder / "workspace"
    data = workspace / "data" / "images.bin"
    data.parent.mkdir(parents=True)
    with data.open("wb") as file:
        for _ in range(size_mb):
            file.write(os.urandom(10**6))
    age(data)
    configure(workspace, extra="outputs: [], data: [data]")
    train, peers = Train(vm, workspace, folder / "home"), Peers(vm, workspace)
    train.add_remote()

    def forget_ours() -> None:
        vm.forget(STORE)
        shutil.rmtree(workspace / ".train", ignore_errors=True)

    def forget_theirs() -> None:
        vm.forget(PEERS_FOLDER)

    steps = {
        OURS: Step(train.launch, forget_ours),
        "scp": Step(lambda: peers.scp(COLD), forget_theirs),
        "rsync": Step(lambda: peers.rsync(COLD, "-a"), forget_theirs),
    }
    yield from Heat(NAME, f"{size_mb} MB", vm, repeats).race(steps)
    vm.forget(STORE, PEERS_FOLDER)
    shutil.rmtree(folder)
