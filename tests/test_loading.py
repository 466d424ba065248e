"""Models that are loaded where they were made, before the way home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.loads import loading_text, loadings_text
from orchestrator.records.mirror import Mirror
from orchestrator.settings.spec import EnvSpec
from orchestrator.vm.link import Link
from remote import clock
from remote.protocol import Cancel, Done
from remote.record import from_bytes
from remote.runfolder import Loading, RunState, State
from tests.laptop import make_laptop
from tests.servers import SshServer
from tests.vm import REPOSITORY, Vm, practice, quoted_python, wait_until

# Stands for the VM's TensorFlow; what a model file holds is what happens when it is loaded.
TENSORFLOW = """
import os, pathlib, time

__version__ = "2.12.0"
print("a remark on stdout", end="", flush=True)

class keras:
    __version__ = "2.12.0"

    class layers:
        @staticmethod
        def deserialize(layer):
            if "score_mode" in layer["config"]:
                raise TypeError("Keyword argument not understood:", "score_mode")

    class models:
        @staticmethod
        def load_model(path, compile):
            assert not compile
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
            exec(pathlib.Path(path).read_text())
            return Model

class Tensor:
    def __init__(self, *shape):
        self.shape = shape

class Model:
    inputs = [Tensor(None, 4), Tensor(None, None, 3)]
    outputs = [Tensor(None, 1)]
"""
UNKNOWN = "raise ValueError(\"Unknown layer: 'Own'.\\nPlease ensure\")"
UNDERSTOOD = "raise TypeError('Keyword argument not understood:', 'score_mode')"
# Stands for the VM's h5py: whatever is opened has this configuration.
H5PY = """
class File:
    attrs = {{"model_config": {!r}}}
    def __init__(self, path, mode): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
