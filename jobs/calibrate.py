"""Measure the practice pack: what a constant, the starter and the reference score in each category.

Prints the table of docs/practice-pack.md. Trains in a temporary folder, one process at a time;
takes some minutes. Run it after any change of data, scripts or thresholds.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CATEGORIES = tuple(f"category{number}" for number in range(1, 6))
SEEDS = (1, 2, 3)


def train(workspace, category, script, seed):
    """Run `script` under the category's name; the model's path, and the seconds it took."""
    folder = workspace / category
    shutil.copyfile(HERE / category / script, folder / f"{category}.py")
    started = time.monotonic()
    subprocess.run(
        [sys.executable, f"{category}/{category}.py"],
        cwd=workspace,
        env={**os.environ, "SEED": str(seed), "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.monotonic() - started
    model = folder / f"{Path(script).stem}-{seed}.h5"
    (folder / "mymodel.h5").replace(model)
    return model, seconds


def load_grader(folder):
    spec = importlib.util.spec_from_file_location(f"{folder.name}_grader", folder / "grader.py")
    grader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grader)
    return grader


def points(grader, score):
    sign = 1 if grader.HIGHER_IS_BETTER else -1
    return sum(sign * score >= sign * threshold for threshold in grader.THRESHOLDS)


def best_constant(grader):
    """The score of the best answer that does not look at x, chosen with the held-out y in hand."""
    x, y = grader.held_out()
    if y.dtype == np.float32:
        answers = [np.full(grader.OUTPUT_SHAPE, np.median(y))]
    elif grader.OUTPUT_SHAPE == (1,):
        answers = [np.zeros(1), np.ones(1)]
    else:
        answers = list(np.eye(grader.OUTPUT_SHAPE[0]))
    scores = [grader.score(y, np.broadcast_to(a, (len(x), *grader.OUTPUT_SHAPE))) for a in answers]
    return max(scores) if grader.HIGHER_IS_BETTER else min(scores)


def cell(grader, scores):
    low, high = min(scores), max(scores)
    span = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
    reached = sorted({points(grader, score) for score in scores})
    return f"{span} ({', '.join(map(str, reached))})"


def row(grader, models, folder):
    from tensorflow.keras.models import load_model

    x, y = grader.held_out()
    scores, seconds = {}, {}
    for script, runs in models.items():
        loaded = [load_model(model, compile=False) for model, _ in runs]
        scores[script] = [grader.score(y, model.predict(x, verbose=0)) for model in loaded]
        # The least of them: what else the machine does can only add to it.
        seconds[script] = min(took for _, took in runs)
    starter = f"{folder.name}.py"
    return [
        folder.name,
        grader.METRIC,
        ", ".join(f"{threshold:g}" for threshold in grader.THRESHOLDS),
        cell(grader, [best_constant(grader)]),
        cell(grader, scores[starter]),
        cell(grader, scores["solution.py"]),
        f"{seconds[starter]:.0f} / {seconds['solution.py']:.0f}",
    ]


def main():
    head = ["category", "metric", "thresholds", "constant", "starter", "reference", "seconds"]
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        models = {}
        # All training before TensorFlow is imported here: two of them would fight for the cores.
        for category in CATEGORIES:
            shutil.copytree(HERE / category, workspace / category)
            subprocess.run([sys.executable, "prepare.py"], cwd=workspace / category, check=True)
            models[category] = {}
            for script in (f"{category}.py", "solution.py"):
                print(f"{category}/{script}", file=sys.stderr)
                runs = [train(workspace, category, script, seed) for seed in SEEDS]
                models[category][script] = runs
        rows = []
        for category in CATEGORIES:
            folder = workspace / category
            rows.append(row(load_grader(folder), models[category], folder))
    for line in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
