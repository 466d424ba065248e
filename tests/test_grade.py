"""Grading: verdicts compare, graders are read, models are graded by a real TensorFlow."""

from __future__ import annotations

import json
import math
import os
import pickle
import py_compile
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.grades.confine import (
    Abandoned,
    Ending,
    _try_everything,
    confinement,
    run_forked,
    run_spawned,
)
from orchestrator.grades.grade import Candidate, Grading, Limits, Progress, _Copy, _verdict, grade
from orchestrator.grades.grader import Broken, read
from orchestrator.grades.grading import conclude
from orchestrator.grades.verdict import Outcome, Verdict, points
from orchestrator.screen.printable import one_line

# The models are made once.
pytestmark = pytest.mark.xdist_group("grade")

ROOT = Path(__file__).parent.parent
ACCURACY = (0.5, 0.6, 0.7, 0.8, 0.9)
ERROR = (5.0, 4.0, 3.0, 2.0, 1.0)
LIMITS = Limits(memory_bytes=2 * 2**30, time_s=60, model_bytes=4_000_000)

GRADED = Verdict(
    category="c1",
    outcome=Outcome.GRADED,
    points=3,
    metric="accuracy",
    value=0.75,
    thresholds=ACCURACY,
    higher_is_better=True,
    reason="",
    sha256="0" * 64,
    size_bytes=1000,
    graded_at=datetime(2026, 1, 1, tzinfo=UTC),
    versions="",
)
INVALID = replace(GRADED, outcome=Outcome.INVALID, points=None, value=None, reason="empty")

GRADER = """\
import numpy as np
INPUT_SHAPE = (4,)
OUTPUT_SHAPE = (1,)
METRIC = "mae"
HIGHER_IS_BETTER = False
THRESHOLDS = (5, 4, 3, 2, 1)
def held_out():
    return np.ones((10, 4), "float32"), np.zeros((10, 1))
def score(y, predictions):
    return np.abs(y - predictions).mean()
"""


# --- verdicts


@pytest.mark.parametrize(
    ("value", "thresholds", "higher_is_better", "earned"),
    [
        (0.5, ACCURACY, True, 1),
        (0.4999, ACCURACY, True, 0),
        (0.9, ACCURACY, True, 5),
        (math.inf, ACCURACY, True, 5),
        (1.0, ERROR, False, 5),
        (1.01, ERROR, False, 4),
        (5.01, ERROR, False, 0),
        (math.nan, ACCURACY, True, 0),
        (math.nan, ERROR, False, 0),
    ],
)
def test_points_are_the_thresholds_reached(
    value: float, thresholds: tuple[float, ...], higher_is_better: bool, earned: int
) -> None:
    assert points(value, thresholds, higher_is_better) == earned


@given(st.floats(), st.lists(st.floats(allow_nan=False), min_size=5, max_size=5), st.booleans())
def test_points_are_never_outside_of_0_to_5(
    value: float, thresholds: list[float], higher_is_better: bool
) -> None:
    assert 0 <= points(value, thresholds, higher_is_better) <= 5


def test_the_next_threshold_is_what_one_more_point_needs() -> None:
    assert GRADED.next_threshold == 0.8
    assert replace(GRADED, points=5).next_threshold is None
    assert INVALID.next_threshold == 0.5
    assert replace(INVALID, thresholds=()).next_threshold is None


@pytest.mark.parametrize(
    "worse",
    [
        replace(GRADED, points=2, value=0.99),
        replace(GRADED, value=0.74),
        replace(GRADED, value=math.nan),
        replace(GRADED, size_bytes=1001),
        replace(GRADED, size_bytes=None),
        INVALID,
        replace(INVALID, outcome=Outcome.BROKEN),
    ],
)
def test_a_better_verdict_has_more_points_or_a_better_metric_or_a_smaller_file(
    worse: Verdict,
) -> None:
    assert GRADED.better_than(worse)
    assert not worse.better_than(GRADED)
    assert not worse.better_than(worse)


def test_a_smaller_metric_is_better_where_the_category_says_so() -> None:
    loss = replace(GRADED, higher_is_better=False, thresholds=ERROR, value=2.5)

    assert loss.better_than(replace(loss, value=2.6))
    assert loss.better_than(replace(loss, value=math.nan))


