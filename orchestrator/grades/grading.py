"""The grading process, started by `grade` as `python -m`, never imported by it.

It imports TensorFlow once, then answers requests, one JSON object a line on stdin, with one line
each on stdout, until stdin ends. Each model is graded by a confined fork, so that a crash costs
one verdict only. Forking is safe while TensorFlow has started no threads: they start with the
first operation, and this process runs none (60 of 60 forks loaded and predicted; 0.3 s each,
where an import takes 5 s). Where forking is not (see `confine`), a process is started per model.
"""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import source_from_cache
from pathlib import Path
from typing import Any

from orchestrator.grades import legacy, modelcheck
from orchestrator.grades.confine import (
    FORKS,
    POLL_S,
    Abandoned,
    Ending,
    Limits,
    confine,
    run_forked,
    run_spawned,
)
from orchestrator.grades.grader import Broken, Data, Grader, fits, read, shown
from orchestrator.grades.verdict import Outcome
from orchestrator.screen.printable import one_line

Answer = dict[str, Any]
"""`outcome`, `reason`, `versions`, and where known `value`, `metric`, `thresholds`,
`higher_is_better`, `sources`."""

Model = Any
"""A `keras.Model`; keras has no types."""

# More would start threads whose stacks count against the memory limit, 8 MB each.
THREADS = 4

# The one of `predict`: a larger one would be faster, but want more memory.
BATCH = 32
GRADERS_STAGES = ("read the grader", "make the held-out data", "score the predictions")


class Invalid(Exception):
    """The model's fault."""


def main() -> None:
    """Serve requests, or with the argument `one` answer a single one and confine oneself.

    With `serve` a folder is named: whoever asks was killed when stdin ends, so this process removes
    it.
    """
    mode, *folder = sys.argv[1:] or ["serve"]
    # Whatever prints to stdout, TensorFlow or a grader, must not be taken for an answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    if mode == "one":
        request = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        _import_framework()
        confine(Limits(**request["limits"]), *_places(request))
        examine(request, answers)
        return
    leave = partial(_remove, folder)
    if FORKS:
        with _watched(leave):
            _import_framework()
    try:
        _say(answers, {})
        for line in sys.stdin:
            _say(answers, _serve(line, answers))
    except (Abandoned, BrokenPipeError):
        pass
    leave()


