"""Fits are watched, in every Keras; whatever the watcher does, the training is untouched.

Most tests use a stand-in with Keras's class, names and order of calls, on every interpreter there
is; the last one uses the Keras that is installed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.test_launcher import INTERPRETERS, start

# `x` is called at each of the `y` batches of an epoch.
TRAINING = """
from {callbacks} import CallbackList
class Model:
    logs = {{"loss": 0.5}}
    stop_training = False
    def fit(self, x=None, y=2, batch_size=None, epochs=1, verbose=1, callbacks=None):
        if not isinstance(callbacks, CallbackList):
            callbacks = CallbackList(callbacks, model=self, epochs=epochs)
        self.stop_training, self.batches = False, 0
        for epoch in range(epochs):
            callbacks.call("on_epoch_begin", epoch)
            for batch in range(y):
                callbacks.call("on_train_batch_begin", batch)
                self.batches += 1
                x and x()
                if self.stop_training:
                    break
            callbacks.call("on_epoch_end", epoch, self.logs)
            if self.stop_training:
                break
        return self.batches
class Sequential(Model):
    pass
"""
CALLBACKS = """
class Callback:
    def set_model(self, model): self.model = model
    def set_params(self, params): self.params = params
    def on_epoch_begin(self, epoch, logs=None): pass
    def on_epoch_end(self, epoch, logs=None): pass
    def on_train_batch_begin(self, batch, logs=None): pass
class CallbackList:
    def __init__(self, callbacks=None, model=None, **params):
        self.params = params
        one = isinstance(callbacks, Callback)
        self.callbacks = [callbacks] if one else list(callbacks or [])
        for callback in self.callbacks:
            callback.set_model(model)
            callback.set_params(params)
    def append(self, callback): self.callbacks.append(callback)
    def call(self, name, *arguments):
        for callback in self.callbacks:
            getattr(callback, name)(*arguments)