@given(st.text())
def test_a_reason_is_one_printable_line(text: str) -> None:
    line = one_line(text * 50, 100)

    assert line.isprintable()
    assert len(line) <= 100


# --- graders


def test_a_grader_is_read_with_all_it_demands(tmp_path: Path) -> None:
    path = tmp_path / "a 'grader'\n.py"
    path.write_text(GRADER)

    grader = read(path)

    assert (grader.input_shapes, grader.output_shape) == (((4,),), (1,))
    assert (grader.metric, grader.higher_is_better) == ("mae", False)
    assert grader.thresholds == ERROR
    (x,), y = grader.held_out()
    assert grader.score(y, y + 2.0) == 2.0
    assert x.shape == (10, 4)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("METRIC = ", "MERTIC = ", "METRIC is missing"),
        ("def score", "def scores", "score is missing"),
        ("def score", "score = 1\ndef scores", "score is not a function"),
        ("(5, 4, 3, 2, 1)", "(1, 2, 3, 4, 5)", "do not fall from 1 to 5 points"),
        ("(5, 4, 3, 2, 1)", "(5, 4, 3, 3, 1)", "do not fall"),
        ("(5, 4, 3, 2, 1)", "(5, 4, 3, 2)", "not 5 numbers"),
        ("(5, 4, 3, 2, 1)", "(5, 4, 3, 2, float('nan'))", "not 5 numbers"),
        ("(5, 4, 3, 2, 1)", "'54321'", "not 5 numbers"),
        ("= False", "= 'no'", "HIGHER_IS_BETTER is 'no'"),
        ("'mae'", "7", "METRIC is 7"),
        ("(4,)", "4", "INPUT_SHAPE is 4"),
        ("(1,)", "(1.0,)", "OUTPUT_SHAPE is (1.0,)"),
        ("(1,)", "(1,", "grader.py:3: could not be imported: SyntaxError"),
        (
            "import numpy",
            "import sys\nsys.exit('no')\nimport numpy",
            "grader.py:2: could not be im",
        ),
        (
            "import numpy",
            "import nothing_there\nimport numpy",
            "grader.py:1: could not be imported",
        ),
    ],
)
def test_a_grader_that_breaks_its_contract_is_broken_and_says_where(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = GRADER.replace('"mae"', "'mae'")
    assert old in text
    path = tmp_path / "grader.py"
    path.write_text(text.replace(old, new, 1))

    with pytest.raises(Broken) as caught:
        read(path)

    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "return np.ones((10, 4)",
            "return np.ones((10, 5)",
            "examples of shape (5,), INPUT_SHAPE is",
        ),
        ("return np.ones((10, 4)", "return np.ones((0, 4)", "(0,) examples"),
        (
            "return np.ones",
            "1 / 0; return np.ones",
            "grader.py:8: could not make the held-out data",
        ),
        ("return np.ones((10, 4), 'float32'), np.z", "return np.z", "could not make"),
        (
            "return np.abs",
            "import os; os.no_such(); return np.abs",
            "grader.py:10: could not score",
        ),
        ("return np.abs(y - predictions).mean()", "return 'good'", "gave a str, not a number"),
        (
            "return np.abs(y - predictions).mean()",
            "return None",
            "score() gave nothing, not a number",
        ),
        ("return np.abs(y - predictions).mean()", "return True", "gave a bool"),
    ],
)
def test_a_grader_that_fails_while_grading_is_broken_and_says_where(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = GRADER.replace('"', "'")
    assert old in text
    path = tmp_path / "grader.py"
    path.write_text(text.replace(old, new, 1))
    grader = read(path)

    with pytest.raises(Broken, match=r"grader\.py") as caught:
        grader.score(grader.held_out()[1], 1.0)

    assert says in str(caught.value)


def test_a_grader_that_is_not_there_is_broken(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="there is no such grader"):
        read(tmp_path / ("x" * 200))


# --- how a confined process ends

STAGE = b'{"stage": "predict"}\n'


@pytest.mark.parametrize(
    ("ending", "outcome", "says"),
    [
        (Ending(0, b'{"outcome": "graded", "value": 1.0}\n', "", False), "graded", ""),
        (Ending(-11, STAGE, "a\nb\nFatal: x\n", False), "invalid", "SIGSEGV: a | b | Fatal: x"),
        (Ending(-9, STAGE, "", True), "invalid", "the model took more than 60 s, up to where"),
        (Ending(-9, b'{"stage": "read the grader"}\n', "", True), "broken", "the grader took more"),
        (
            Ending(-6, STAGE, "what(): std::bad_alloc", False),
            "invalid",
            "2.0 GiB of memory to pred",
        ),
        (Ending(0, STAGE, "", False), "invalid", "exit status 0"),
        (Ending(-9, b"", "", False), "invalid", "SIGKILL"),
        (Ending(-9, STAGE + b'{"outcome": "gra', "", False), "invalid", "SIGKILL"),
        (Ending(0, b"\xff[1]\n7\n[]\n", "", False), "invalid", "exit status 0"),
        (Ending(0, STAGE + b"[" * 60_000 + b"\n", "", False), "invalid", "exit status 0"),
        (Ending(-37, STAGE, "", False), "invalid", "with signal 37"),
    ],
)
def test_how_a_process_ended_decides_whose_fault_it_is(
    ending: Ending, outcome: str, says: str
) -> None:
    answer = conclude(ending, LIMITS)

    assert answer["outcome"] == outcome
    assert says in answer.get("reason", "")


class _Scripted(Grading):
    """Its process is a shell script: the nth start runs the nth script."""

    def __init__(self, *scripts: str) -> None:
        super().__init__()
        self.scripts = list(scripts)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._noise.write_bytes(b"")
        return subprocess.Popen(
            ("/bin/sh", "-c", f"echo '{{}}'; {self.scripts.pop(0)}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )


@pytest.mark.skipif(sys.platform == "win32", reason="needs /bin/sh")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("read x; kill -9 $$", "ended with status -9"),
        ("exit 3", "ended with status 3"),
        ("read x; head -c 60000 /dev/zero | tr '\\0' '['; echo; read y", "no answer"),
        ("read x; echo 7; read y", "no answer"),
    ],
)
def test_a_grading_process_that_fails_costs_one_verdict_and_is_replaced(
    tmp_path: Path, script: str, says: str
) -> None:
    good = """while read x; do echo '{"outcome": "graded", "value": 1}'; done"""
    grading = _Scripted(script, good)
    with grading:
        first, second, third = (
            grading.ask(tmp_path / "m.h5", tmp_path / "grader.py", LIMITS) for _ in range(3)
        )

    assert first["outcome"] == "broken"
    assert says in first["reason"]
    assert (second["outcome"], third["outcome"]) == ("graded", "graded")
    assert grading.process is None


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": "graded", "value": 10**400, "thresholds": [1, 2, 3, 4, 5]},
        {"outcome": "graded", "value": 1, "thresholds": [10**400]},
        {"outcome": "graded", "value": None, "metric": ["x"], "versions": 7},
        {"outcome": ["graded"]},
        {},
    ],
    ids=ascii,
)
def test_an_answer_nobody_can_read_is_an_invalid_verdict(answer: dict[str, object]) -> None:
    verdict = _verdict("c1", answer, _Copy(Path("m.h5"), "0" * 64, 1000))

    assert (verdict.outcome, verdict.points, verdict.value) == (Outcome.INVALID, None, None)
    assert (verdict.metric, verdict.versions) == ("", "")


