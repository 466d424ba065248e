"""Grading: five models together against loading one, and how long a verdict takes after a pull."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.commands import PYTHON, python
from bench.figures import OURS, Figure
from bench.programs import TRAIN, Train
from bench.race import Heat, Step, say
from bench.taken import Taken, run
from bench.vm import STORE, Vm

NAME = "grading"
RTTS_MS = (0,)
ONE = "python: import, load and predict one"
# Long enough for the framework's import, even on a machine that is shared.
_TRAINS_S = 15
_QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}

# The reference networks of the practice pack, after four steps; their worth is not measured.
_MAKE = """\
import runpy, sys
import tensorflow as tf
whole = tf.keras.Model.fit
def fit(model, *data, **options):
    options.pop("validation_split", None)
    return whole(model, *data, **{**options, "epochs": 1, "steps_per_epoch": 4, "verbose": 0})
tf.keras.Model.fit = fit
for category in sys.argv[1:]:
    runpy.run_path(f"{category}/{category}.py", run_name="__main__")
"""
_PREDICT = """\
import runpy
import keras
grader = runpy.run_path("grader.py")
x, y = grader["held_out"]()
model = keras.models.load_model("mymodel.h5", compile=False)
print(grader["score"](y, model.predict(x, verbose=0)))
"""


def measure(vm: Vm, folder: Path, *, quick: bool) -> Iterator[Figure]:
    repeats = 1 if quick else 5
    train = Train(vm, folder / "exam", folder / "home")
    run([TRAIN, "init", "exam", "--solutions"], folder, train.environment)
    categories = sorted(path.parent for path in train.workspace.glob("*/grader.py"))
    make = [sys.executable, "-c", _MAKE, *(category.name for category in categories)]
    run(make, train.workspace, _QUIET)
    largest = max(categories, key=lambda category: (category / "heldout.npz").stat().st_size)

    def grade() -> Taken:
        return train.run("grade")

    def predict() -> Taken:
        return run([sys.executable, "-c", _PREDICT], largest, _QUIET)

    together = {OURS: Step(grade, lambda: forget_verdicts(train)), ONE: Step(predict)}
    yield from Heat(NAME, f"{len(categories)} models", vm, repeats).race(together)
    again = {OURS: Step(grade), PYTHON: Step(lambda: python(folder))}
    yield from Heat(NAME, f"{len(categories)} models, nothing changed", vm, repeats).race(again)

    train = Train(vm, folder / "one", folder / "home")
    train.workspace.mkdir()
    shutil.copytree(largest, train.workspace / largest.name)
    model = train.workspace / largest.name / "mymodel.h5"
    trained = model.rename(folder / model.name)
    job = f"sleep {_TRAINS_S} && cp '{trained}' {largest.name}/{model.name}"
    config = (
        f'jobs:\n  {largest.name}: {{command: "{job}", outputs: [{largest.name}/{model.name}]}}\n'
    )
    (train.workspace / "train.yaml").write_text(config)
    train.add_remote()
    waited = []
    for _ in range(repeats):
        forget_verdicts(train)
        shutil.rmtree(train.workspace / ".train", ignore_errors=True)
        model.unlink(missing_ok=True)
        waited.append(round(wait_for_verdict(train), 4))
    figure = Figure(NAME, "from the pull's end to the verdict", 0, OURS, "s", tuple(waited))
    say(f"{figure.case}: {figure.median:.3f} s")
    yield figure
    vm.forget(STORE)


def forget_verdicts(train: Train) -> None:
    for file in train.home.glob("ledger.sqlite3*"):
        file.unlink()


def wait_for_verdict(train: Train) -> float:
    """Seconds between the lines that tell of the two, in a run that is followed.

    Raises:
        SystemExit: there were no such lines.
    """
    said, pulled_at = [], 0.0
    with subprocess.Popen(
        [TRAIN, "--remote", "vm"],
        cwd=train.workspace,
        env={**os.environ, **train.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        graded_at = 0.0
        for line in process.stderr:
            said.append(line)
            if line.startswith("• pulled "):
                pulled_at = time.perf_counter()
            elif line.startswith("• graded ") and " points" in line:
                graded_at = time.perf_counter()
    if process.returncode != 0 or not pulled_at or not graded_at:
        raise SystemExit(f"error: no verdict, exit code {process.returncode}\n{''.join(said)}")
    return graded_at - pulled_at
