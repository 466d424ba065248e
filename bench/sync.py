"""Sync and launch, from the start of the process to "the run is accepted"."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.figures import Figure
from bench.programs import PEERS_FOLDER, Peers, Train
from bench.race import Heat, Step
from bench.trees import Tree, change
from bench.vm import COLD, STORE, WARM, Vm

NAME = "sync"
RTTS_MS = (0, 50, 150)
TREES = (Tree(50, 10_000), Tree(1000, 20_000), Tree(10_000, 10_000))


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """First sync, nothing changed, one file changed."""
    for tree in TREES[:1] if quick else TREES:
        workspace = folder / f"{tree.files}"
        tree.make(workspace)
        yield from _tree(vm, workspace, folder / f"{tree.files}-home", str(tree), quick=quick)
        vm.forget(STORE, PEERS_FOLDER)


def _tree(vm: Vm, workspace: Path, home: Path, name: str, *, quick: bool) -> Iterator[Figure]:
    repeats = 1 if quick else 5
    train, peers = Train(vm, workspace, home), Peers(vm, workspace)
    train.add_remote()

    def first_of_ours() -> None:
        vm.forget(STORE)
        shutil.rmtree(workspace / ".train", ignore_errors=True)

    def first_of_theirs() -> None:
        vm.forget(PEERS_FOLDER)

    steps = {
        "train": Step(train.launch, first_of_ours),
        "tar, cold": Step(lambda: peers.tar(COLD), first_of_theirs),
        "rsync, cold": Step(lambda: peers.rsync(COLD), first_of_theirs),
        "rsync, warm": Step(lambda: peers.rsync(WARM), first_of_theirs),
    }
    yield from Heat(NAME, f"{name}: first", vm, repeats).race(steps)
    del steps["tar, cold"]  # always sends all
    cases: dict[str, Callable[[], None]] = {
        "unchanged": lambda: None,
        "one changed": lambda: change(workspace),
    }
    for case, before in cases.items():
        again = {program: Step(step.go, before) for program, step in steps.items()}
        yield from Heat(NAME, f"{name}: {case}", vm, repeats).race(again)