def test_what_confinement_misses_is_found_by_trying() -> None:
    loose = confinement()

    assert set(loose) <= {"use the network", "write files", "read hidden files", "start programs"}
    if kernel_confines():
        assert loose == ()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is tried")
def test_where_the_kernel_refuses_confinement_it_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.grades.confine.confine", lambda *_: None)
    monkeypatch.setenv("HOME", "")  # and have it put back
    _try_everything(tmp_path)

    can = ["use the network", "write files", "read hidden files", "start programs"]
    assert capfd.readouterr().out.splitlines() == can


def test_a_process_of_which_nobody_waits_for_the_answer_is_ended(tmp_path: Path) -> None:
    leash, held = os.pipe()
    os.close(held)

    with pytest.raises(Abandoned):
        run_forked(lambda: time.sleep(60), LIMITS, tmp_path, leash)
    os.close(leash)


def test_memory_is_watched_where_the_system_does_not_limit_it() -> None:
    code = (
        "import threading, time; from orchestrator.grades.confine import watch_memory\n"
        "threading.Thread(target=watch_memory, args=(10**8,), daemon=True).start()\n"
        "held = []\n"
        "while True: held.append(bytearray(10**7)); time.sleep(0.01)"
    )

    ending = run_spawned(
        (sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{code}"), b"", LIMITS
    )

    assert ending.code == -signal.SIGKILL
    assert "bad_alloc" in ending.noise


# --- what needs no TensorFlow to judge


def candidates(folder: Path, *names: str) -> list[Candidate]:
    return [Candidate(name, folder / name, folder / "grader.py") for name in names]


def test_without_tensorflow_grading_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(UsageError) as caught:
        grade(candidates(tmp_path, "m.h5"))

    assert caught.value.fix == f"{shlex.quote(sys.executable)} -m pip install 'tensorflow>=2.16'"


def test_grading_tells_which_python_files_of_the_graders_folder_it_opened(tmp_path: Path) -> None:
    folder = tmp_path / "a 'b"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    for name in ("imported", "script", "executed"):
        (folder / f"{name}.py").write_text("X = 1")
    (folder / "below" / "compiled.py").write_text("X = 1")
    (tmp_path / "outside.py").write_text("X = 1")
    py_compile.compile(str(folder / "below" / "compiled.py"))
    (folder / "grader.py").write_text(
        "import sys, runpy, pathlib\nHERE = pathlib.Path(__file__).parent\n"
        "sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE / 'below')]\n"
        "import imported, compiled, outside\nruns = runpy.run_path(HERE / 'executed.py')\n"
        "import os; os.stat(HERE / 'script.py'); open(os.dup(1), 'w').close()\n"
    )
    code = (
        "import importlib.util, pathlib, sys\n"
        "from orchestrator.grades.grading import _watch_sources\n"
        "path = pathlib.Path(sys.argv[1], 'grader.py')\nopened = _watch_sources(path.parent)\n"
        "spec = importlib.util.spec_from_file_location('grader', path)\n"
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))\nprint(sorted(opened))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "link")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    names = ("below/compiled.py", "executed.py", "grader.py", "imported.py")
    assert done.stdout == f"{[str(folder.resolve() / name) for name in names]}\n"


