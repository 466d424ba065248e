"""The exam's problems: what a seed draws, the data it makes, and what is sent of it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.errors import UsageError
from orchestrator.init import make_workspace
from orchestrator.problems import ONLINE, PACK, PROBLEMS, Problem, draw, make_problem
from orchestrator.screen.tell import Silence
from orchestrator.settings.config import load_workspace
from orchestrator.source.snapshot import content_paths, take_snapshot
from tests.test_practice_pack import constants, load_grader, perfect, points

Array = npt.NDArray[Any]

JOBS = Path(__file__).parent.parent / "jobs"
SUFFIXED = tuple(problem for problem in PROBLEMS if problem not in PACK)
EVERY = pytest.mark.parametrize("problem", PROBLEMS + ONLINE, ids=lambda one: one.name)
MADE = pytest.mark.parametrize("problem", SUFFIXED, ids=lambda one: one.name)
SEED = 4

# One worker: making the data takes longer than the tests.
pytestmark = pytest.mark.xdist_group("problems")


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each problem is with the data of one seed, in two workspaces; tests read it only."""
    root = tmp_path_factory.mktemp("problems")
    made = {}
    for number, problem in enumerate(SUFFIXED):
        name = problem.category
        made[problem.name] = root / f"{number % 2}" / name
        make_problem(problem, SEED, made[problem.name])
    jobs = "".join(
        f"  {one.category}: {{command: x, outputs: [{one.category}/mymodel.h5], "
        f"data: [{one.category}/data]}}\n"
        for one in PACK
    )
    for workspace in root.iterdir():
        (workspace / "train.yaml").write_text("jobs:\n" + jobs)
    return made


def test_an_exam_has_one_problem_of_each_category_and_its_seed_decides_which() -> None:
    names = [problem.name for problem in draw(7)]

    assert [problem.category for problem in draw(7)] == [f"category{n}" for n in range(1, 6)]
    # Pinned: an exam that was begun is the same one after an update.
    assert names == [
        "category1-weather",
        "category2-surfaces",
        "category3",
        "category4",
        "category5-cities",
    ]
    assert {problem for seed in range(40) for problem in draw(seed)} == set(PROBLEMS)
    assert len({draw(seed) for seed in range(40)}) > 30


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_an_error(seed: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no seed"):
        draw(seed)
    with pytest.raises(UsageError, match="is no seed"):
        make_problem(PACK[0], seed, tmp_path)
    assert not list(tmp_path.iterdir())


@EVERY
def test_a_problem_is_stated_and_can_be_solved(problem: Problem) -> None:
    folder = JOBS / problem.name
    script = f"{problem.category}.py"
    names = {path.name for path in folder.iterdir()} - {"__pycache__"}
    assert names == {"brief.md", "grader.py", "prepare.py", "solution.py", script}

    brief = (folder / "brief.md").read_text()
    grader = load_grader(folder)
    assert brief.startswith(f"# Category {problem.category[-1]}: ")
    assert f"`{grader.INPUT_SHAPE}`" in brief
    assert grader.METRIC.partition(" as ")[0] in " ".join(brief.split()) or "share" in brief
    assert list(grader.THRESHOLDS) == sorted(
        set(grader.THRESHOLDS), reverse=not grader.HIGHER_IS_BETTER
    )
    for name in (script, "solution.py"):
        text = (folder / name).read_text()
        # The VM's Python may be as old as 3.8.
        ast.parse(text, feature_version=(3, 8))
        assert text.startswith("# %%\n")
        assert 'model.save(str(HERE / "mymodel.h5"))' in text
        assert "HERE = Path(__file__).parent\n" in text
        assert not {"heldout", "grader"} & set(text.lower().replace(".", " ").split())


@MADE
def test_the_held_out_data_is_what_the_grader_and_the_brief_say(
    problem: Problem, workspaces: dict[str, Path]
) -> None:
    folder = workspaces[problem.name]
    grader = load_grader(folder)
    x, y = grader.held_out()

    assert x.shape == (len(y), *grader.INPUT_SHAPE)
    assert f"{len(y):,} " in (folder / "brief.md").read_text()
    for constant in constants(grader, y):
        answers = np.broadcast_to(constant, (len(x), *grader.OUTPUT_SHAPE))
        assert points(grader, grader.score(y, answers)) == 0
    right = perfect(grader, y).reshape(-1, *grader.OUTPUT_SHAPE).astype("float32")
    assert points(grader, grader.score(y, right)) == 5
    nowhere = np.full((len(x), *grader.OUTPUT_SHAPE), np.nan, "float32")
    assert points(grader, grader.score(y, nowhere)) == 0


@MADE
def test_nothing_that_is_sent_has_a_held_out_row(
    problem: Problem, workspaces: dict[str, Path]
) -> None:
    folder = workspaces[problem.name]
    workspace = load_workspace(folder)
    snapshot = take_snapshot(workspace, workspace.jobs, Silence())
    sent = {path for tree in snapshot.trees for path in content_paths(tree).values()}

    names = {str(path.relative_to(folder)) for path in sent if folder in path.parents}
    expected = {"brief.md", f"{problem.category}.py", "data/train.npz"}
    assert names - {"data/vocabulary.txt"} == expected
    assert leaked(folder / "heldout.npz", sent) == 0


def leaked(held_out: Path, sent: set[Path]) -> int:
    """How many held-out rows are in the files: as a row, or anywhere in a series."""
    with np.load(held_out) as arrays:
        x, y = arrays["x"], arrays["y"]
    # A window's answer alone: in a problem of gaps its x has two pieces.
    rows = y if y.ndim > 1 else x
    known: set[bytes] = set()
    series: list[bytes] = []
    for path in sent:
        if path.suffix != ".npz":
            continue
        with np.load(path) as arrays:
            for array in arrays.values():
                if array.dtype != rows.dtype:
                    continue
                if y.ndim > 1:
                    series.append(array.tobytes())
                elif array.ndim == x.ndim:
                    known |= {row.tobytes() for row in array}
    return sum(
        row.tobytes() in known or any(row.tobytes() in one for one in series) for row in rows
    )


def test_the_walk_finds_a_row_that_was_sent(workspaces: dict[str, Path], tmp_path: Path) -> None:
    for name in ("category1-weather", "category5-cities"):
        held_out = workspaces[name] / "heldout.npz"
        with np.load(held_out) as arrays:
            row = arrays["y" if arrays["y"].ndim > 1 else "x"][:1]
        np.savez(tmp_path / "train.npz", x=np.concatenate([row, row * 0]))
        assert leaked(held_out, {tmp_path / "train.npz"}) > 0


@pytest.mark.parametrize("name", ["category1", "category1-weather", "category5", "category5-gaps"])
def test_a_seed_makes_the_same_bytes_again_and_another_seed_others(
    name: str, tmp_path: Path
) -> None:
    problem = Problem(name)
    made = []
    for place, seed in (("one", 1), ("again", 1), ("other", 2)):
        folder = tmp_path / place
        make_problem(problem, seed, folder)
        files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        made.append(files)
    one, again, other = made

    assert set(one) == {
        "brief.md",
        "grader.py",
        f"{problem.category}.py",
        "heldout.npz",
        "train.npz",
    }
    assert one == again
    assert one["heldout.npz"] != other["heldout.npz"]
    assert one["train.npz"] != other["train.npz"]


def test_a_workspace_of_a_seed_has_its_problems_and_not_their_answer_key(tmp_path: Path) -> None:
    for problem in draw(SEED):
        for file in ("heldout.npz", "data/train.npz"):
            path = tmp_path / problem.category / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    make_workspace(tmp_path, solutions=True, tell=Silence(), seed=SEED)

    for problem in draw(SEED):
        folder = tmp_path / problem.category
        source = JOBS / problem.name
        assert (folder / "brief.md").read_bytes() == (source / "brief.md").read_bytes()
        script = folder / f"{problem.category}.py"
        assert script.read_bytes() == (source / "solution.py").read_bytes()
        assert not (folder / "prepare.py").exists()


def calibration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibrate", JOBS / "calibrate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda one: one.name)
def test_the_thresholds_are_borne_out_by_what_was_measured(problem: Problem) -> None:
    calibrate = calibration()
    grader = load_grader(JOBS / problem.name)
    results = json.loads((JOBS / "calibration.json").read_text())

    def earned(baseline: str) -> list[int]:
        measured = [results[calibrate.key(problem, seed, baseline)] for seed in range(1, 11)]
        current = calibrate.digest(problem, baseline)
        assert {code for code, _, _ in measured} == {current}, "run: make calibrate"
        return [points(grader, score) for _, score, _ in measured]

    assert earned("reference").count(5) >= 9
    assert max(earned("naive")) <= 2
    assert max(earned("constant")) == 0


