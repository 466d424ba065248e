"""The practice pack: its data, its graders and its scripts."""

from __future__ import annotations

import ast
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[Any]

PACK = Path(__file__).parent.parent / "jobs"
CATEGORIES = tuple(f"category{number}" for number in range(1, 6))
pytestmark = pytest.mark.xdist_group("practice pack")

FOLDERS = pytest.mark.parametrize("category", CATEGORIES)
SCRIPTS = pytest.mark.parametrize(
    "script",
    [PACK / folder / name for folder in CATEGORIES for name in (f"{folder}.py", "solution.py")],
    ids=lambda script: f"{script.parent.name}-{script.name}",
)

# What `train.npz` of each category holds: shape and type of every array.
TRAIN = {
    "category1": {"x": ((294, 9), "float32"), "y": ((294,), "float32")},
    "category2": {"x": ((4000, 28, 28), "uint8"), "y": ((4000,), "uint8")},
    "category3": {"x": ((3200, 32, 32, 3), "uint8"), "y": ((3200,), "uint8")},
    "category4": {"x": ((8000, 200), "int32"), "y": ((8000,), "uint8")},
    "category5": {"hourly": ((6551,), "float32")},
}

WITHOUT_NETWORK = """
import runpy, sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"prepare.py reached for the network: {args}")
sys.addaudithook(refuse)
runpy.run_path("prepare.py", run_name="__main__")
"""