def test_a_file_that_is_no_model_is_invalid_without_starting_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "empty.h5").touch()
    (tmp_path / "pickle.h5").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "text 'é\n.keras").write_text("import os\n\x1b[2J")
    (tmp_path / "folder.h5").mkdir()
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "large.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(4_000_000))
    told: list[Progress] = []

    names = [
        "none.h5",
        "empty.h5",
        "pickle.h5",
        "text 'é\n.keras",
        "folder.h5",
        "pipe.h5",
        "large.h5",
    ]
    verdicts = list(grade(candidates(tmp_path, *names), LIMITS, told.append))

    assert [verdict.category for verdict in verdicts] == names
    assert {verdict.outcome for verdict in verdicts} == {Outcome.INVALID}
    expected = [
        "there is no model file",
        "is empty",
        "neither .h5 nor .keras: it begins with b'\\x80\\x04",
        "neither .h5 nor .keras: it begins with b'import os",
        "not a file",
        "not a file",
        "has 4000008 bytes, more than 4000000",
    ]
    for verdict, says in zip(verdicts, expected, strict=True):
        assert says in verdict.reason
        assert verdict.reason.isprintable()
        assert verdict.graded_at.tzinfo is UTC
    assert told == []


# --- with TensorFlow

MAKE_MODELS = """
import json, os, shutil, sys, zipfile
os.chdir(sys.argv[1])
import h5py, keras, numpy as np

def small(*layers, shape=(4,), out=1):
    layers = layers or (keras.layers.Dense(out, kernel_initializer="zeros"),)
    return keras.Sequential([keras.Input(shape), *layers])

@keras.saving.register_keras_serializable("mine")
class Odd(keras.layers.Dense):
    pass

good = small()
good.save("good.h5"); good.save("good.keras"); good.save_weights("weights.weights.h5")
small(shape=(5,)).save("input.h5")
small(out=2).save("output.h5")
small(keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(np.nan))).save("nan.h5")
small(keras.layers.Lambda(lambda x: x[:, :1], name="my_lambda")).save("lambda.h5")
small(keras.layers.Lambda(lambda x: x[:, :1], name="my_lambda")).save("lambda.keras")
small(Odd(1, name="my_odd")).save("custom.keras")
two = keras.Input((4,)), keras.Input((4,))
keras.Model(two, keras.layers.Dense(1)(keras.layers.Add()(two))).save("two.h5")
x = keras.Input((4,))
y = keras.layers.Reshape((2, 2, 1))(x)
# 3.2 GB for ten examples: too much for the limit, not for the machine.
y = keras.layers.UpSampling2D(4_500)(y)
keras.Model(x, keras.layers.GlobalAveragePooling2D()(y)).save("giant.h5")
small(keras.layers.LSTM(64), keras.layers.Dense(1), shape=(None, 4)).save("slow.h5")
compiled = small(); compiled.compile("adam", lambda a, b: keras.ops.mean(a - b)); compiled.fit(
    np.ones((2, 4)), np.ones((2, 1)), verbose=0); compiled.save("own loss.keras")

def change(name, to):
    shutil.copy(name, to)
    return h5py.File(to, "r+")

small(keras.layers.LSTM(2), keras.layers.Dense(1), shape=(3, 4)).save("lstm.h5")
with change("lstm.h5", "keras2.h5") as f:
    config = json.loads(f.attrs["model_config"])
    config["config"]["layers"][1]["config"]["time_major"] = True
    f.attrs["model_config"] = json.dumps(config)
    f.attrs["keras_version"] = "2.12.0"
with change("good.h5", "external link.h5") as f:
    del f["model_weights"]
    f["model_weights"] = h5py.ExternalLink("/etc/other.h5", "/model_weights")
with change("good.h5", "soft link.h5") as f:
    f["model_weights/again"] = h5py.SoftLink("/model_weights")
with change("good.h5", "external storage.h5") as f:
    f.create_dataset("model_weights/x", (8,), "u1", external=[("/etc/passwd", 0, 8)])
with change("good.h5", "virtual.h5") as f:
    layout = h5py.VirtualLayout((1,), "f4")
    layout[0] = h5py.VirtualSource("/etc/other.h5", "x", (1,))[0]
    f.create_virtual_dataset("model_weights/x", layout)
with change("good.h5", "bomb.h5") as f:
    f.create_dataset("model_weights/x", (2_000_000,), "f4", chunks=(100_000,), compression="gzip")
whole = open("good.h5", "rb").read()
open("cut.h5", "wb").write(whole[: len(whole) // 2])
open("cut.keras", "wb").write(open("good.keras", "rb").read()[:-40])
shutil.copy("good.h5", "really h5.keras")
shutil.copy("good.h5", "no suffix")
with zipfile.ZipFile("good.keras") as f, zipfile.ZipFile("link inside.keras", "w") as g:
    for name in f.namelist():
        h5 = name.endswith(".h5")
        g.writestr(name, open("external link.h5", "rb").read() if h5 else f.read(name))
with zipfile.ZipFile("bomb.keras", "w", zipfile.ZIP_DEFLATED) as g:
    g.writestr("config.json", "{}")
    g.writestr("model.weights.h5", bytes(10**8))
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models, made in one TensorFlow process of their own, and a grader."""
    folder = tmp_path_factory.mktemp("models")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # A file, because TensorFlow reads the source of a loss.
    script = tmp_path_factory.mktemp("script") / "make_models.py"
    script.write_text(MAKE_MODELS)
    made = subprocess.run(
        [sys.executable, script, folder], env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-2000:]
    (folder / "grader.py").write_text(GRADER)
    return folder


