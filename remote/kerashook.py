"""Inside the user's Python: a line in `metrics.jsonl` for each epoch, an early end of `fit`, and
where the run may be restarted, a fit that goes on where it was.

Loaded by `sitehook` when Keras has been imported. Stands alone: copied to a run's `site` folder,
where no other module of ours can be imported. Nothing that goes wrong here may stop a training.

A line, of one write:
    {"fit": 1, "epoch": 0, "epochs": 10, "at": "2024-05-01T10:00:00Z", "seconds": 1.234,
     "metrics": {"loss": 0.1, "val_loss": null}, "versions": {"tensorflow": "2.12.0"}}
`fit` counts from 1 over all processes of the run, `epoch` from 0; `epochs` is null where Keras
does not tell; `seconds` includes validation; a metric is null where it is not a finite number;
`versions` stands in a process's first line, of what it has imported of Keras.
After a restart the fits count from 1 again, and an epoch that was not saved before is trained and
told again: the last line on it counts.
"""

from __future__ import annotations

import fcntl
import functools
import importlib
import inspect
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

# How often the file system is asked whether to stop: an NFS home answers in milliseconds.
LOOK_S = 1.0

_LARGEST_FIT = 2**32


class Watch:
    """What this process knows of the fits in it, and what it was asked.

    The time-limit warning is a file `stop` in the run's folder, or SIGTERM while a fit is under
    way. Either ends each fit after its next batch; the script goes on and can save its model.
    """

    def __init__(self, run_folder: Path) -> None:
        self._stop_file = run_folder / "stop"
        self._metrics_file = run_folder / "metrics.jsonl"
        checkpoints = os.environ.get("TRAINSHED_CHECKPOINTS")
        self._checkpoints = Path(checkpoints) if checkpoints else None
        events = os.environ.get("TRAINSHED_EVENTS")
        self._events = Path(events) if events else None
        self._off = False
        self._reset()
        os.register_at_fork(after_in_child=self._forked)

    def _reset(self) -> None:
        self._metrics: int | None = None
        self._fits = 0
        self._under_way = 0
        self._stopping = False
        self._warned = False
        self._next_look_s = 0.0
        self._is_first = True

    def begin(self) -> int:
        """Note that a fit begins; gives its number in the run."""
        self._under_way += 1
        if self._is_first and self._under_way == 1:
            _say_unused_gpus()
        self._take_sigterm()
        self._open_metrics()
        if self._checkpoints is not None and self._metrics is not None:
            restarts = os.environ.get("TRAINSHED_RESTARTS", "0")
            self._fits = _beside("kerasbackup").count_fit(self._checkpoints, restarts)
        else:
            self._fits += 1
        return self._fits

    def backup(self, callbacks: ModuleType, version: str, number: int, given: object) -> Any:  # noqa: ANN401  # a callback
        """What keeps the fit's checkpoints; None where nobody asked, or another process trains.

        Args:
            given: the callbacks of the script.
        """
        if self._checkpoints is None or self._metrics is None:
            return None
        if _has(given, _beside("kerasbackup").NAME):
            return None
        folder = self._checkpoints / f"fit-{number}"
        try:
            return _beside("kerasbackup").make_backup(
                callbacks, version, folder, self.must_stop, _say
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, the training must go on
            _say(f"no checkpoints: {type(error).__name__}: {error}")
            return None

    def board(self, callbacks: ModuleType, number: int, given: object) -> Any:  # noqa: ANN401  # a callback
        """What writes the fit's event files; None as of `backup`, or where it cannot be done."""
        if self._events is None or self._metrics is None:
            return None
        if _has(given, _beside("kerasboard").NAME):
            return None
        folder = self._events / f"fit-{number}"
        try:
            return _beside("kerasboard").make_board(callbacks, folder, _say)
        except Exception as error:  # noqa: BLE001  # whatever it is, the training must go on
            self._events = None  # said once
            missing = getattr(error, "name", None)
            fix = f"; this machine needs: pip install {missing}" if missing else ""
            _say(f"no TensorBoard events: {type(error).__name__}: {error}{fix}")
            return None

    def end(self) -> None:
        self._under_way -= 1

    def must_stop(self) -> bool:
        now_s = time.monotonic()
        if not self._stopping and now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_S
            if self._stop_file.exists():
                self._stop()
        return self._stopping

    def write(self, line: Mapping[str, object]) -> None:
        """Add a line, unless another process of the run is writing them."""
        if self._metrics is None:
            return
        if self._is_first:
            self._is_first = False
            versions = _versions()
            line = {**line, "versions": versions} if versions else line
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        if os.write(self._metrics, data) < len(data):
            raise OSError(f"no space for a line in {self._metrics_file}")

    def give_up(self, error: Exception) -> None:
        """Write no more lines, and say so once."""
        if not self._off:
            self._off = True
            _say(f"metrics are off: {type(error).__name__}: {error}")
        self._close_metrics()

    def _open_metrics(self) -> None:
        """Take the file for this process, if it is free: the lock ends with the process."""
        if self._off or self._metrics is not None:
            return
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._metrics = os.open(self._metrics_file, flags, 0o600)
            fcntl.flock(self._metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._fits = self._read_fits(self._metrics)
        except BlockingIOError:
            self._close_metrics()
        except OSError as error:
            self.give_up(error)

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            os.close(self._metrics)
            self._metrics = None

    def _read_fits(self, metrics: int) -> int:
        """The last fit that an earlier process of the run, or the script itself, has told of."""
        fits, line = self._fits, b"\n"
        with open(metrics, "rb", closefd=False) as file:
            for line in file:
                try:
                    fit = json.loads(line).get("fit", 1)
                except (ValueError, AttributeError, RecursionError):
                    continue
                # A script may have written anything, and what follows a wild one nobody could read.
                if type(fit) is int and fit <= _LARGEST_FIT:
                    fits = max(fits, fit)
        if not line.endswith(b"\n"):
            os.write(metrics, b"\n")  # a full disk cut it; the next one must not be lost with it
        return fits

    def _take_sigterm(self) -> None:
        """Handle it from now on, unless the script does, or is not in the thread that may."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        # After a fit the script may be saving its model: with the stop file there, SIGTERM is
        # the warning for that too.
        expected = self._under_way > 0 or self._stop_file.exists()
        if self._warned or not expected:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._warned = True
        self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            _say("time is nearly up: fit ends after its next batch, and the script goes on")

    def _forked(self) -> None:
        """In a child: it is not the one that trains, until it calls fit itself."""
        try:
            # A pool ends its workers with SIGTERM and waits for them.
            if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._close_metrics()
        except (OSError, ValueError):
            pass
        self._reset()


def hook(module: ModuleType, callbacks: str, run_folder: Path) -> None:
    """Make `module.Model.fit` add our callback.

    Args:
        callbacks: the name of the module that holds `Callback`.
    """
    model_class = module.Model
    original = model_class.fit
    if hasattr(original, "trainshed"):
        return
    watch = _watch(run_folder)
    position = list(inspect.signature(original).parameters).index("callbacks") - 1

    @functools.wraps(original)
    def fit(model: object, *args: object, **kwargs: object) -> object:
        backup = None
        try:
            number = watch.begin()
            found = importlib.import_module(callbacks)
            given = args[position] if len(args) > position else kwargs.get("callbacks")
            backup = watch.backup(found, getattr(module, "__version__", "2"), number, given)
            log = _callback_class(found.Callback)(watch, number)
            board = watch.board(found, number, given)
            # The backup last: an epoch may be told twice after a restart, but none is left out.
            ours = [one for one in (log, board, backup) if one is not None]
            if len(args) > position:
                added = _add(args[position], ours, model)
                with_ours = (*args[:position], added, *args[position + 1 :])
            else:
                with_ours = args
                kwargs["callbacks"] = _add(kwargs.get("callbacks"), ours, model)
        except Exception as error:  # noqa: BLE001  # whatever it is, the training must go on
            watch.give_up(error)
            with_ours = args
        try:
            history = original(model, *with_ours, **kwargs)
        finally:
            watch.end()
        if backup is not None:
            backup.complete(history)
        return history

    fit.trainshed = True  # type: ignore[attr-defined]  # the mark of a hooked fit
    model_class.fit = fit


@functools.lru_cache(maxsize=None)
def _watch(run_folder: Path) -> Watch:
    """The process's one watch, whichever Keras it uses."""
    return Watch(run_folder)


@functools.lru_cache(maxsize=None)
def _callback_class(base: Any) -> Callable[[Watch, int], Any]:  # noqa: ANN401  # Keras's own class
    class EpochLog(base):  # type: ignore[misc]  # a class known only at run time
        # Keras 2: the batch's logs are not ours to read, so they need not leave the GPU.
        _supports_tf_logs = True

        def __init__(self, watch: Watch, number: int) -> None:
            super().__init__()
            self._watch = watch
            self._number = number
            self._began_s = 0.0

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self._began_s = time.monotonic()

        # Not the batch's end: Keras 3 runs fits without callbacks there asynchronously.
        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            if self._watch.must_stop():
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
            if self._watch.must_stop():
                self.model.stop_training = True
            try:
                now = datetime.now(timezone.utc)
                epochs = (self.params or {}).get("epochs")
                self._watch.write(
                    {
                        "fit": self._number,
                        "epoch": int(epoch),
                        # It may be numpy's.
                        "epochs": None if epochs is None else int(epochs),
                        "at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                        "seconds": round(time.monotonic() - self._began_s, 3),
                        "metrics": _numbers(logs or {}),
                    }
                )
            except Exception as error:  # noqa: BLE001  # whatever it is, the training must go on
                self._watch.give_up(error)

    return EpochLog


def _add(callbacks: Any, ours: list[Any], model: object) -> Any:  # noqa: ANN401  # many forms
    """What the user gave as `callbacks`, with ours as the last."""
    if callbacks is None:
        return ours
    if isinstance(callbacks, (list, tuple)):
        return [*callbacks, *ours]
    if hasattr(callbacks, "callbacks") and hasattr(callbacks, "append"):
        # A CallbackList: the user's own object, which may come back for the next fit.
        kinds = {type(one) for one in ours}
        kept = [one for one in callbacks.callbacks if type(one) not in kinds]
        callbacks.callbacks[:] = [*kept, *ours]
        for one in ours:
            one.set_model(model)
            one.set_params(getattr(callbacks, "params", None))
        return callbacks
    return [callbacks, *ours]


def _has(callbacks: Any, name: str) -> bool:  # noqa: ANN401  # many forms
    """Whether the script gives fit a callback of this class, or of one made of it."""
    listed = getattr(callbacks, "callbacks", callbacks)
    listed = listed if isinstance(listed, (list, tuple)) else [listed]
    return any(cls.__name__ == name for one in listed for cls in type(one).__mro__)


def _numbers(logs: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics that are single numbers."""
    numbers: dict[str, float | None] = {}
    for name, value in logs.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        numbers[str(name)] = number if math.isfinite(number) else None
    return numbers


def _versions() -> dict[str, str]:
    """Of the frameworks that this process has imported."""
    names = ("tensorflow", "keras", "tf_keras", "jax", "torch")
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in names}
    return {name: str(version) for name, version in found.items() if version}


def _say_unused_gpus() -> None:
    """Tell of each GPU that this TensorFlow was not built for: it trains on the CPU instead.

    It lists such a GPU, and says one line among many when it leaves it out. Where TensorFlow does
    not tell what it was built for, neither do we.
    """
    tf: Any = sys.modules.get("tensorflow")
    try:
        # As in `sm_35` and `compute_80`.
        built = tf.sysconfig.get_build_info()["cuda_compute_capabilities"]
        floor = min(int(name.rpartition("_")[2]) for name in built)
        for gpu in tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpu)
            major, minor = details["compute_capability"]
            if 10 * major + minor < floor:
                name = f"{details['device_name']} (compute capability {major}.{minor})"
                why = f"this TensorFlow ({tf.__version__}) has no code for {name}"
                _say(f"{why} and trains on the CPU: train doctor says which one has")
    except Exception:  # noqa: BLE001  # whatever it is, the training must go on
        return


@functools.lru_cache(maxsize=None)
def _beside(name: str) -> ModuleType:
    """The module of this name beside this one."""
    spec = spec_from_file_location(f"trainshed_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def _say(text: str) -> None:
    # Not sys.stderr: a signal may come while the script is in the middle of writing to it. A script
    # may have closed it, or its disk may be full; the training must go on.
    with suppress(OSError):
        os.write(2, f"trainshed: {text}\n".encode())