"""
VERSIONS = "tensorflow 2.12.0, keras 2.12.0"
LOADED = Loading("m.h5", VERSIONS, ("(any, 4)", "(any, any, 3)"), ("(any, 1)",))


@pytest.fixture
def vm(embedded_server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(embedded_server, tmp_path) as vm:
        (tmp_path / "tensorflow.py").write_text(TENSORFLOW)
        yield vm


def begin(vm: Vm, link: Link, models: dict[str, str], last: str = "true", **keys: object) -> Mirror:
    """A run that saves models, each a text, and ends with a command."""
    for name, text in models.items():
        vm.write(f"{name}.txt", text)
    saving = [f"cp {name}.txt {name}" for name in models]
    python = vm.program("keras", f"PYTHONPATH='{vm.folder}' exec {quoted_python()}")
    values = {"outputs": tuple(models), "env": EnvSpec(python), "check": True, **keys}
    return vm.start(link, "; ".join([*saving, last]), **values)  # type: ignore[arg-type]


def end(vm: Vm, link: Link, mirror: Mirror) -> RunState:
    (report,) = vm.finish(link, mirror)
    assert report.state is not None
    return report.state


def test_what_loads_is_told_with_versions_and_shapes(vm: Vm) -> None:
    link = vm.connect()
    state = end(vm, link, begin(vm, link, {"m.h5": "pass"}))

    assert state.state is State.SUCCEEDED
    assert state.loadings == (LOADED,)
    assert b"looking whether it can be loaded: m.h5" in vm.log()


def test_a_model_that_does_not_load_fails_no_run_and_the_next_has_its_turn(vm: Vm) -> None:
    link = vm.connect()
    state = end(vm, link, begin(vm, link, {"bad.keras": UNKNOWN, "m.h5": "pass"}))

    assert state.state is State.SUCCEEDED
    trouble = "ValueError: Unknown layer: 'Own'. Please ensure"
    assert state.loadings == (Loading("bad.keras", VERSIONS, trouble=trouble), LOADED)


def test_where_keras_names_no_layer_it_is_found_in_the_configuration(vm: Vm) -> None:
    layers = [
        {"class_name": "Dense", "config": {"name": "hidden"}},
        {"class_name": "Attention", "config": {"name": "looks", "score_mode": "dot"}},
        {"class_name": "Attention", "config": {"name": "again", "score_mode": "dot"}},
    ]
    (vm.folder / "h5py.py").write_text(H5PY.format(json.dumps({"config": {"layers": layers}})))
    link = vm.connect()
    state = end(vm, link, begin(vm, link, {"m.h5": UNDERSTOOD, "n.h5": UNKNOWN}))

    assert [loading.trouble for loading in state.loadings] == [
        "layer 'looks' of class Attention: TypeError: Keyword argument not understood: score_mode",
        "ValueError: Unknown layer: 'Own'. Please ensure",
    ]


def test_a_model_that_ends_the_process_is_told_and_those_before_it(vm: Vm) -> None:
    link = vm.connect()
    kill = "os.kill(os.getpid(), 9)"
    state = end(vm, link, begin(vm, link, {"m.h5": "pass", "n.h5": kill, "o.h5": "pass"}))

    assert state.state is State.SUCCEEDED
    trouble = "the process that loaded it ended with -9"
    assert state.loadings == (LOADED, Loading("n.h5", trouble=trouble))


def test_a_python_without_tensorflow_is_told(vm: Vm) -> None:
    (vm.folder / "tensorflow.py").write_text("raise ModuleNotFoundError('No TensorFlow')")
    link = vm.connect()
    state = end(vm, link, begin(vm, link, {"m.h5": "pass"}))

    assert state.loadings == (Loading("m.h5", trouble="ModuleNotFoundError: No TensorFlow"),)


def test_to_cancel_while_a_model_is_loaded_ends_the_loading_and_not_the_success(vm: Vm) -> None:
    link = vm.connect()
    mirror = begin(vm, link, {"m.h5": "pathlib.Path('begun').touch(); time.sleep(600)"})
    wait_until((vm.run_folder().tree / "begun").exists, "it is being loaded")
    link.call(Cancel("run"), Done)
    state = end(vm, link, mirror)

    assert (state.state, state.loadings) == (State.SUCCEEDED, ())
    assert b"not looked at: cancelled by the user" in vm.log()


@pytest.mark.parametrize(
    ("last", "keys"),
    [
        ("false", {}),
        ("true", {"check": False}),
        ("true", {"outputs": ("*.h5",)}),
        ("true", {"outputs": ("m.h5.txt",)}),
    ],
    ids=["failed", "not asked", "not named", "no model"],
)
def test_nothing_else_is_loaded(vm: Vm, last: str, keys: dict[str, object]) -> None:
    link = vm.connect()
    state = end(vm, link, begin(vm, link, {"m.h5": "pass"}, last, **keys))

    assert state.loadings == ()
    assert b"looking" not in vm.log()


def test_follow_status_and_ready_tell_of_it(embedded_server: SshServer, tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(TENSORFLOW)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec {quoted_python()} "$@"\n')
    python.chmod(0o755)
    laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_job("a", check="on", env={"python": str(python)})
    done = laptop.train("run", "a", "--remote", "vm", "--param", "model=pass")
    told = f"a/mymodel.h5 loads there with {VERSIONS}: (any, 4) and (any, any, 3) -> (any, 1)"

    assert f"• {told}" in done.stderr
    assert told in laptop.train("status", "--local").stdout
    (row,) = laptop.json("status", "--local")
    assert row["loadings"][0]["inputs"] == ["(any, 4)", "(any, any, 3)"]
    assert f"{row['run']}: {told}" in laptop.train("ready").stdout

    laptop.train("run", "a", "--remote", "vm", "--param", f"model={UNKNOWN}")
    bad = f"mymodel.h5 does not load there with {VERSIONS}: ValueError: Unknown layer: 'Own'."
    assert bad in laptop.train("status", "--local").stdout


def test_what_a_vm_says_of_its_models_cannot_steer_the_terminal() -> None:
    evil = Loading("a/\x1b[2J.h5", "\x1b]0;", trouble="\x1b[31m")
    state = RunState(State.SUCCEEDED, clock.now(), loadings=(evil, LOADED))

    assert "\x1b" not in loadings_text(state)
    assert LOADED.path not in loadings_text(state)
    assert "\x1b" not in loading_text(evil)


@pytest.mark.tf
def test_a_real_keras_loads_what_it_can_and_names_the_layer_that_it_cannot(tmp_path: Path) -> None:
    with zipfile.ZipFile(REPOSITORY / "tests" / "models" / "tf2.21.zip") as archive:
        archive.extractall(tmp_path)
    models = ["two_inputs.keras", "heads.h5", "own_layer.h5"]
    done = subprocess.run(
        [sys.executable, "-m", "remote", "load", *(str(tmp_path / name) for name in models)],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        check=True,
    )
    good, attention, own = (from_bytes(Loading, line) for line in done.stdout.splitlines())

    assert good.trouble == ""
    assert good.versions.startswith("tensorflow 2.")
    assert (len(good.inputs), len(good.outputs)) == (2, 1)
    assert attention.trouble.startswith("layer 'attention' of class Attention: ")
    assert "OwnLayer" in own.trouble