@pytest.fixture
def grader(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a grader that does something else first in one of its functions."""

    def make(function: str, doing: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        head = f"def {function}({'y, predictions' if function == 'score' else ''}):\n"
        body = "".join(f"    {line}\n" for line in doing.splitlines())
        assert head in GRADER
        path.write_text(GRADER.replace(head, head + body))
        return path

    return make


FAULTS = {
    "giant.h5": "the model wanted more than 2.0 GiB of memory to predict",
    "cut.h5": "truncated file",
    "cut.keras": "damaged or cut short",
    "weights.weights.h5": "it holds weights but no model: save it with model.save()",
    "input.h5": "input shape is (5,), expected (4,)",
    "output.h5": "output shape is (2,), expected (1,)",
    "two.h5": "input shape is (4,) and (4,), expected (4,)",
    "nan.h5": "10 of 10 predicted values are nan or infinite",
    "lambda.h5": "layer 'my_lambda' is a Lambda layer",
    "lambda.keras": "layer 'my_lambda' is a Lambda layer",
    "custom.keras": "layer 'my_odd' is of the custom class 'mine>Odd'",
    "keras2.h5": "Unrecognized keyword arguments passed to LSTM: {'time_major': True}",
    "external link.h5": "'model_weights' is a link to '/etc/other.h5'",
    "soft link.h5": "'model_weights/again' is a link to '/model_weights'",
    "external storage.h5": "'model_weights/x' keeps its values in another file",
    "virtual.h5": "'model_weights/x' is made of other files",
    "bomb.h5": "its weights unpack to more than 4000000 bytes",
    "bomb.keras": "it unpacks to 100000002 bytes, more than 4000000",
    "link inside.keras": "is a link to '/etc/other.h5'",
}
GOOD = ("good.h5", "good.keras", "really h5.keras", "no suffix", "own loss.keras")


@pytest.mark.tf
def test_each_bad_model_is_invalid_for_its_reason_and_stops_no_other(
    models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The good ones stand between and after the bad.
    names = [*GOOD[:1], *FAULTS, *GOOD[1:]]

    verdicts = {v.category: v for v in grade(candidates(models, *names), LIMITS)}

    assert list(verdicts) == names
    for name, says in FAULTS.items():
        assert says in verdicts[name].reason, name
        assert verdicts[name].outcome is Outcome.INVALID, name
        assert verdicts[name].points is None
        assert verdicts[name].thresholds == ERROR
    for name in GOOD:
        verdict = verdicts[name]
        assert (verdict.outcome, verdict.reason) == (Outcome.GRADED, ""), name
        assert verdict.metric == "mae"
        assert not verdict.higher_is_better
        assert verdict.sha256 == sha256((models / name).read_bytes()).hexdigest()
        assert verdict.size_bytes == (models / name).stat().st_size
        assert verdict.versions.startswith("tensorflow 2.")
    assert (verdicts["good.h5"].value, verdicts["good.h5"].points) == (0.0, 5)
    assert capfd.readouterr() == ("", "")


CONFINED = """\
import errno, os, pathlib, socket, subprocess, sys, tempfile
assert "TRAINSHED_TEST_SECRET" not in os.environ
def refused(attempt, *arguments, **options):
    try:
        attempt(*arguments, **options)
    except OSError:
        return
    raise AssertionError(f"{attempt.__name__}{arguments} was allowed")
refused(socket.create_connection, ("127.0.0.1", PORT))
refused(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
here = pathlib.Path(__file__)
refused(here.write_text, "x")
refused((here.parent / "new").touch)
refused(here.unlink)
refused(here.rename, here.parent / "moved")
refused(subprocess.run, ["/bin/true"])
refused(os.kill, os.getppid(), 0)
refused((pathlib.Path(tempfile.gettempdir()) / "x").write_bytes, bytes(5_000_000))
(pathlib.Path(tempfile.gettempdir()) / "x").write_bytes(b"in its own folder it may")
open(os.devnull, "w").close()
assert sys.stdin.read() == ""
print("this is not for the terminal")
"""


def kernel_confines() -> bool:
    """Whether there is Landlock and seccomp; not so in some containers."""
    code = (
        "import ctypes; c = ctypes.CDLL(None); size = ctypes.c_size_t(0)\n"
        # The mode alone: what the kernel does not know is EINVAL, a missing filter is EFAULT.
        "c.prctl(38, 1, 0, 0, 0); c.prctl(22, 2, 0, 0, 0)\n"
        "raise SystemExit(ctypes.get_errno() == 22 or c.syscall(444, None, size, 1) < 3)"
    ).replace("CDLL(None)", "CDLL(None, use_errno=True)")
    return sys.platform == "linux" and not subprocess.call([sys.executable, "-c", code])


@pytest.mark.tf
def test_five_models_share_one_import_and_are_confined_each(
    models: Path,
    grader: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if not kernel_confines():
        pytest.skip("this system confines less")
    monkeypatch.setenv("TRAINSHED_TEST_SECRET", "s3cret")
    # Importing takes 3 s of CPU or more; a fork of a process that did it begins at 0.
    cheap = "import time; assert time.process_time() < 1.5, time.process_time()"
    parent = "import os; return os.getppid()"
    free = models / "good.h5"
    with socket.create_server(("127.0.0.1", 0)) as server:
        confined = CONFINED.replace("PORT", str(server.getsockname()[1]))
        graders = [
            grader("held_out", cheap),
            grader("held_out", confined),
            *(grader("score", parent) for _ in range(3)),
        ]
        names = ["cheap", "confined", "1", "2", "3"]
        asked = [Candidate(n, free, g) for n, g in zip(names, graders, strict=True)]
        verdicts = grade(asked, LIMITS)
        first = [next(verdicts) for _ in names[:-1]]
        os.kill(int(first[-1].value or 0), 0)  # the grading process lives
        last = next(verdicts)
        verdicts.close()  # type: ignore[attr-defined]

    assert [v.reason for v in (*first, last)] == [""] * 5
    assert len({v.value for v in (*first[2:], last)}) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(last.value or 0), 0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.tf
def test_time_crashes_and_a_broken_grader_cost_one_verdict_each(
    models: Path, grader: Callable[[str, str], Path]
) -> None:
    good, limits = models / "good.h5", replace(LIMITS, time_s=4)
    crashing = """\
class Bomb(np.ndarray):
    def __array_finalize__(self, made_from):
        import os, sys
        if sys._getframe(1).f_code.co_name != "held_out":
            os.kill(os.getpid(), 11)
return np.ones((10, 4)).view(Bomb), 0"""
    slow = (tmp := grader("held_out", "return np.ones((16, 200_000, 4)), 0")).read_text()
    tmp.write_text(slow.replace("(4,)", "(200_000, 4)", 1))
    asked = [
        Candidate("crash", good, grader("held_out", crashing)),
        Candidate("slow model", models / "slow.h5", tmp),
        Candidate("slow grader", good, grader("held_out", "import time; time.sleep(60)")),
        Candidate("no grader", good, models / "none.py"),
        Candidate("hungry grader", good, grader("held_out", "return np.ones(2**40)")),
        Candidate("nan", good, grader("score", "return float('nan')")),
        Candidate("good", good, models / "grader.py"),
    ]

    found = {v.category: v for v in grade(asked, limits)}

    assert {name: (v.outcome.value, v.points) for name, v in found.items()} == {
        "crash": ("invalid", None),
        "slow model": ("invalid", None),
        "slow grader": ("broken", None),
        "no grader": ("broken", None),
        "hungry grader": ("broken", None),
        "nan": ("graded", 0),
        "good": ("graded", 5),
    }
    assert "had to predict, with SIGSEGV" in found["crash"].reason
    assert (
        found["slow model"].reason == "the model took more than 4 s, up to where it had to predict"
    )
    assert "the grader took more than 4 s" in found["slow grader"].reason
    assert "there is no such grader" in found["no grader"].reason
    assert "GiB of memory to make the held-out data" in found["hungry grader"].reason


def children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


@linux
@pytest.mark.tf
def test_a_grading_process_that_was_killed_between_two_models_costs_no_verdict(
    models: Path,
) -> None:
    before = set(children(os.getpid()))
    killed = []

    def kill_at_the_second(progress: Progress) -> None:
        if progress.category == "good.keras":
            for child in set(children(os.getpid())) - before:
                os.kill(child, signal.SIGKILL)
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
                killed.append(child)

    verdicts = list(grade(candidates(models, "good.h5", "good.keras"), LIMITS, kill_at_the_second))

    assert len(killed) == 1
    assert [verdict.outcome for verdict in verdicts] == [Outcome.GRADED] * 2


@linux
@pytest.mark.tf
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_the_grading_is_interrupted(
    models: Path,
    grader: Callable[[str, str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    end: signal.Signals,
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    asked = (models / "good.h5", grader("held_out", "import time; time.sleep(100)"))
    code = (
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from pathlib import Path; from orchestrator.grades.grade import *\n"
        f"list(grade([Candidate('c', Path({str(asked[0])!r}), Path({str(asked[1])!r}))]))"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)},
    )

    def forks() -> list[int]:
        return [fork for child in children(user.pid) for fork in children(child)]

    wait_until(forks)
    (grading,), (fork,) = children(user.pid), forks()
    user.send_signal(end)
    user.communicate()

    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in (grading, fork)))
    # Who is killed cannot clear away; the process it had started does.
    assert list(temporary.iterdir()) == []


ANSWERS = """
import sys
import keras, numpy as np
from orchestrator.grades import grading
from tensorflow import constant
keras.utils.set_random_seed(1)
random = np.random.default_rng(1)

def made(shape, *layers, **options):
    return keras.Sequential([keras.Input(shape, **options), *layers])

words = keras.layers.TextVectorization(output_sequence_length=3, vocabulary=["good", "bad"])
cases = {
    "a short last batch": (made((4,), keras.layers.Dense(2)), random.random((70, 4), "float32")),
    "one example": (made((4,), keras.layers.Dense(2)), random.random((1, 4), "float32")),
    "float64": (made((4,), keras.layers.Dense(2)), random.random((33, 4))),
    "sequences of any length": (made((None, 2), keras.layers.LSTM(3)), random.random((40, 7, 2))),
    "whole numbers": (
        made((5,), keras.layers.Embedding(9, 3), keras.layers.Flatten(), dtype="int32"),
        random.integers(0, 9, (40, 5)),
    ),
    "pictures": (
        made((8, 8, 1), keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization(),
             keras.layers.Dropout(0.5), keras.layers.GlobalMaxPooling2D()),
        random.random((40, 8, 8, 1), "float32"),
    ),
    "text": (
        made((1,), words, keras.layers.Embedding(9, 2), keras.layers.Flatten(), dtype="string"),
        np.array([["good"], ["bad day"], ["x"]] * 15, object),
    ),
    "batches of one size": (
        made((3, 2), keras.layers.LSTM(2, stateful=True), batch_size=32),
        random.random((64, 3, 2), "float32"),
    ),
}
for name, (model, x) in cases.items():
    expected = model.predict(constant(x) if x.dtype == object else x, verbose=0)
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_states()
    found = grading._answers(model, [x])
    assert found.dtype == expected.dtype, name
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    print(name)
"""


@pytest.mark.tf
def test_the_answers_are_those_of_keras_predict(tmp_path: Path) -> None:
    script = tmp_path / "answers.py"
    script.write_text(ANSWERS)
    quiet = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], env=os.environ | quiet, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 8


@pytest.mark.tf
def test_a_process_for_each_model_grades_the_same_where_forking_is_not_safe(
    models: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model.h5"
    copy.write_bytes((models / "good.h5").read_bytes())
    request = {"model": str(copy), "grader": str(models / "grader.py")}
    limits = {"memory_bytes": 4 * 2**30, "time_s": 60, "model_bytes": 10**6}
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); sys.argv[1:] = ['one']\n"
        "from orchestrator.grades import grading; grading.main()"
    )

    line = json.dumps({**request, "limits": limits}) + "\n"
    ending = run_spawned((sys.executable, "-c", code), line.encode(), LIMITS)

    answer = conclude(ending, LIMITS)
    assert (answer["outcome"], answer["value"]) == ("graded", 0.0), ending
