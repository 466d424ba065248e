"""Models as real versions of TensorFlow saved them: rewritten, loaded, graded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.grades.grade import Candidate, Limits, grade
from orchestrator.grades.legacy import modernise
from orchestrator.grades.verdict import Outcome, Verdict
from tests.models.table import REFUSED, document

ROOT = Path(__file__).parent.parent
HERE = ROOT / "tests" / "models"
LIMITS = Limits(memory_bytes=2 * 2**30, time_s=60, model_bytes=4_000_000)
# Half precision has 3 digits, and versions round differently.
CLOSE, CLOSE_MIXED = 1e-4, 3e-3
# What they look at takes longer to make than to look at.
IN_ONE_WORKER = pytest.mark.xdist_group("models")


def layer(class_name: str = "Dense", /, **config: object) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": "a", **config}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (layer(time_major=False), layer()),
        (layer(time_major=True), layer(time_major=True)),
        (layer(groups=1), layer()),
        (layer(groups=2), layer(groups=2)),
        (layer(noise_shape=[1, 2]), layer(noise_shape=[1, 2])),
        (layer(causal=True), layer(causal=True)),
        (layer(axis=[3]), layer(axis=3)),
        (layer(axis=[1, 2]), layer(axis=[1, 2])),
        (layer(kernel_initializer="x", bias_constraint="y"), layer()),
        (layer(dtype=layer("Policy", name="mixed_float16")), layer(dtype="mixed_float16")),
        (layer("InputLayer", batch_input_shape=[3]), layer("InputLayer", batch_shape=[3])),
        (layer("Dense", batch_input_shape=[3]), layer()),
        ([1, "time_major", None], [1, "time_major", None]),
    ],
)
def test_a_key_goes_only_where_that_changes_no_prediction(old: object, new: object) -> None:
    before = deepcopy(old)

    assert modernise(old) == new
    assert old == before


def graph(inner: str, number: int, calls: int = 1) -> dict[str, Any]:
    node = [["x", 0, 0, {"mask": ["x", 0, 0], "training": False}]]
    layers = [
        {**layer("InputLayer"), "name": "x", "inbound_nodes": []},
        {**layer(inner), "name": "in", "inbound_nodes": [node] * calls},
        {**layer(), "name": "out", "inbound_nodes": [[["in", number, 0, {}]]]},
    ]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["in", number, 0]]}
    return layer("Functional", layers=layers, **ends)


def test_tensors_are_found_among_the_arguments_and_calls_are_counted_from_0() -> None:
    for inner, number, calls, ends in (
        ("Functional", 1, 1, 1),
        ("Sequential", 1, 1, 0),
        ("Sequential", 0, 1, 0),
        ("Sequential", 2, 2, 1),
    ):
        new = modernise(graph(inner, number, calls))["config"]
        call, after = (part["inbound_nodes"][0] for part in new["layers"][1:])

        assert call["args"][0]["config"]["keras_history"] == ["x", 0, 0]
        assert call["kwargs"]["mask"]["class_name"] == "__keras_tensor__"
        assert call["kwargs"]["training"] is False
        assert after["args"][0]["config"]["keras_history"] == ["in", max(0, calls - 1), 0]
        assert new["output_layers"] == ["in", ends, 0]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["config", "x"]), inner),
    )
)
def test_what_is_no_layer_is_left_as_it_is(value: object) -> None:
    assert modernise(value) == value


# --- all files, in one process


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float | str]:
    folder = tmp_path_factory.mktemp("models")
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.table", folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return answer


@IN_ONE_WORKER
@pytest.mark.tf
def test_every_file_predicts_what_its_saver_predicted_or_says_what_to_change(
    found: dict[str, float | str],
) -> None:
    assert len(found) > 80
    for name, difference in found.items():
        case = Path(name.split()[1]).stem
        if isinstance(difference, str):
            assert name in REFUSED or case in REFUSED, (name, difference)
            assert REFUSED.get(name, REFUSED.get(case, "")) in difference, name
        else:
            assert difference < (CLOSE_MIXED if case == "mixed" else CLOSE), name


@IN_ONE_WORKER
@pytest.mark.tf
def test_the_table_in_the_documents_is_of_these_files(found: dict[str, float | str]) -> None:
    assert (ROOT / "docs" / "models.md").read_text("utf-8") == document(found)


# --- through the confined grader

GRADER = """\
import numpy as np
held = np.load({expected!r})
x, y = held["x-{case}"], held["y-{case}"]
INPUT_SHAPE, OUTPUT_SHAPE = x.shape[1:], y.shape[1:]
METRIC = "largest difference"
HIGHER_IS_BETTER = False
THRESHOLDS = (5, 4, 3, 2, 1)
def held_out():
    return x, y
def score(y, predictions):
    return np.abs(y - predictions).max()
