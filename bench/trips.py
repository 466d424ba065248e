"""Round trips of one launch, and what a resumed pull sends again: counted, not timed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.figures import OURS, Figure
from bench.programs import TRAIN, Peers, Train
from bench.pull import Model
from bench.race import say
from bench.taken import Taken
from bench.trace import round_trips, traced
from bench.trees import Tree
from bench.vm import COLD, WARM, Vm

NAME = "trips"
# Twice, because a count that is right does not depend on the distance.
RTTS_MS = (50, 150)
_TREE = Tree(50, 10_000)
_CUT_MB = 25


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    workspace = folder / "workspace"
    _TREE.make(workspace)
    train, peers = Train(vm, workspace, folder / "home"), Peers(vm, workspace)
    train.add_remote()
    steps: dict[str, Callable[[], Taken]] = {
        OURS: train.launch,
        "rsync, cold": lambda: peers.rsync(COLD),
        "rsync, warm": lambda: peers.rsync(WARM),
    }
    for program, step in steps.items():
        step()  # the first sync
        counts = []
        for _ in range(1 if quick else 5):
            vm.rest()
            with traced(vm.line) as packets:
                step()
            # Shorter than it is by what clocks and schedulers may add.
            counts.append(float(round_trips(packets, vm.line.rtt_ms / 1000 * 0.98)))
        figure = Figure(
            NAME, f"{_TREE}: unchanged", vm.line.rtt_ms, program, "round trips", tuple(counts)
        )
        say(f"{vm.line.rtt_ms:g} ms, {figure.case}: {program} {figure.median:g} round trips")
        yield figure
    yield _resumed(vm, folder / "cut", repeats=1 if quick else 5)


def _resumed(vm: Vm, folder: Path, repeats: int) -> Figure:
    """MiB that came in a second pull beyond those that the first, killed, had not written: what
    was sent again, and what SSH and the protocol add.
    """
    model = Model.make(vm, folder, _CUT_MB)
    again = []
    for _ in range(repeats):
        model.forget()
        have_bytes = _cut(model)
        vm.rest()
        with traced(vm.line) as packets:
            model.pull()
        came_bytes = sum(packet.payload_bytes for packet in packets if not packet.outgoing)
        again.append(round((came_bytes - model.size_bytes + have_bytes) / 2**20, 3))
    figure = Figure(
        NAME,
        f"{_CUT_MB} MB pull, killed half-way: sent again",
        vm.line.rtt_ms,
        OURS,
        "MiB",
        tuple(again),
    )
    say(f"{figure.case}: {figure.median:g} MiB")
    return figure


def _cut(model: Model) -> int:
    """Kill a pull when half has come; how many bytes are on the disk."""
    with subprocess.Popen(
        [TRAIN, "pull"],
        cwd=model.train.workspace,
        env={**os.environ, **model.train.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while (have_bytes := model.partial_bytes()) < model.size_bytes / 2:
            if process.poll() is not None:
                raise SystemExit("error: a pull ended before it could be cut")
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    return max(have_bytes, model.partial_bytes())