"""
USUAL = """
import os, signal, sys
from pathlib import Path
from keras import Sequential, callbacks
RUN = Path(os.environ["TRAINSHED_RUN"])
def sigterm(): os.kill(os.getpid(), signal.SIGTERM)
model = Sequential()
"""


def install(folder: Path, training: str = "keras") -> None:
    """Put a stand-in of Keras beside the script; `training` is the module that holds `Model`."""
    package = training.partition(".engine")[0]
    place = folder.joinpath(*package.split("."))
    place.mkdir(parents=True)
    for above in [place, *place.parents]:
        if above == folder:
            break
        (above / "__init__.py").touch()
    (place / "callbacks.py").write_text(CALLBACKS)
    if training == package:
        module = place / "__init__.py"
    else:
        (place / "engine").mkdir()
        (place / "engine" / "__init__.py").touch()
        module = place / "engine" / "training.py"
    module.write_text(TRAINING.format(callbacks=f"{package}.callbacks"))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a run"
    folder.mkdir()
    install(folder)
    return folder


def train(
    run_folder: Path, script: str, python: str = INTERPRETERS[0], usual: str = USUAL
) -> subprocess.CompletedProcess[str]:
    (run_folder / "train.py").write_text(usual + textwrap.dedent(script))
    # As the supervisor starts it: the shell outlives a warning to the whole group.
    return start(run_folder, "exec python train.py", python)


def read_lines(run_folder: Path) -> list[dict[str, object]]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    text = (run_folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@pytest.mark.parametrize("python", INTERPRETERS)
@pytest.mark.parametrize(
    "training", ["keras", "tf_keras", "tensorflow.python.keras.engine.training"]
)
def test_each_epoch_of_each_fit_is_a_line(tmp_path: Path, python: str, training: str) -> None:
    install(tmp_path, training)

    done = train(
        tmp_path,
        """
        Sequential().fit(epochs=2)
        Model().fit(epochs=1)
        """,
        python,
        usual=f"from {training} import Model, Sequential\n",
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = read_lines(tmp_path)
    assert [(line["fit"], line["epoch"], line["epochs"]) for line in lines] == [
        (1, 0, 2),
        (1, 1, 2),
        (2, 0, 1),
    ]
    for line in lines:
        assert set(line) == {"fit", "epoch", "epochs", "at", "seconds", "metrics"}
        assert line["metrics"] == {"loss": 0.5}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(line["at"]))
        assert 0 <= float(str(line["seconds"])) < 60


@pytest.mark.parametrize(
    "arguments",
    [
        "epochs=2",
        "epochs=2, callbacks=None",
        "epochs=2, callbacks=[]",
        "epochs=2, callbacks=[mine]",
        "epochs=2, callbacks=(mine,)",
        "epochs=2, callbacks=mine",
        "None, 2, 32, 2, 0, [mine]",
        "epochs=2, callbacks=callbacks.CallbackList([mine], model=model, epochs=2)",
    ],
)
def test_the_user_s_callbacks_are_called_as_ever(run_folder: Path, arguments: str) -> None:
    done = train(
        run_folder,
        f"""
        class Mine(callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None): print(epoch, logs)
        mine = Mine()
        model.fit({arguments})
        """,
    )

    expected = "0 {'loss': 0.5}\n1 {'loss': 0.5}\n" if "mine" in arguments else ""
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    assert [(line["epoch"], line["epochs"]) for line in read_lines(run_folder)] == [(0, 2), (1, 2)]


def test_a_list_used_for_two_fits_gets_one_line_an_epoch(run_folder: Path) -> None:
    done = train(
        run_folder,
        """
        plain = [callbacks.Callback()]
        model.fit(callbacks=plain)
        model.fit(callbacks=plain)
        assert len(plain) == 1
        owned = callbacks.CallbackList(plain, model=model, epochs=1)
        model.fit(callbacks=owned)
        model.fit(callbacks=owned)
        """,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert [line["fit"] for line in read_lines(run_folder)] == [1, 2, 3, 4]


def test_a_metric_that_is_no_finite_number_is_null_and_what_is_no_number_is_left_out(
    run_folder: Path,
) -> None:
    train(
        run_folder,
        """
        class Scalar:
            def __float__(self): return 1.5
        model.logs = {"a": float("nan"), "b": float("-inf"), "c": 3, "d": Scalar(),
                      "e": [1, 2], "f": "word", "naïve\\n": 0.0, 7: 1e300}
        model.fit()
        model.logs = None
        model.fit()
        """,
    )

    first, second = read_lines(run_folder)
    assert first["metrics"] == {
        "a": None,
        "b": None,
        "c": 3.0,
        "d": 1.5,
        "naïve\n": 0.0,
        "7": 1e300,
    }
    assert second["metrics"] == {}


@pytest.mark.parametrize("call", ["fit(x=lambda: 1 / 0)", "fit(nosuch=1)", "fit(*range(9))"])
def test_an_error_in_fit_is_the_user_s(run_folder: Path, call: str) -> None:
    done = train(run_folder, f"model.{call}")

    assert done.returncode == 1
    assert re.search(r"^(ZeroDivisionError|TypeError: (Model\.)?fit\(\))", done.stderr, re.M)
    assert "trainshed:" not in done.stderr


def test_keras_that_cannot_be_imported_says_so_itself_and_can_be_tried_again(
    run_folder: Path,
) -> None:
    package = run_folder / "keras"
    (package / "__init__.py").rename(package / "src.py")
    (package / "__init__.py").write_text(
        "import os\n"
        "if 'KERAS' not in os.environ: raise RuntimeError('no backend')\n"
        "from keras.src import Model, Sequential\n"
    )

    done = train(
        run_folder,
        """
        import importlib.util, os
        assert importlib.util.find_spec("keras").name == "keras"
        try:
            import keras
        except RuntimeError as error:
            print(error)
        os.environ["KERAS"] = ""
        import keras
        importlib.reload(keras)
        keras.Sequential().fit()
        assert type(keras.__loader__).__name__ == "SourceFileLoader"
        assert "exec_module" not in vars(keras.__loader__)
        """,
        usual="",
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "no backend\n", "")
    assert len(read_lines(run_folder)) == 1


BREAKAGES = {
    "no file can be made": "(RUN / 'metrics.jsonl').mkdir()",
    "the disk is full": (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    ),
    "no callbacks": "sys.modules['keras.callbacks'] = None",
    "a Callback of another kind": "callbacks.Callback.__init__ = lambda self, must: None",
    "no locks": "import fcntl\ndef flock(*a): raise OSError(37, 'no locks')\nfcntl.flock = flock",
}


@pytest.mark.parametrize("python", INTERPRETERS)
@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_when_watching_breaks_it_is_said_once_and_training_goes_on(
    run_folder: Path, python: str, breakage: str
) -> None:
    done = train(
        run_folder,
        f"{breakage}\nprint(model.fit(epochs=3))\nprint(model.fit(epochs=2))",
        python,
    )

    assert (done.returncode, done.stdout) == (0, "6\n4\n"), done.stderr
    assert re.fullmatch(r"trainshed: metrics are off: \w+: .*\n", done.stderr)


@pytest.mark.parametrize(
    ("script", "batches"),
    [("(RUN / 'metrics.jsonl').mkdir()", 6), ("(RUN / 'stop').touch()", 1)],
    ids=["metrics that cannot be written", "a warning"],
)
def test_what_cannot_be_said_ends_no_training(run_folder: Path, script: str, batches: int) -> None:
    full = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"
    done = train(run_folder, f"{full}\n{script}\nprint(model.fit(epochs=3))")

    assert (done.returncode, done.stdout) == (0, f"{batches}\n")


def test_epochs_may_be_any_whole_number(run_folder: Path) -> None:
    done = train(
        run_folder,
        """
        class Two:  # as numpy's are
            def __index__(self):
                return 2
        model.fit(epochs=Two())
        """,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert [line["epochs"] for line in read_lines(run_folder)] == [2, 2]


def test_a_keras_without_fit_is_left_alone(run_folder: Path) -> None:
    (run_folder / "keras" / "__init__.py").write_text("class Model:\n    pass\n")

    done = train(run_folder, "import keras; print(keras.Model)", usual="")

    assert (done.returncode, done.stdout) == (0, "<class 'keras.Model'>\n")
    assert done.stderr.startswith("trainshed: metrics are off: AttributeError: ")


def test_a_broken_hook_leaves_the_script_alone(run_folder: Path) -> None:
    start(run_folder, "true")
    (run_folder / "train.py").write_text(USUAL + "print(model.fit())")
    (run_folder / "site" / "kerashook.py").write_text("def")

    done = subprocess.run(
        [run_folder / "bin" / "python", "train.py"],
        cwd=run_folder,
        env={"TRAINSHED_RUN": str(run_folder)},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (0, "2\n")
    assert done.stderr.startswith("trainshed: metrics are off: SyntaxError: ")


@pytest.mark.parametrize("python", INTERPRETERS)
def test_the_stop_file_ends_each_fit_after_a_batch_and_the_script_goes_on(
    run_folder: Path, python: str
) -> None:
    done = train(
        run_folder,
        """
        (RUN / "stop").touch()
        print(model.fit(epochs=9), model.fit(epochs=9))
        (RUN / "model.h5").write_text("saved")
        """,
        python,
    )

    assert (done.returncode, done.stdout) == (0, "1 1\n")
    assert done.stderr == (
        "trainshed: time is nearly up: fit ends after its next batch, and the script goes on\n"
    )
    assert len(read_lines(run_folder)) == 2
    assert (run_folder / "model.h5").exists()


def test_the_stop_file_is_looked_for_at_most_once_a_second(run_folder: Path) -> None:
    done = train(
        run_folder,
        """
        import time
        clock = [100.0]
        time.monotonic = lambda: clock[0]
        def batch():
            (RUN / "stop").touch()
            clock[0] += 0.25
        print(model.fit(batch, 100))
        """,
    )

    assert done.stdout == "5\n"


@pytest.mark.parametrize("python", INTERPRETERS)
def test_sigterm_in_a_fit_ends_it_after_its_next_batch(run_folder: Path, python: str) -> None:
    done = train(
        run_folder,
        """
        print(model.fit(lambda: model.batches == 3 and sigterm(), 10, epochs=9))
        print(model.fit(None, 10))
        """,
        python,
    )

    assert (done.returncode, done.stdout) == (0, "4\n1\n")
    assert done.stderr.count("trainshed: time is nearly up") == 1


@pytest.mark.parametrize(
    "script",
    [
        "sigterm()",
        "model.fit(); sigterm()",
        "(RUN / 'stop').touch(); sigterm()",
        "model.fit(lambda: [sigterm(), sigterm()])",
        "(RUN / 'stop').touch(); model.fit(); sigterm(); sigterm()",
        "model.fit(sigterm); sigterm()",
        "signal.signal(signal.SIGTERM, signal.SIG_DFL); model.fit(); sigterm()",
    ],
)
def test_sigterm_kills_when_it_is_no_warning_or_the_second(run_folder: Path, script: str) -> None:
    done = train(run_folder, f"{script}\nprint('survived')")

    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_a_warning_while_the_model_is_being_saved_lets_it_be_saved(run_folder: Path) -> None:
    done = train(run_folder, "model.fit(); (RUN / 'stop').touch(); sigterm(); print('saved')")

    assert (done.returncode, done.stdout) == (0, "saved\n")


@pytest.mark.parametrize(
    "own", ["signal.SIG_IGN", "lambda *_: print('mine')"], ids=["ignored", "handled"]
)
def test_what_the_script_does_with_sigterm_is_left_to_it(run_folder: Path, own: str) -> None:
    done = train(run_folder, f"signal.signal(signal.SIGTERM, {own}); print(model.fit(sigterm, 1))")

    assert done.returncode == 0
    assert done.stdout.split() in (["1"], ["mine", "1"])
    assert done.stderr == ""


def test_a_fit_in_a_thread_is_logged_and_stopped_by_the_file(run_folder: Path) -> None:
    done = train(
        run_folder,
        """
        import threading
        (RUN / "stop").touch()
        thread = threading.Thread(target=lambda: print(model.fit(epochs=9)))
        thread.start(); thread.join()
        """,
    )

    assert (done.returncode, done.stdout) == (0, "1\n")
    assert len(read_lines(run_folder)) == 1


@pytest.mark.parametrize("python", INTERPRETERS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_process_dies_of_sigterm_and_logs_nothing(
    run_folder: Path, python: str, method: str
) -> None:
    done = train(
        run_folder,
        f"""
        import multiprocessing, time
        def work(pipe):
            Sequential().fit(epochs=5)
            pipe.send(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
            time.sleep(60)
        def idle(pipe):
            pipe.send(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
            time.sleep(60)
        def batch():
            context = multiprocessing.get_context("{method}")
            for target in work, idle:
                here, there = context.Pipe()
                process = context.Process(target=target, args=(there,))
                process.start()
                here.recv()
                process.terminate()
                process.join(30)
                print(process.exitcode)
        if __name__ == "__main__":
            model.fit(batch, 1)
        """,
        python,
    )

    assert (done.returncode, done.stdout) == (0, "-15\n-15\n"), done.stderr
    assert [line["fit"] for line in read_lines(run_folder)] == [1]


def test_processes_one_after_the_other_all_log_and_go_on_counting(run_folder: Path) -> None:
    train(run_folder, "model.fit(); model.fit()")
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('[]\n{"fit": "x"}\nnot JSON\n{"fit": 3, "cut')
    train(run_folder, "model.fit()")

    text = (run_folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(text[i])["fit"] for i in (0, 1, -1)] == [1, 2, 3]
    assert text[-2].endswith('"cut')


@pytest.mark.parametrize("fit", ["", '"fit": 1,'])
def test_a_fit_after_a_loop_of_the_script_s_own_is_another_one(run_folder: Path, fit: str) -> None:
    wild = ["Infinity", "1e400", "1" * 99, '"7"', "7.5", "[" * 9_000]
    lines = [f'{{{fit} "epoch": 0, "metrics": {{}}}}', *(f'{{"fit": {word}}}' for word in wild)]
    (run_folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    done = train(run_folder, "model.fit()")

    assert done.stderr == ""
    assert json.loads((run_folder / "metrics.jsonl").read_text().splitlines()[-1])["fit"] == 2


@pytest.mark.tf
def test_the_keras_that_is_installed_is_watched(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    script = """
    import os, signal
    import numpy as np
    x = np.zeros((64, 3), "float32")
    y = x[:, :1]
    class Mine(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(loss="mse", metrics=["mae"])
    model.fit(x, y, validation_split=0.5, verbose=0, callbacks=keras.callbacks.TerminateOnNaN())
    model.fit(x * float("nan"), y, 32, 1, 0)
    owned = keras.callbacks.CallbackList([keras.callbacks.History()], model=model, epochs=1)
    for _ in range(2):
        model.fit(x, y, verbose=0, callbacks=owned)
    model = keras.Sequential([inputs, keras.layers.Dense(1)])
    model.compile(loss="mse")
    history = model.fit(x, y, epochs=50, verbose=0, callbacks=[Mine()])
    print(len(history.epoch))
    model.save("model.keras")
    keras.models.load_model("model.keras")
    """

    done = train(tmp_path, script, usual="from tensorflow import keras\n")

    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert done.stderr.count("trainshed:") == 1
    lines = read_lines(tmp_path)
    assert [(line["fit"], line["epoch"], line["epochs"]) for line in lines] == [
        (1, 0, 1),
        (2, 0, 1),
        (3, 0, 1),
        (4, 0, 1),
        (5, 0, 50),
        (5, 1, 50),
    ]
    names = [set(line["metrics"]) for line in lines]  # type: ignore[call-overload]
    assert names[0] == {"loss", "mae", "val_loss", "val_mae"}
    assert lines[1]["metrics"] == {"loss": None, "mae": None}
    assert (tmp_path / "model.keras").exists()


TENSORFLOW = """
__version__ = "2.15.0"
class sysconfig:
    def get_build_info(): return {"cuda_compute_capabilities": ["sm_50", "compute_90"]}
class config:
    def list_physical_devices(kind): return ["GPU:0"]
    class experimental:
        def get_device_details(gpu):
            return {"device_name": "Tesla K80", "compute_capability": (CAPABILITY)}
"""


@pytest.mark.parametrize(("capability", "is_told"), [("3, 7", True), ("7, 5", False)])
def test_the_first_line_has_the_versions_and_an_unused_gpu_is_told(
    run_folder: Path, capability: str, is_told: bool
) -> None:
    (run_folder / "tensorflow.py").write_text(TENSORFLOW.replace("CAPABILITY", capability))

    done = train(
        run_folder,
        """
        model.fit(epochs=2)
        model.fit(epochs=1)
        """,
        usual=f"import tensorflow\n{USUAL}",
    )

    first, *others = read_lines(run_folder)
    assert first["versions"] == {"tensorflow": "2.15.0"}
    assert not any("versions" in line for line in others)
    told = "this TensorFlow (2.15.0) has no code for Tesla K80 (compute capability 3.7)"
    assert done.stderr.count(told) == int(is_told)
