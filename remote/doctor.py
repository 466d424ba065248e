"""What a machine has: interpreter, GPUs as the driver and as the framework see them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from typing import List, Tuple

from remote.environment import SetupFailed, environment_python, find_python
from remote.gpu import Gpu, GpuTrouble, read_gpus
from remote.protocol import Examine, Examined
from remote.store import Store
from remote.trouble import explain

# Importing TensorFlow took 5 s on a laptop's SSD and minutes on a cold network disk.
_FRAMEWORK_LIMIT_S = 180.0

_ANSWER = "trainshed: "

_QUESTION = f"""
import json
import tensorflow as tf
name = "tensorflow " + tf.__version__
try:
    import keras
    name += ", keras " + keras.__version__
except Exception:
    pass
gpus = [d.name for d in tf.config.list_physical_devices("GPU")]
print("\\n{_ANSWER}" + json.dumps([name, gpus]))
"""


def examine(store: Store, call: Examine) -> Examined:
    """Look at the machine; every trouble is told, none is raised."""
    driver, driver_trouble = _driver()
    unusable, store_fix = _unusable(store)
    python, framework, trouble = "", "", ""
    gpus: Tuple[str, ...] = ()
    try:
        python = find_python(call.python)
        if call.requirements:
            python = environment_python(store, python, call.requirements.encode()) or python
        if unusable:
            trouble = "not asked, because the store cannot be used"
        elif call.framework:
            framework, gpus, trouble = _framework(store, python)
    except SetupFailed as error:
        trouble = str(error)
    except OSError as error:
        trouble = f"{python} cannot be executed: {error.strerror}"
    return Examined(python, driver, driver_trouble, framework, gpus, trouble, unusable, store_fix)


def _driver() -> Tuple[Tuple[str, ...], str]:
    try:
        gpus = read_gpus()
    except GpuTrouble as error:
        return (), str(error)
    return tuple(map(_told, gpus)), ""


def _told(gpu: Gpu) -> str:
    known = f", compute capability {gpu.compute_cap}" if gpu.compute_cap else ""
    return f"{gpu.name}, {gpu.memory_total_mib} MiB, driver {gpu.driver}{known}"


def _framework(store: Store, python: str) -> Tuple[str, Tuple[str, ...], str]:
    # Not in /tmp, which may be tiny; what is wrong with this folder is told anyway.
    folder = str(store.root)
    with tempfile.TemporaryFile(dir=folder) as out, tempfile.TemporaryFile(dir=folder) as err:
        process = subprocess.Popen(
            [python, "-c", _QUESTION], stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        end = time.monotonic() + _FRAMEWORK_LIMIT_S
        while process.poll() is None:
            if time.monotonic() >= end:
                process.kill()
                process.wait()
                return "", (), f"importing it took more than {_FRAMEWORK_LIMIT_S:g} s"
            store.tick()
            time.sleep(0.05)
        out.seek(0)
        err.seek(0)
        lines: List[str] = out.read().decode("utf-8", "replace").split("\n")
        last = err.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
    if process.returncode:
        return "", (), last[:300] or f"the question ended with {process.returncode}"
    # Last, but for what a library prints at its end.
    answers = [line for line in lines if line.startswith(_ANSWER)]
    if not answers:
        return "", (), "the question was not answered"
    name, gpus = json.loads(answers[-1][len(_ANSWER) :])
    return str(name), tuple(map(str, gpus)), ""


def _unusable(store: Store) -> Tuple[str, str]:
    """What keeps the store from being used, and what would mend it; empty if nothing does."""
    try:
        with tempfile.NamedTemporaryFile(dir=str(store.root)) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.chmod(file.name, 0o444)  # noqa: PTH101  # as every content is
        with store.untidied():
            pass
    except OSError as error:
        no = explain(error, store.root)
        return no.message, no.fix
    return "", ""
