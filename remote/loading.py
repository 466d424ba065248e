"""Whether the models that a run made can be loaded where they were made, told before they leave.

It takes a process of the run's own interpreter: what loads a model may be a framework of gigabytes,
may end the process, and may never come back.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, List, Sequence, Tuple

from remote.record import Malformed, from_bytes, to_bytes
from remote.runfolder import Loading

Keras = Any
"""The module, which has no types."""

Json = Any
"""What `json.loads` gives."""

# A run's state stays small, whatever its job declares and Keras says.
LIMIT = 10
_TEXT_LIMIT = 300

# As long as `train doctor` waits for the same import: minutes, on a cold network disk.
_LIMIT_S = 180.0

# Keras 3 tells all of a layer's configuration before it tells what is wrong with it.
_LAYER = re.compile(r"deserializing class '(\w+)' using config=\{'name': '([^']*)'")


def load_models(
    python: str, package: Path, tree: Path, paths: Sequence[str], pause: Callable[[], None]
) -> Tuple[Loading, ...]:
    """Load each model in another process, without a GPU: the next run may have it by now.

    Args:
        python: absolute path of the interpreter.
        package: the zip file of `remote`.
        paths: of the models, below `tree`.
        pause: called while waiting; may raise to give up, and then the process is ended.

    Raises:
        OSError: there is no process to be had.
    """
    silent = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [python, str(package), "load", *paths],
        cwd=str(tree),
        env={**os.environ, **silent},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    why = ""
    end = time.monotonic() + _LIMIT_S
    with process.stdout as answers:
        try:
            while process.poll() is None and not why:
                pause()
                if time.monotonic() >= end:
                    why = f"it took more than {_LIMIT_S:g} s"
        finally:
            process.kill()
            process.wait()
        # All answers fit into a pipe; a process that it left may hold the other end for ever.
        os.set_blocking(answers.fileno(), False)
        told = (answers.read() or b"").split(b"\n")
    found: List[Loading] = []
    for line in told:
        with suppress(Malformed):
            found.append(from_bytes(Loading, line))
    why = why or f"the process that loaded it ended with {process.returncode}"
    # The first without an answer ended the process, and the others had no turn.
    silenced = [Loading(path, trouble=why) for path in paths[len(found) : len(found) + 1]]
    return tuple(found[: len(paths)] + silenced)


def main(paths: Sequence[str]) -> None:
    """Load each and tell of it on stdout, a line each."""
    # Whatever the framework prints there must not be taken for an answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    for path in paths:
        os.write(answers, to_bytes(_load(path)))


def _load(path: str) -> Loading:
    versions, keras = "", None
    try:
        tensorflow: Any = importlib.import_module("tensorflow")
        keras = tensorflow.keras
        # TensorFlow 2.13 to 2.15 hide it; elsewhere this may be another Keras than `import keras`.
        version = getattr(keras, "__version__", "") or importlib.import_module("keras").__version__
        versions = f"tensorflow {tensorflow.__version__}, keras {version}"
        model = keras.models.load_model(path, compile=False)
        return Loading(path, versions, _shapes(model.inputs), _shapes(model.outputs))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
        where = _named_layer(error) or _refused_layer(keras, path, str(error))
        return Loading(path, versions, trouble=f"{where}{_said(error)}"[:_TEXT_LIMIT])


def _shapes(tensors: Sequence[Any]) -> Tuple[str, ...]:
    """As `(any, 28, 28, 1)`."""
    shapes = [", ".join("any" if n is None else str(n) for n in one.shape) for one in tensors]
    return tuple(f"({shape})"[:_TEXT_LIMIT] for shape in shapes[:LIMIT])


def _named_layer(error: Exception) -> str:
    """The layer that Keras itself names; empty for none."""
    found = _LAYER.search(str(error))
    return f"layer '{found[2]}' of class {found[1]}: " if found else ""


def _refused_layer(keras: Keras, path: str, trouble: str) -> str:
    """The first layer that has the model's trouble when it is made alone; empty for none.

    Keras 2 tells the keyword that it does not understand, and not whose.
    """
    with suppress(Exception):
        for layer in _config(path)["config"]["layers"]:
            try:
                keras.layers.deserialize(layer)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is compared
                if str(error) == trouble:
                    return f"layer '{layer['config']['name']}' of class {layer['class_name']}: "
    return ""


def _config(path: str) -> Json:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    h5py: Any = importlib.import_module("h5py")
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs["model_config"])


def _said(error: Exception) -> str:
    """What was wrong at the bottom of it."""
    # Keras 2 raises TypeError("Keyword argument not understood:", "axis").
    text = " ".join(map(str, error.args)) or str(error)
    last = text.rpartition("Exception encountered: ")[2]
    return f"{type(error).__name__}: {' '.join(last.split())}"