def prepare(folder: Path) -> Path:
    """A folder of the pack made ready as `train init` does, the network refused."""
    shutil.copytree(PACK / folder.name, folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", WITHOUT_NETWORK], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All categories, prepared; tests read it only."""
    root = tmp_path_factory.mktemp("practice") / "it's a workspace"
    for category in CATEGORIES:
        prepare(root / category)
    return root


def load_grader(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{folder.name}_grader", folder / "grader.py")
    assert spec is not None
    assert spec.loader is not None
    grader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grader)
    return grader


def points(grader: ModuleType, score: float) -> int:
    sign = 1 if grader.HIGHER_IS_BETTER else -1
    return sum(sign * score >= sign * threshold for threshold in grader.THRESHOLDS)


def constants(grader: ModuleType, y: Array) -> list[Array]:
    """The answers that do not look at x; for a number the best there is, y's own median."""
    if y.dtype == np.float32:
        return [np.full(grader.OUTPUT_SHAPE, np.median(y), "float32")]
    if grader.OUTPUT_SHAPE == (1,):
        return [np.zeros(1), np.ones(1)]
    return list(np.eye(*grader.OUTPUT_SHAPE))


def perfect(grader: ModuleType, y: Array) -> Array:
    """What a model that is always right predicts."""
    if y.dtype == np.uint8 and grader.OUTPUT_SHAPE != (1,):
        return np.eye(*grader.OUTPUT_SHAPE)[y]
    return y.reshape(-1, *grader.OUTPUT_SHAPE)


def rows(array: Array) -> set[bytes]:
    return {row.tobytes() for row in array}


@FOLDERS
def test_a_category_has_all_its_files(category: str) -> None:
    found = {path.name for path in (PACK / category).iterdir()} - {"__pycache__"}

    assert found == {"brief.md", f"{category}.py", "grader.py", "prepare.py", "solution.py"}


@FOLDERS
def test_the_training_data_has_its_shapes_and_needs_no_pickle(
    category: str, workspace: Path
) -> None:
    with np.load(workspace / category / "data" / "train.npz", allow_pickle=False) as data:
        found = {name: (data[name].shape, str(data[name].dtype)) for name in data}

    assert found == TRAIN[category]


@FOLDERS
def test_preparing_again_writes_the_same_bytes(
    category: str, workspace: Path, tmp_path: Path
) -> None:
    again = prepare(tmp_path / category)

    written = {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert Path("heldout.npz") in written
    assert not [path for path in written if path.suffix == ".partial"]
    for path in written:
        assert (again / path).read_bytes() == (workspace / category / path).read_bytes(), path


@FOLDERS
def test_without_the_packages_prepare_names_the_extra_in_one_line(
    category: str, tmp_path: Path
) -> None:
    shutil.copy(PACK / category / "prepare.py", tmp_path)

    # -S leaves site-packages out: a Python without numpy and the rest.
    run = subprocess.run(
        [sys.executable, "-S", "prepare.py"], cwd=tmp_path, capture_output=True, text=True
    )

    assert run.returncode == 1
    assert "pip install '.[practice]'" in run.stderr
    assert run.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["prepare.py"]


@pytest.mark.parametrize("category", ["category1", "category2", "category4"])
def test_no_held_out_row_is_in_the_training_data(category: str, workspace: Path) -> None:
    with np.load(workspace / category / "data" / "train.npz") as train:
        known = rows(train["x"])
    with np.load(workspace / category / "heldout.npz") as held_out:
        assert not known & rows(held_out["x"])


def test_no_pixel_of_a_photograph_is_in_both_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    # The script takes a seed from its command line, which here is pytest's.
    monkeypatch.setattr("sys.argv", ["prepare.py"])
    regions = runpy.run_path(str(PACK / "category3" / "prepare.py"))["regions"]
    # Every pixel its own number, in three bytes.
    number = np.arange(200 * 330).reshape(200, 330)
    photo = np.stack([number >> 16, number >> 8 & 255, number & 255], axis=-1).astype("uint8")

    train, held_out = regions(photo, np.random.RandomState(0))

    assert len(train) > len(held_out) > 0
    assert not rows(train.reshape(-1, 3)) & rows(held_out.reshape(-1, 3))


def test_no_hour_is_both_trained_on_and_held_out(workspace: Path) -> None:
    folder = workspace / "category5"
    with np.load(folder / "data" / "train.npz") as train, np.load(folder / "heldout.npz") as test:
        hourly = train["hourly"]
        windows = np.concatenate([test["x"], test["y"]], axis=1)

    known = np.lib.stride_tricks.sliding_window_view(hourly, windows.shape[1])
    assert not rows(known) & rows(windows)
    # Nor in part: the hours of both add up to those of the source.
    assert len(hourly) + len(windows) + windows.shape[1] - 1 == 8759


def test_the_vocabulary_numbers_the_words_of_the_training_data(workspace: Path) -> None:
    words = (workspace / "category4/data/vocabulary.txt").read_text(encoding="utf-8").splitlines()
    with np.load(workspace / "category4/data/train.npz") as train:
        used = np.unique(train["x"])

    assert words[:2] == ["[padding]", "[unknown]"]
    assert len(set(words)) == len(words) == 10_000
    assert used.tolist() == list(range(10_000)), "a word the training data never uses"


@FOLDERS
def test_the_held_out_data_fits_what_the_grader_declares(category: str, workspace: Path) -> None:
    grader = load_grader(workspace / category)

    x, y = grader.held_out()

    assert x.shape == (len(y), *grader.INPUT_SHAPE)
    assert x.dtype in (np.float32, np.int32)
    assert perfect(grader, y).shape == (len(y), *grader.OUTPUT_SHAPE)
    assert y.dtype == np.float32 or y.max() < max(2, *grader.OUTPUT_SHAPE)


@FOLDERS
def test_an_answer_that_ignores_the_question_earns_nothing(category: str, workspace: Path) -> None:
    grader = load_grader(workspace / category)
    x, y = grader.held_out()

    for constant in constants(grader, y):
        answers = np.broadcast_to(constant, (len(x), *grader.OUTPUT_SHAPE))
        score = grader.score(y, answers)
        assert points(grader, score) == 0, score
        # With margin: a tenth better would still earn nothing.
        assert points(grader, score * (1.1 if grader.HIGHER_IS_BETTER else 0.9)) == 0, score


@FOLDERS
def test_perfect_predictions_earn_five_points(category: str, workspace: Path) -> None:
    grader = load_grader(workspace / category)
    _, y = grader.held_out()

    score = grader.score(y, perfect(grader, y).astype("float32"))

    assert type(score) is float
    assert points(grader, score) == 5


@FOLDERS
def test_a_model_that_answers_nan_earns_nothing(category: str, workspace: Path) -> None:
    grader = load_grader(workspace / category)
    x, y = grader.held_out()

    nowhere = np.full((len(x), *grader.OUTPUT_SHAPE), np.nan, "float32")

    assert points(grader, grader.score(y, nowhere)) == 0


@FOLDERS
def test_each_point_is_harder_than_the_one_before(category: str) -> None:
    grader = load_grader(PACK / category)

    assert len(grader.THRESHOLDS) == 5
    hardest_last = sorted(set(grader.THRESHOLDS), reverse=not grader.HIGHER_IS_BETTER)
    assert list(grader.THRESHOLDS) == hardest_last


@FOLDERS
def test_a_grader_needs_numpy_and_the_standard_library_only(category: str) -> None:
    tree = ast.parse((PACK / category / "grader.py").read_text(encoding="utf-8"))

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages = {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages = {(node.module or "").partition(".")[0]}
        else:
            continue
        assert packages <= {"numpy", *sys.stdlib_module_names}


@SCRIPTS
def test_a_script_has_cells_a_solution_model_and_one_way_to_save(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    # The VM's Python may be as old as 3.8.
    tree = ast.parse(text, feature_version=(3, 8))

    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "solution_model" in functions
    assert text.startswith("# %%\n")
    assert text.count("\n# %%\n") >= 3
    assert 'if __name__ == "__main__":' in text
    assert 'model.save(str(HERE / "mymodel.h5"))' in text
    # A resolved path would leave the workspace where the data folder is shared by a link.
    assert "HERE = Path(__file__).parent\n" in text


@SCRIPTS
def test_no_script_knows_of_the_held_out_data(script: Path) -> None:
    text = script.read_text(encoding="utf-8").lower()

    assert "heldout" not in text
    assert "grader" not in text


@pytest.mark.tf
def test_a_starter_trains_without_the_held_out_data_and_earns_its_points(
    workspace: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "category2"
    shutil.copytree(workspace / "category2", folder)
    (folder / "heldout.npz").unlink()
    grader = load_grader(workspace / "category2")
    x, y = grader.held_out()
    np.save(tmp_path / "x.npy", x)

    # From the workspace's root, as a job's command runs; one process, for TensorFlow's import.
    script = (
        "import runpy, numpy\n"
        "runpy.run_path('category2/category2.py', run_name='__main__')\n"
        "from tensorflow.keras.models import load_model\n"
        "model = load_model('category2/mymodel.h5', compile=False)\n"
        "numpy.save('predictions.npy', model.predict(numpy.load('x.npy'), verbose=0))\n"
    )
    environment = {**os.environ, "SEED": "2", "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stderr
    assert "Epoch 1/" in run.stdout
    assert points(grader, grader.score(y, np.load(tmp_path / "predictions.npy"))) in (1, 2)
