"""Measure the problems: what five baselines score on the data of each seed.

    python jobs/calibrate.py [--seeds 10] [PROBLEM...]

Results are kept in calibration.json with a digest of the code that they come from, and what is kept
is not measured again: stop it and start it as you like. At the end it writes the tables of
docs/problems.md. The same seed makes the data and starts the training. All is trained in this one
process: an import of TensorFlow takes longer than most of the networks.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.problems import PROBLEMS, make_problem

HERE = Path(__file__).parent
RESULTS = HERE / "calibration.json"
PAGE = HERE.parent / "docs" / "problems.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
FITTED = ("constant", "naive", "linear")
TRAINED = ("starter", "reference")
BASELINES = FITTED + TRAINED


def essence(path):
    """A script's code without its comments, docstring and thresholds: what a score depends on."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [
        node
        for node in tree.body
        if not isinstance(node, ast.Expr) and "THRESHOLDS" not in ast.unparse(node)
    ]
    return ast.unparse(tree)


def sources(problem, baseline):
    """The scripts that a baseline's score comes from."""
    folder = HERE / problem.name
    yield folder / "prepare.py"
    yield folder / "grader.py"
    for shared in ("preparing", "photographs", "reviews", "temperatures"):
        if f"jobs.{shared} " in (folder / "prepare.py").read_text(encoding="utf-8"):
            yield HERE / f"{shared}.py"
    yield folder / ("solution.py" if baseline == "reference" else f"{problem.category}.py")
    if baseline in FITTED:
        yield HERE / "baselines.py"


def digest(problem, baseline):
    code = "\n".join(essence(path) for path in sources(problem, baseline))
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def key(problem, seed, baseline):
    return f"{problem.name} {seed} {baseline}"


def read_results():
    """{key: [digest, score, seconds]}"""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def write_results(results):
    order = {key(p, seed, b): None for p in PROBLEMS for seed in range(100) for b in BASELINES}
    lines = [f"{json.dumps(k)}: {json.dumps(results[k])}" for k in order if k in results]
    partial = RESULTS.with_suffix(".partial")
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    partial.replace(RESULTS)


def load_grader(path):
    spec = importlib.util.spec_from_file_location("grader", path)
    grader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grader)
    return grader


def measure(problem, seed, wanted):
    """Yield (baseline, score, seconds) of those wanted."""
    import tensorflow as tf

    from jobs import baselines

    os.environ["SEED"] = str(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_problem(problem, seed, folder)
        grader = load_grader(folder / "grader.py")
        held_x, held_y = grader.held_out()
        starter = folder / f"{problem.category}.py"
        solution = folder / "solution.py"
        solution.write_bytes((problem.source / "solution.py").read_bytes())
        for baseline in wanted:
            script = runpy.run_path(str(solution if baseline == "reference" else starter))
            started = time.monotonic()
            if baseline in TRAINED:
                with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
                    model = script["solution_model"]()
                predictions = model.predict(held_x, verbose=0)
            else:
                x, y = script["training_data"]()
                predictions = getattr(baselines, baseline)(grader, x, y, held_x, held_y)
            yield baseline, grader.score(held_y, predictions), time.monotonic() - started
            tf.keras.backend.clear_session()


def points(grader, score):
    sign = 1 if grader.HIGHER_IS_BETTER else -1
    return sum(sign * score >= sign * threshold for threshold in grader.THRESHOLDS)


def cell(grader, scores):
    """The range of the scores, and how often each number of points was reached."""
    if not scores:
        return "not measured"
    low, high = f"{min(scores):.3g}", f"{max(scores):.3g}"
    reached = [points(grader, score) for score in scores]
    counts = (f"{value}: {reached.count(value)}x" for value in sorted(set(reached)))
    return f"{low if low == high else f'{low} to {high}'} ({', '.join(counts)})"


def tables(results):
    yield f"| problem | metric | thresholds | {' | '.join(BASELINES)} | seconds |\n"
    yield "| --- " * (4 + len(BASELINES)) + "|\n"
    for problem in PROBLEMS:
        grader = load_grader(HERE / problem.name / "grader.py")
        found = {
            baseline: [
                value
                for seed in range(100)
                for code, *value in [results.get(key(problem, seed, baseline), [""])]
                if code == digest(problem, baseline)
            ]
            for baseline in BASELINES
        }
        cells = [cell(grader, [score for score, _ in found[name]]) for name in BASELINES]
        seconds = [f"{min(s for _, s in found[n]):.0f}" if found[n] else "?" for n in TRAINED]
        thresholds = ", ".join(f"{threshold:g}" for threshold in grader.THRESHOLDS)
        row = (problem.name, grader.METRIC, thresholds, *cells, " / ".join(seconds))
        yield f"| {' | '.join(row)} |\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 1")
    parser.add_argument("problems", nargs="*", metavar="PROBLEM")
    asked = parser.parse_args()
    results = read_results()
    # Seeds outside: whenever it is stopped, every problem has been measured as often.
    for seed in range(1, asked.seeds + 1):
        for problem in PROBLEMS:
            if asked.problems and problem.name not in asked.problems:
                continue
            codes = {baseline: digest(problem, baseline) for baseline in BASELINES}
            kept = {b: results.get(key(problem, seed, b), [""])[0] for b in BASELINES}
            wanted = [b for b in BASELINES if kept[b] != codes[b]]
            for baseline, score, seconds in measure(problem, seed, wanted) if wanted else ():
                results[key(problem, seed, baseline)] = [
                    codes[baseline],
                    round(float(score), 5),
                    round(seconds, 1),
                ]
                write_results(results)
                print(f"{problem.name} seed {seed} {baseline}: {score:.4f}", file=sys.stderr)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.rpartition(END)[2]
    PAGE.write_text(before + BEGIN + "".join(tables(results)) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
