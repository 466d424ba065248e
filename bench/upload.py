"""A data folder sent with a launch: new data, code that is a few lines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import OURS, Figure
from bench.programs import PEERS_FOLDER, TRAIN, Peers, Train
from bench.race import Heat, Step, say
from bench.trace import traced
from bench.trees import age, configure
from bench.vm import COLD, STORE, Vm

NAME = "upload"
RTTS_MS = (0, 50, 150)
SIZES_MB = (25, 500)


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    for size_mb in SIZES_MB[:1] if quick else SIZES_MB:
        # The largest takes half a minute over a distance.
        repeats = 1 if quick else 5
        yield from _race(vm, folder / f"{size_mb}", size_mb, repeats)
    if vm.line.rtt_ms:
        yield _resumed(vm, folder / "cut", SIZES_MB[0], repeats=1 if quick else 5)


def _race(vm: Vm, folder: Path, size_mb: int, repeats: int) -> Iterator[Figure]:
    train = _make(vm, folder, size_mb)
    workspace, peers = train.workspace, Peers(vm, train.workspace)

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


def _make(vm: Vm, folder: Path, size_mb: int) -> Train:
    workspace = folder / "workspace"
    data = workspace / "data" / "images.bin"
    data.parent.mkdir(parents=True)
    with data.open("wb") as file:
        for _ in range(size_mb):
            file.write(os.urandom(10**6))
    age(data)
    configure(workspace, extra="outputs: [], data: [data]")
    train = Train(vm, workspace, folder / "home")
    train.add_remote()
    return train


def _resumed(vm: Vm, folder: Path, size_mb: int, repeats: int) -> Figure:
    """MiB that a second launch sent beyond those that the VM had of the first, killed half-way:
    what was sent again, and what SSH and the protocol add.
    """
    train, size_bytes = _make(vm, folder, size_mb), size_mb * 10**6
    incoming = vm.home / STORE / "incoming"

    def have_bytes() -> int:
        return sum(file.stat().st_size for file in incoming.glob("*"))

    again = []
    for _ in range(repeats):
        vm.forget(STORE)
        shutil.rmtree(train.workspace / ".train", ignore_errors=True)
        with subprocess.Popen(
            [TRAIN, "run", "--detach", "--remote", "vm"],
            cwd=train.workspace,
            env={**os.environ, **train.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            while have_bytes() < size_bytes / 2:
                if process.poll() is not None:
                    raise SystemExit("error: an upload ended before it could be cut")
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        vm.rest()
        arrived = have_bytes()
        with traced(vm.line) as packets:
            train.launch()
        sent = sum(packet.payload_bytes for packet in packets if packet.outgoing)
        again.append(round((sent - size_bytes + arrived) / 2**20, 3))
        vm.rest()
    vm.forget(STORE)
    case = f"{size_mb} MB upload, killed half-way: sent again"
    figure = Figure(NAME, case, vm.line.rtt_ms, OURS, "MiB", tuple(again))
    say(f"{figure.case}: {figure.median:g} MiB")
    return figure