def _remove(folders: Iterable[str]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _say(descriptor: int, message: Answer) -> None:
    os.write(descriptor, json.dumps(message).encode() + b"\n")


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


@contextmanager
def _watched(leave: Callable[[], object]) -> Iterator[None]:
    """End this process when stdin ends during the block: an import takes seconds.

    The thread that notices is gone before anything is forked.
    """
    leash = select.poll()
    # No event is asked for: that the other end is closed is told always.
    leash.register(0, 0)
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            if leash.poll(POLL_S * 1000):
                leave()
                os._exit(1)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()


def _import_framework() -> None:
    """Import TensorFlow and run nothing on it."""
    import tensorflow as tf

    threads = min(THREADS, os.cpu_count() or 1)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _serve(line: str, answers: int) -> Answer:
    request = json.loads(line)
    limits = Limits(**request["limits"])
    if not FORKS:
        command = (sys.executable, "-P", "-m", "orchestrator.grades.grading", "one")
        return conclude(run_spawned(command, line.encode(), limits), limits)

    def work() -> None:
        os.close(answers)
        record = os.dup(1)
        os.dup2(2, 1)
        examine(request, record)

    folder, readable = _places(request)
    return conclude(run_forked(work, limits, folder, 0, readable), limits)


def _places(request: dict[str, Any]) -> tuple[Path, tuple[Path, ...]]:
    """Where a grading may write, and what it may read beside what everyone may."""
    return Path(request["model"]).parent, (Path(request["grader"]).parent,)


def conclude(ending: Ending, limits: Limits) -> Answer:
    """What a grading's output and its end amount to. Pure."""
    answer: Answer = {}
    for line in ending.output.splitlines():
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut by the end, or written by a hostile model
        if isinstance(said, dict):
            answer.update(said)
    stage = str(answer.pop("stage", "start"))
    if "outcome" in answer:
        return answer
    outcome = Outcome.BROKEN if stage in GRADERS_STAGES else Outcome.INVALID
    who = "the grader" if outcome is Outcome.BROKEN else "the model"
    last = " | ".join(ending.noise.strip().splitlines()[-3:])
    if ending.timed_out:
        reason = f"{who} took more than {limits.time_s:g} s, up to where it had to {stage}"
    elif _is_memory(ending.noise):
        reason = (
            f"{who} wanted more than {limits.memory_bytes / 2**30:.1f} GiB of memory to {stage}"
        )
    else:
        code = ending.code
        how = _signal_name(-code) if code < 0 else f"exit status {code}"
        reason = f"{who} ended the process that had to {stage}, with {how}: {last}"
    return {**answer, "outcome": outcome.value, "reason": one_line(reason)}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _is_memory(text: str) -> bool:
    signs = ("bad_alloc", "OOM when allocating", "MemoryError", "ResourceExhausted")
    return any(sign in text for sign in signs)


def examine(request: dict[str, Any], record: int) -> None:
    """Grade one model, in the confined process, and write what is found to `record`."""
    import keras
    import tensorflow as tf

    tell = partial(_say, record)
    tell({"versions": f"tensorflow {tf.__version__}, keras {keras.__version__}"})
    path = Path(request["model"])
    opened = _watch_sources(Path(request["grader"]).parent)
    try:
        tell({"stage": "read the grader"})
        grader = read(Path(request["grader"]))
        tell({"metric": grader.metric, "higher_is_better": grader.higher_is_better})
        tell({"thresholds": grader.thresholds})
        tell({"stage": "be checked"})
        unpacked_bytes = request["limits"]["model_bytes"]
        is_legacy = check(path, unpacked_bytes)
        tell({"stage": "make the held-out data"})
        xs, y = grader.held_out()
        tell({"stage": "load"})
        model = load(path, unpacked_bytes, is_legacy=is_legacy)
        order = _check_shapes(model, grader)
        tell({"stage": "predict"})
        predictions = _predict(model, [xs[number] for number in order], grader)
        tell({"stage": "score the predictions"})
        value = grader.score(y, predictions)
        tell({"value": value, "sources": sorted(opened), "outcome": Outcome.GRADED.value})
    except Invalid as fault:
        tell({"outcome": Outcome.INVALID.value, "reason": one_line(str(fault))})
    except Broken as fault:
        tell({"outcome": Outcome.BROKEN.value, "reason": one_line(str(fault))})


def _watch_sources(folder: Path) -> set[str]:
    """The Python files below `folder` that this process opens from now on; it grows as they are.

    Nothing but Python opens such a file, and Python tells its audit hooks of it.
    """
    below = os.path.realpath(folder) + os.sep
    opened: set[str] = set()

    def hear(event: str, facts: tuple[Any, ...]) -> None:
        if event != "open" or not str(facts[0]).endswith((".py", ".pyc")):
            return
        # What is raised here would reach whoever opens the file.
        with suppress(ValueError, OSError):
            name = str(facts[0])
            path = os.path.realpath(source_from_cache(name) if name.endswith("c") else name)
            if path.startswith(below):
                opened.add(path)

    sys.addaudithook(hear)
    return opened


def check(path: Path, unpacked_bytes: int, *, rewritten: bool = False) -> bool:
    """Judge a file without loading it; whether it is to be rewritten first.

    Args:
        rewritten: whether it has been, so that Keras 3 alone decides what it may name.

    Raises:
        Invalid: it must not be loaded.
    """
    import h5py

    def refuse(fault: str) -> None:
        if fault:
            raise Invalid(fault)

    def judge_hdf5(file: modelcheck.File) -> None:
        refuse(modelcheck.hdf5_fault(file, unpacked_bytes))

    with _blaming_the_model("be opened"):
        if path.suffix == ".keras":
            refuse(modelcheck.archive_fault(path, unpacked_bytes))
            with zipfile.ZipFile(path) as archive:
                config: Any = archive.read("config.json")
                saved_by = modelcheck.saved_by(archive)
                for name in archive.namelist():
                    if name.endswith(".h5"):
                        with h5py.File(io.BytesIO(archive.read(name))) as weights:
                            judge_hdf5(weights)
        else:
            with h5py.File(path) as file:
                judge_hdf5(file)
                config = file.attrs.get("model_config")
                saved_by = one_line(str(file.attrs.get("keras_version", "")), 40)
    if not isinstance(config, str | bytes):
        raise Invalid("it holds weights but no model: save it with model.save()")
    is_legacy = saved_by.startswith("2.") and not rewritten
    known = _known() | (legacy.NAMES if is_legacy else frozenset())
    refuse(modelcheck.config_fault(config.encode() if isinstance(config, str) else config, known))
    return is_legacy


def _known() -> frozenset[str]:
    """What a file may ask Keras for: its classes, and the functions that compute something."""
    import keras

    functions = (keras.activations, keras.initializers, keras.losses, keras.metrics)
    classes = (
        keras.constraints,
        keras.dtype_policies,
        keras.layers,
        keras.models,
        keras.optimizers,
        keras.optimizers.schedules,
        keras.regularizers,
    )
    names = {name for part in functions for name in vars(part)}
    names |= {n for part in classes for n, value in vars(part).items() if isinstance(value, type)}
    # What a functional model calls itself, though no public module has the name.
    names.add("Functional")
    return frozenset(names - modelcheck.FORBIDDEN.keys() - {"deserialize", "serialize", "get"})


def load(path: Path, unpacked_bytes: int, *, is_legacy: bool) -> Model:
    """The model of a file that was checked and is nobody else's: it may be rewritten in place.

    Args:
        is_legacy: what `check` said of it.

    Raises:
        Invalid: it must not be loaded, or cannot.
    """
    import keras

    if is_legacy:
        rewrite(path)
        check(path, unpacked_bytes, rewritten=True)
    with _blaming_the_model("be loaded"):
        return keras.models.load_model(path, compile=False, safe_mode=True)


def rewrite(path: Path) -> None:
    """Have Keras 3 read a file that Keras 2 saved, and that was checked. Its weights stay.

    Raises:
        Invalid: its configuration is none of Keras 2.
    """
    import h5py

    with _blaming_the_model("be rewritten for Keras 3"):
        if path.suffix == ".keras":
            new = path.with_suffix(".new")
            with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w") as archive:
                for name in old.namelist():
                    content = old.read(name)
                    if name == "config.json":
                        content = json.dumps(legacy.modernise(json.loads(content))).encode()
                    archive.writestr(name, content)
            new.replace(path)
            return
        with h5py.File(path, "r+") as file:
            config = legacy.modernise(json.loads(file.attrs["model_config"]))
            file.attrs["model_config"] = json.dumps(config)
            file.attrs.pop("training_config", None)
            file.pop("optimizer_weights", None)


def _check_shapes(model: Model, grader: Grader) -> list[int]:
    """For each input of the model, which of the grader's it is.

    Raises:
        Invalid: they do not fit, or the output does not.
    """
    with _blaming_the_model("tell its shapes: was it built before it was saved?"):
        names = [str(one.name) for one in model.inputs]
        shapes = [tuple(one.shape)[1:] for one in model.inputs]
        output = model.output_shape
    order = list(range(len(shapes)))
    if grader.input_names:
        if sorted(names) != sorted(grader.input_names):
            found, wanted = (", ".join(map(repr, sorted(n))) for n in (names, grader.input_names))
            raise Invalid(one_line(f"its inputs are {found}, expected {wanted}", 200))
        order = [grader.input_names.index(name) for name in names]
    expected = list(grader.input_shapes)
    if len(shapes) == len(expected):
        expected = [expected[number] for number in order]
    if len(shapes) != len(expected) or not all(map(fits, shapes, expected)):
        found, wanted = (" and ".join(map(shown, each)) for each in (shapes, expected))
        raise Invalid(one_line(f"input shape is {found}, expected {wanted}", 200))
    # Models of several outputs have a list or dict of shapes.
    if not isinstance(output, tuple) or not fits(output[1:], grader.output_shape):
        one = shown(output[1:]) if isinstance(output, tuple) else one_line(str(output), 80)
        raise Invalid(f"output shape is {one}, expected {shown(grader.output_shape)}")
    return order


def _predict(model: Model, xs: list[Data], grader: Grader) -> Data:
    import numpy as np
    import tensorflow as tf

    with _blaming_the_model("predict"):
        predictions = _answers(model, xs)
        kind = tf.as_dtype(predictions.dtype)
        if not (kind.is_floating or kind.is_integer):
            raise Invalid(f"predictions are of type {kind.name}, expected numbers")
        bad = int(np.count_nonzero(~np.isfinite(predictions)))
    count = len(xs[0])
    if predictions.shape[:1] != (count,) or not fits(predictions.shape[1:], grader.output_shape):
        found = shown(predictions.shape)
        raise Invalid(f"predictions are {found}, expected {shown((count, *grader.output_shape))}")
    if bad:
        raise Invalid(f"{bad} of {predictions.size} predicted values are nan or infinite")
    return predictions


def _answers(model: Model, xs: list[Data]) -> Data:
    """What `model.predict(xs)` gives, in half of the time for a thousand examples.

    `predict` makes a pipeline of the data, and traces the model twice where the last batch is
    shorter. The values are the same to 7 digits or more.
    """
    import numpy as np
    import tensorflow as tf

    def run(*batch: Data) -> Data:
        return model(list(batch) if batch[1:] else batch[0], training=False)

    kinds = [tf.convert_to_tensor(x[:1]).dtype for x in xs]
    signature = [
        tf.TensorSpec((None, *x.shape[1:]), kind) for x, kind in zip(xs, kinds, strict=True)
    ]
    traced = tf.function(run, input_signature=signature, autograph=False)
    batches = (
        [tf.convert_to_tensor(x[start : start + BATCH]) for x in xs]
        for start in range(0, len(xs[0]), BATCH)
    )
    return np.concatenate([traced(*batch).numpy() for batch in batches])


@contextmanager
def _blaming_the_model(doing: str) -> Iterator[None]:
    """Turn what a library raises into `Invalid`; want of memory goes on, and ends the process."""
    try:
        yield
    except Invalid:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {_without_stack(str(error))}"
        if _is_memory(text):
            raise
        raise Invalid(f"it cannot {doing}: {text}") from error


def _without_stack(text: str) -> str:
    """TensorFlow says what is wrong after pages of where the operation was made."""
    lines = text.splitlines()
    is_stack = ("  File ", "Detected at node ")
    return "\n".join(line for line in lines if not line.startswith(is_stack))


if __name__ == "__main__":
    main()