"""


@pytest.mark.tf
def test_models_of_keras_2_are_graded_and_the_users_file_is_left_as_it_was(tmp_path: Path) -> None:
    asked, before = [], {}
    for version, file in (
        ("tf2.5", "series.h5"),
        ("tf2.5", "mixed.h5"),
        ("tf2.12", "transfer.h5"),
        ("tf2.15", "text.keras"),
        ("tf2.5", "two_inputs.h5"),
        ("tf2.5", "raw_operation.h5"),
    ):
        place = tmp_path / f"{version}-{file}"
        with zipfile.ZipFile(HERE / f"{version}.zip") as archive:
            archive.extractall(place, [file, "expected.npz"])
        text = GRADER.format(expected=str(place / "expected.npz"), case=Path(file).stem)
        (place / "grader.py").write_text(text)
        before[place / file] = (place / file).read_bytes()
        asked.append(Candidate(file, place / file, place / "grader.py"))

    verdicts: dict[str, Verdict] = {each.category: each for each in grade(asked, LIMITS)}

    assert {path: path.read_bytes() for path in before} == before
    for name in ("series.h5", "mixed.h5", "transfer.h5", "text.keras"):
        assert verdicts[name].outcome is Outcome.GRADED, verdicts[name].reason
        assert (verdicts[name].value or 0) < (CLOSE_MIXED if "mixed" in name else CLOSE)
    assert "expected (3,)" in verdicts["two_inputs.h5"].reason
    reason = verdicts["raw_operation.h5"].reason
    assert "'tf.math.truediv' is a raw TensorFlow operation of Keras 2 (TFOpLambda)" in reason
    assert "use keras.layers.Rescaling" in reason


TWO = """\
import numpy as np
with np.load({held!r}) as data:
    x_0, x_1, y = data["x_0"], data["x_1"], data["y"]
INPUT_SHAPE = {shape}
OUTPUT_SHAPE = (1,)
METRIC = "largest difference"
HIGHER_IS_BETTER = False
THRESHOLDS = (5, 4, 3, 2, 1)
def held_out():
    return {x}, y
def score(y, predictions):
    return np.abs(y - predictions).max()
"""


@pytest.mark.tf
def test_a_model_of_two_inputs_is_graded_by_their_order_or_by_their_names(tmp_path: Path) -> None:
    asked: list[Candidate] = []
    for version, file, shape, x in (
        ("tf2.21", "two_inputs.keras", "[(3,), (2,)]", "[x_0, x_1]"),
        ("tf2.21", "two_inputs.h5", "{'right': (2,), 'left': (3,)}", "{'right': x_1, 'left': x_0}"),
        ("tf2.5", "two_inputs.h5", "[(3,), (2,)]", "(x_0, x_1)"),
        ("tf2.21", "two_inputs.keras", "[(2,), (3,)]", "[x_1, x_0]"),
        ("tf2.21", "two_inputs.keras", "{'a': (3,), 'right': (2,)}", "{'a': x_0, 'right': x_1}"),
        ("tf2.21", "dense.keras", "[(3,), (2,)]", "[x_0, x_1]"),
        ("tf2.21", "two_inputs.keras", "[(3,), (2,)]", "[x_0, x_1[1:]]"),
    ):
        place = tmp_path / str(len(asked))
        with zipfile.ZipFile(HERE / f"{version}.zip") as archive:
            archive.extractall(place, [file, "expected.npz"])
        with np.load(place / "expected.npz") as kept:
            parts = (kept["x-two_inputs"], kept["x-two_inputs-1"], kept["y-two_inputs"])
        np.savez(place / "heldout.npz", x_0=parts[0], x_1=parts[1], y=parts[2])
        text = TWO.format(held=str(place / "heldout.npz"), shape=shape, x=x)
        (place / "grader.py").write_text(text)
        asked.append(Candidate(str(len(asked)), place / file, place / "grader.py"))

    verdicts = list(grade(asked, LIMITS))

    for verdict in verdicts[:3]:
        assert verdict.outcome is Outcome.GRADED, verdict.reason
        assert (verdict.value or 0) < CLOSE
    assert verdicts[3].reason == "input shape is (3,) and (2,), expected (2,) and (3,)"
    assert verdicts[4].reason == "its inputs are 'left', 'right', expected 'a', 'right'"
    assert ", expected (3,) and (2,)" in verdicts[5].reason
    assert verdicts[6].outcome is Outcome.BROKEN
    assert "gave (4,) and (3,) examples of shape (3,) and (2,)" in verdicts[6].reason


def test_a_saved_model_folder_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "saved_model.pb").touch()

    (verdict,) = grade([Candidate("c", tmp_path / "m", tmp_path / "grader.py")], LIMITS)

    assert verdict.outcome is Outcome.INVALID
    assert "load_model(FOLDER).save('mymodel.h5')" in verdict.reason