@pytest.mark.tf
def test_references_of_two_problems_earn_five_points(
    workspaces: dict[str, Path], tmp_path: Path
) -> None:
    names = ("category1-diabetes", "category4-sentences")
    for name in names:
        folder = workspaces[name]
        x, _ = load_grader(folder).held_out()
        np.save(tmp_path / f"{name}.npy", x)
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(folder / "data")
        script = tmp_path / name / "solution.py"
        script.write_bytes((JOBS / name / "solution.py").read_bytes())
    # One process, for TensorFlow's import.
    code = (
        "import runpy, sys, numpy\n"
        "for name in sys.argv[1:]:\n"
        "    script = runpy.run_path(f'{name}/solution.py')\n"
        "    model = script['solution_model']()\n"
        "    answers = model.predict(numpy.load(f'{name}.npy'), verbose=0)\n"
        "    numpy.save(f'{name}-answers.npy', answers)\n"
    )
    environment = {**os.environ, "SEED": str(SEED), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-c", code, *names],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )

    for name in names:
        grader = load_grader(workspaces[name])
        _, y = grader.held_out()
        assert points(grader, grader.score(y, np.load(tmp_path / f"{name}-answers.npy"))) == 5


def test_a_problem_whose_data_cannot_be_made_says_why_and_leaves_no_answer_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Isolated from the environment's packages: a Python without numpy and the rest.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(bare))
    folder = tmp_path / "category1"

    with pytest.raises(UsageError, match="the data of category1") as raised:
        make_problem(Problem("category1-weather"), 1, folder)
    assert "No module named" in raised.value.cause
    assert "pip install '.[practice]'" in raised.value.fix
    assert not (folder / "prepare.py").exists()
