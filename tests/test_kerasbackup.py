"""With the real Keras: a fit goes on after a restart as if it had never been interrupted."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults.points import chosen, only_in_faults
from tests.test_kerashook import read_lines
from tests.test_launcher import start

pytestmark = [
    pytest.mark.tf,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
    ),
]

# Two fits of one model. The first is ended early by the script's own callback; the second is the
# one that is interrupted, as `DIE` says.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from tensorflow import keras
die = os.environ.get("DIE", "") if os.environ["TRAINSHED_RESTARTS"] == "0" else ""
begun = []
class Mine(keras.callbacks.Callback):
    def __init__(self, name):
        super().__init__()
        self.name = name
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        begun.append([self.name, epoch])
    def on_train_batch_begin(self, batch, logs=None):
        if die and self.name == "second" and (self.epoch, batch) == (int(die[-1]), 1):
            if "kill" in die:
                os.kill(os.getpid(), signal.SIGKILL)
            Path(os.environ["TRAINSHED_RUN"], "stop").touch()
            os.kill(os.getpid(), signal.SIGTERM)
    def on_epoch_end(self, epoch, logs=None):
        if self.name == "first" and epoch == 1:
            self.model.stop_training = True
x = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
y = x[:, :1] * 2 + 1
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
told = []
for name, epochs in (("first", 4), ("second", 5)):
    fitted = model.fit(x, y, 8, epochs, 0, callbacks=[Mine(name)], shuffle=False,
                       validation_data=(x, y))
    told.append([fitted.epoch, fitted.history])
import json
weights = [weight.tolist() for weight in model.get_weights()]
print(json.dumps({"begun": begun, "told": told, "weights": weights}))
"""
PYTHON = os.environ.get("TRAINSHED_TENSORFLOW_PYTHON", sys.executable)


def attempt(
    folder: Path, restarts: int, die: str = "", script: str = SCRIPT
) -> subprocess.CompletedProcess[str]:
    """One attempt of the supervisor's at the run in `folder`."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    (folder / "stop").unlink(missing_ok=True)
    (folder / "train.py").write_text(script)
    return start(
        folder,
        "exec python train.py",
        PYTHON,
        DIE=die,
        TRAINSHED_CHECKPOINTS=str(checkpoints),
        TRAINSHED_RESTARTS=str(restarts),
    )


@pytest.mark.parametrize(
    "die", chosen(["kill in epoch 2", "warn in epoch 2", "kill in epoch 0"], 1)
)
def test_a_fit_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path, die: str) -> None:
    whole = attempt(tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    expected = json.loads(whole.stdout)
    assert [epochs for epochs, _ in expected["told"]] == [[0, 1], [0, 1, 2, 3, 4]]

    first = attempt(tmp_path / "cut", 0, die)
    assert first.returncode == (-signal.SIGKILL if "kill" in die else 0), first.stderr
    second = attempt(tmp_path / "cut", 1)

    assert second.returncode == 0, second.stderr
    assert "no checkpoint" not in first.stderr + second.stderr
    found = json.loads(second.stdout)
    assert found["begun"] == [["second", epoch] for epoch in range(int(die[-1]), 5)]
    assert [epochs for epochs, _ in found["told"]] == [[0, 1], [0, 1, 2, 3, 4]]
    for (_, one), (_, other) in zip(found["told"], expected["told"], strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] == pytest.approx(other[name], rel=1e-5) for name in one)
    for made, wanted in zip(found["weights"], expected["weights"], strict=True):
        assert np.asarray(made) == pytest.approx(np.asarray(wanted), rel=1e-5)
    lines = {(line["fit"], line["epoch"]) for line in read_lines(tmp_path / "cut")}
    assert lines == {(1, 0), (1, 1), *((2, epoch) for epoch in range(5))}


@only_in_faults
def test_a_checkpoint_that_cannot_be_read_is_told_and_trained_from_the_beginning(
    tmp_path: Path,
) -> None:
    attempt(tmp_path, 0, "kill in epoch 2")
    for path in tmp_path.glob("checkpoints/fit-2/**/*"):
        if path.is_file() and path.suffix != ".json":
            path.write_bytes(b"no weights")

    done = attempt(tmp_path, 1)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("trainshed: no checkpoint") == 1
    assert "this fit trains from the beginning" in done.stderr
    found = json.loads(done.stdout)
    assert [epoch for _, epoch in found["begun"]] == [0, 1, 2, 3, 4]
    assert found["told"][1][0] == [0, 1, 2, 3, 4]
    # It is kept from the next epoch on.
    (kept,) = tmp_path.glob("checkpoints/fit-2/**/history.json")
    assert len(json.loads(kept.read_bytes())) == 5


@only_in_faults
def test_a_script_with_a_backup_of_its_own_keeps_it(tmp_path: Path) -> None:
    own = "keras.callbacks.BackupAndRestore('mine'), Mine(name)"
    attempt(
        tmp_path,
        0,
        "kill in epoch 2",
        SCRIPT.replace("callbacks=[Mine(name)]", f"callbacks=[{own}]"),
    )

    assert (tmp_path / "mine").exists()
    assert not list(tmp_path.glob("checkpoints/fit-*"))
