"""TensorBoard over the runs of a workspace, with the real TensorBoard and the real Keras."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from orchestrator.settings.spec import EnvSpec
from tests.boards import OWN, add, board
from tests.laptop import Laptop, make_laptop, wait_until
from tests.servers import SshServer

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed"
    ),
]

# It waits in the middle of its fit until it is told to go on.
FIT = """
import os, pathlib, time
import numpy as np
from tensorflow import keras
go = pathlib.Path(os.environ["PARAM_go"])
class Wait(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        while epoch == 2 and not go.exists():
            time.sleep(0.05)
x = np.ones((32, 3), "float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(x, x[:, :1], epochs=4, verbose=0, validation_data=(x, x[:, :1]), callbacks=[Wait()])
(pathlib.Path(__file__).parent / "done.txt").touch()
"""


@pytest.fixture
def laptop(tmp_path: Path, embedded_server: SshServer) -> Laptop:
    laptop = make_laptop(tmp_path, None)
    laptop.add_remote(embedded_server, env=EnvSpec(sys.executable))
    return laptop


@pytest.mark.tf
def test_curves_grow_while_the_run_goes_on(laptop: Laptop, tmp_path: Path) -> None:
    add(laptop, "one", FIT, tensorboard=True)
    go = tmp_path / "go"
    laptop.ok("one", "--remote", "vm", "--detach", "-p", f"go={go}")
    (run_id,) = laptop.states()
    curve = f"{run_id}/fit-1/validation", "epoch_loss"

    with board(laptop, "one") as shown:
        wait_until(lambda: shown.steps(*curve) == [0, 1], "two epochs")
        go.touch()
        wait_until(lambda: shown.steps(*curve) == [0, 1, 2, 3], "four epochs")
        assert shown.runs() == {f"{run_id}/fit-1/{part}" for part in ("train", "validation")}


def test_what_a_script_wrote_is_shown_also_when_the_machine_is_gone(
    laptop: Laptop,
) -> None:
    add(laptop, "one", OWN, tensorboard=True)
    add(laptop, "two", OWN)
    laptop.ok("--remote", "vm")
    one, two = sorted(laptop.states())

    with board(laptop, "one", "two") as shown:
        wait_until(lambda: shown.steps(f"{two}/logs/mine", "loss") == [7], "fetched now")
    laptop.ok("remote", "remove", "vm", "--force")
    with board(laptop) as shown:
        wait_until(lambda: shown.steps(f"{one}/logs/mine", "loss") == [7], "pulled with the run")
        assert shown.runs() == {f"{one}/logs/mine", f"{two}/logs/mine"}


def test_without_event_files_it_says_how_to_get_some(laptop: Laptop) -> None:
    add(laptop, "one", "open('one/done.txt', 'w')\n")
    done = laptop.train("tensorboard")
    assert done.returncode == 2
    assert "there are no event files to show" in done.stderr
    assert "tensorboard: on" in done.stderr

    laptop.ok("--remote", "vm")
    done = laptop.train("tensorboard", "one", "--no-browser")
    assert done.returncode == 2
    assert "tensorboard: on" in done.stderr


def test_while_a_run_writes_none_it_says_what_would(laptop: Laptop) -> None:
    gate = laptop.root.parent / "gate"
    add(
        laptop,
        "one",
        f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)\n"
        "open('one/done.txt', 'w')\n",
    )
    laptop.ok("--remote", "vm", "--detach")
    with laptop.start("tensorboard", "--no-browser") as process:
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any("no event files yet; a job's `tensorboard: on` writes them" in s for s in said)
        gate.touch()
        assert process.wait(30) == 2


def test_without_tensorboard_it_says_how_to_install_it(laptop: Laptop, tmp_path: Path) -> None:
    (tmp_path / "tensorboard.py").write_text("raise ImportError('not here')\n")
    add(laptop, "one", OWN, tensorboard=True)
    laptop.ok("--remote", "vm")

    done = laptop.train("tensorboard", PYTHONPATH=str(tmp_path))

    assert done.returncode == 2
    assert "pip install 'trainshed[tensorboard]'" in done.stderr
