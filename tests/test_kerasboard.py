"""Fits write event files where the job says so; whatever goes wrong with that, they go on.

With a stand-in of Keras and its TensorBoard, on every interpreter there is; the real one is in
test_tensorboard.py.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.test_kerashook import install, read_lines
from tests.test_launcher import INTERPRETERS, start

# What it is told goes into a file, which is what it would write.
BOARD = """
import os
class TensorBoard(Callback):
    trouble = ""
    def __init__(self, log_dir, **options):
        self.log_dir, self.options, self._writers = log_dir, options, {"train": self}
        self.fail("make")
    def fail(self, where):
        if self.trouble == where:
            raise RuntimeError("no space for " + where)
    def note(self, *words):
        os.makedirs(self.log_dir, exist_ok=True)
        with open(os.path.join(self.log_dir, "told"), "a") as file:
            print(*words, file=file)
    def flush(self): self.note("flush")
    def on_train_begin(self, logs=None): pass
    def on_epoch_begin(self, epoch, logs=None): self.fail("begin")
    def on_epoch_end(self, epoch, logs=None):
        self.fail("end")
        self.note("epoch", epoch, logs["loss"])
    def on_train_end(self, logs=None): self.note("end")
"""
USUAL = """
from keras import Sequential
from keras.callbacks import TensorBoard
"""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a run"
    folder.mkdir()
    install(folder)
    with (folder / "keras" / "callbacks.py").open("a") as file:
        file.write(BOARD)
    for package in ("tensorboard", "tensorflow"):
        (folder / f"{package}.py").touch()
    return folder


def train(
    run_folder: Path, script: str, python: str = INTERPRETERS[0]
) -> subprocess.CompletedProcess[str]:
    (run_folder / "train.py").write_text(USUAL + textwrap.dedent(script))
    events = os.fspath(run_folder / "events")
    return start(run_folder, "exec python train.py", python, TRAINSHED_EVENTS=events)


def written(run_folder: Path) -> dict[str, str]:
    files = (run_folder / "events").glob("*/told")
    return {file.parent.name: file.read_text() for file in files}


@pytest.mark.parametrize("python", INTERPRETERS)
def test_each_fit_writes_its_epochs_into_a_folder_of_its_own(run_folder: Path, python: str) -> None:
    done = train(run_folder, "Sequential().fit(epochs=2)\nSequential().fit()\n", python)

    assert (done.returncode, done.stderr) == (0, "")
    assert written(run_folder) == {
        "fit-1": "epoch 0 0.5\nflush\nepoch 1 0.5\nflush\n",
        "fit-2": "epoch 0 0.5\nflush\n",
    }
    assert len(read_lines(run_folder)) == 3


@pytest.mark.parametrize("given", ["[Mine('own')]", "Mine('own')", "CallbackList([Mine('own')])"])
def test_a_script_that_writes_its_own_is_left_alone(run_folder: Path, given: str) -> None:
    done = train(
        run_folder,
        f"""
        from keras.callbacks import CallbackList
        class Mine(TensorBoard): pass
        Sequential().fit(callbacks={given})
        """,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert written(run_folder) == {}
    assert (run_folder / "own" / "told").exists()


@pytest.mark.parametrize("trouble", ["make", "begin", "end"])
def test_a_tensorboard_that_fails_is_told_once_and_the_fit_goes_on(
    run_folder: Path, trouble: str
) -> None:
    done = train(
        run_folder, f"TensorBoard.trouble = '{trouble}'\nprint(Sequential().fit(epochs=3))\n"
    )

    assert (done.returncode, done.stdout) == (0, "6\n")
    assert done.stderr.count("TensorBoard") == 1
    assert f"RuntimeError: no space for {trouble}" in done.stderr
    assert written(run_folder) == {}
    assert len(read_lines(run_folder)) == 3


@pytest.mark.parametrize("package", ["tensorboard", "tensorflow"])
def test_a_machine_without_the_packages_says_so_once(run_folder: Path, package: str) -> None:
    (run_folder / f"{package}.py").write_text(f"import no_{package}\n")

    done = train(run_folder, "print(Sequential().fit())\nprint(Sequential().fit())\n")

    assert (done.returncode, done.stdout) == (0, "2\n2\n")
    assert done.stderr == (
        f"trainshed: no TensorBoard events: ModuleNotFoundError: No module named 'no_{package}'; "
        f"this machine needs: pip install no_{package}\n"
    )
    assert len(read_lines(run_folder)) == 2
