"""What training costs more in a run than without us: time of a step, and memory beside the job."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.figures import OURS, Figure
from bench.programs import PEERS_FOLDER, Train
from bench.race import say
from bench.taken import run
from bench.trees import configure
from bench.vm import COLD, STORE, Vm

NAME = "overhead"
RTTS_MS = (0,)
PLAIN = "python"
# Width of the model, and pairs. The first is the worst for what is done at each step.
_CASES = {"short steps": (32, 5), "long steps": (1500, 3)}
_TRAIN_S = 60.0
_POLL_S = 0.5
_SCRIPT = Path(__file__).with_name("steps.py")

Found = Mapping[str, float]


@dataclass(frozen=True)
class Job:
    """`steps.py` in the same place with and without us: a session of the VM's server."""

    vm: Vm
    train: Train

    def in_run(self, *words: str, follow: bool = False) -> Found:
        """What it found in a run that was started and left, or followed to its end."""
        configure(self.train.workspace, f"python steps.py {' '.join(words)}", "outputs: []")
        shutil.copy(_SCRIPT, self.train.workspace)
        if follow:
            self.train.run("run", "--remote", "vm", "--param", f"n={time.time_ns()}")
        else:
            self.train.launch()
            # Asked rarely: who asks uses the processor that is measured.
            while not any(self.vm.home.glob(f"{STORE}/runs/*/artifacts.json")):
                time.sleep(_POLL_S)
        self.vm.rest()
        (folder,) = self.vm.home.glob(f"{STORE}/runs/*/tree")
        found = _read(folder)
        self.vm.forget(STORE)
        return found

    def alone(self, *words: str) -> Found:
        """What it found as an SSH user starts it."""
        folder = self.vm.home / PEERS_FOLDER
        folder.mkdir()
        shutil.copy(_SCRIPT, folder)
        command = f"cd {PEERS_FOLDER} && {sys.executable} steps.py {' '.join(words)} >log 2>&1"
        run(["ssh", "-F", self.vm.ssh_config, COLD, command], folder)
        self.vm.rest()
        found = _read(folder)
        self.vm.forget(PEERS_FOLDER)
        return found


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    train = Train(vm, folder / "workspace", folder / "home")
    configure(train.workspace)
    train.add_remote()
    job = Job(vm, train)
    seconds = "5" if quick else f"{_TRAIN_S:g}"
    for case, (width, pairs) in _CASES.items():
        words = (f"{width}", seconds)
        yield from _pairs(job, case, words, 1 if quick else pairs)
    words = (f"{_CASES['short steps'][0]}", seconds)
    hook = job.in_run(*words, "--hook")
    quartiles = [hook["low"], hook["median"], hook["high"]]
    yield _figure("the hook alone: more processor (quartiles)", OURS, "%", quartiles)
    followed = job.in_run(*words, follow=True)
    yield _figure("followed: processor beside", OURS, "% of a core", [followed["beside_percent"]])
    yield _figure("followed: memory beside", OURS, "MiB", [followed["beside_mib"]])


def _pairs(job: Job, case: str, words: tuple[str, ...], pairs: int) -> Iterator[Figure]:
    ours: list[Found] = []
    plain: list[Found] = []
    for number in range(pairs):
        # Each is the first of a pair as often as the other.
        for first in (True, False) if number % 2 else (False, True):
            if first:
                ours.append(job.in_run(*words))
            else:
                plain.append(job.alone(*words))
    for what, name, unit in (
        ("step", "step_ms", "ms"),
        ("processor of a step", "step_cpu_ms", "ms"),
        ("memory of the job, its own", "own_mib", "MiB"),
    ):
        for program, found in ((OURS, ours), (PLAIN, plain)):
            yield _figure(f"{case}: {what}", program, unit, [one[name] for one in found])
        if unit == "ms":
            longer = [
                100 * (mine[name] / theirs[name] - 1)
                for mine, theirs in zip(ours, plain, strict=True)
            ]
            yield _figure(f"{case}: {what}, longer by", OURS, "%", longer)
    for what, name, unit in (
        ("processor beside", "beside_percent", "% of a core"),
        ("memory beside", "beside_mib", "MiB"),
    ):
        yield _figure(f"{case}: {what}", OURS, unit, [one[name] for one in ours])


def _figure(case: str, program: str, unit: str, values: list[float]) -> Figure:
    figure = Figure(NAME, case, 0, program, unit, tuple(round(value, 4) for value in values))
    say(f"{case}: {program} {figure.median:.3f} {unit} {figure.values}")
    return figure


def _read(folder: Path) -> Found:
    found: Found = json.loads((folder / "steps.json").read_text())
    return found
