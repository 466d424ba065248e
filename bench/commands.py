"""Commands that connect nowhere, against the interpreter that runs them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.figures import OURS, Figure
from bench.programs import Train
from bench.race import Heat, Step
from bench.taken import Taken, run
from bench.trees import configure
from bench.vm import Vm

NAME = "commands"
RTTS_MS = (0,)
PYTHON = "python -c pass"
_COMMANDS = (["--help"], ["status", "--local"], ["cost"])
_RUNS = 10


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """In a workspace with a few runs."""
    train = Train(vm, folder / "workspace", folder / "home")
    configure(train.workspace)
    train.add_remote()
    for _ in range(2 if quick else _RUNS):
        train.launch()
    for words in _COMMANDS:

        def command(words: list[str] = words) -> Taken:
            return train.run(*words)

        heat = Heat(NAME, " ".join(["train", *words]), vm, 5 if quick else 21)
        yield from heat.race({OURS: Step(command), PYTHON: Step(lambda: python(folder))})


def python(folder: Path) -> Taken:
    """What any Python program takes."""
    return run([sys.executable, "-c", "pass"], folder)
