"""Inside the user's Python, where a run may be restarted: a fit goes on at the epoch it was in.

Stands alone, like `kerashook`, which loads it. Saving and restoring is the work of Keras's own
BackupAndRestore. What it leaves open is done here: a fit that has ended stays ended after a restart
(others may follow it in the script), a backup is never half of one, an epoch that was cut short is
no epoch, and the History has all epochs. Callbacks with a memory of their own, such as
EarlyStopping, begin it anew. Nothing that goes wrong here may stop a training.

    checkpoints/fits-<restarts>           a byte for each fit that was begun since the restart
    checkpoints/fit-<number>/<count>/     Keras 3: the last backup, there only when it is whole
    checkpoints/fit-<number>/             Keras 2: TensorFlow's checkpoints, which are never half
    .../history.json                      [[epoch, {metric: value}], ...]

Source: keras/src/callbacks/backup_and_restore.py of Keras 3.15, keras/callbacks.py of Keras 2.13,
and tensorflow/python/keras/callbacks.py of TensorFlow 2.4, where it is experimental.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

NAME = "BackupAndRestore"
Say = Callable[[str], None]


def count_fit(checkpoints: Path, restarts: str) -> int:
    """The number of the fit that begins, among those since the restart.

    A script that does the same again begins the same fits in the same order.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    counter = os.open(checkpoints / f"fits-{restarts}", flags, 0o600)
    try:
        os.write(counter, b".")
        return os.fstat(counter).st_size
    finally:
        os.close(counter)


def make_backup(
    callbacks: ModuleType, version: str, folder: Path, must_stop: Callable[[], bool], say: Say
) -> Any:  # noqa: ANN401  # a callback of whichever Keras it is
    """The callback that keeps one fit's backups in `folder`.

    Args:
        version: of Keras.

    Raises:
        AttributeError: this Keras has no BackupAndRestore.
    """
    original = getattr(callbacks, NAME, None) or getattr(callbacks.experimental, NAME)
    keep = _Keras3(original, folder) if version.startswith("3") else _Keras2(original, folder)
    return _callback_class(callbacks.Callback)(keep, folder, must_stop, say)


class _Keras3:
    """Each backup in a folder of its own, by a BackupAndRestore of its own: Keras writes its files
    in place, one after the other.
    """

    def __init__(self, original: Callable[[str], Any], folder: Path) -> None:
        self._original = original
        self._folder = folder

    def restore(self, model: Any) -> Path | None:  # noqa: ANN401  # Keras's own class
        # It stays from the last fit of this model, and would skip epochs of this one.
        model._initial_epoch = None
        if not (whole := self._whole()):
            return None
        self._at(whole[-1], model).on_train_begin()
        return whole[-1]

    def save(self, model: Any, epoch: int, history: bytes) -> None:  # noqa: ANN401
        old = self._whole()
        temporary = self._folder / ".tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            self._at(temporary, model).on_epoch_end(epoch)
            (temporary / "history.json").write_bytes(history)
            for path in temporary.iterdir():
                _sync(path)
        except BaseException:
            _free(temporary)
            raise
        last = int(old[-1].name) if old else 0
        temporary.rename(self._folder / f"{last + 1:09d}")
        _sync(self._folder)
        for path in old:
            shutil.rmtree(path, ignore_errors=True)

    def close(self, model: Any) -> None:  # noqa: ANN401
        pass

    def _at(self, folder: Path, model: Any) -> Any:  # noqa: ANN401
        keeper = self._original(os.fspath(folder))
        keeper.set_model(model)
        return keeper

    def _whole(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*"))


class _Keras2:
    """One BackupAndRestore, whose checkpoints outlive the fit."""

    def __init__(self, original: Callable[[str], Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._keeper = original(os.fspath(folder))
        self._folder = folder

    def restore(self, model: Any) -> Path | None:  # noqa: ANN401
        self._keeper.set_model(model)
        self._keeper.on_train_begin()
        return self._folder if (self._folder / "history.json").exists() else None

    def save(self, model: Any, epoch: int, history: bytes) -> None:  # noqa: ANN401
        # First, because what is too much in it can be told: it is of an epoch that was not saved.
        temporary = self._folder / ".history"
        temporary.write_bytes(history)
        _sync(temporary)
        temporary.rename(self._folder / "history.json")
        # Keras 2.10 and later save the epoch that was last begun.
        self._keeper.on_epoch_begin(epoch)
        self._keeper.on_epoch_end(epoch)

    def close(self, model: Any) -> None:  # noqa: ANN401
        # Not every version can be told to keep it.
        self._keeper._training_state.delete_backup = lambda: None
        self._keeper.on_train_end()


def _free(folder: Path) -> None:
    """Give back the room that a backup took which did not fit: the model is still to be saved.

    HDF5 keeps a file open that it could not write to its end, so removing it alone frees nothing.
    """
    for path in folder.iterdir():
        with suppress(OSError):
            os.truncate(path, 0)
    shutil.rmtree(folder, ignore_errors=True)


@functools.lru_cache(maxsize=None)
def _callback_class(base: Any) -> Callable[..., Any]:  # noqa: ANN401
    class EpochBackup(base):  # type: ignore[misc]  # a class known only at run time
        # Keras 2: the batch's logs are not ours to read, so they need not leave the GPU.
        _supports_tf_logs = True

        def __init__(
            self, keep: _Keras3 | _Keras2, folder: Path, must_stop: Callable[[], bool], say: Say
        ) -> None:
            super().__init__()
            self._keep = keep
            self._folder = folder
            self._must_stop = must_stop
            self._say = say
            self._off = False
            self._cut_short = False
            self._before: list[tuple[int, dict[str, float]]] = []
            self._since: list[tuple[int, dict[str, float]]] = []

        def on_train_begin(self, logs: object = None) -> None:
            weights: list[object] = []
            try:
                if any(self._folder.glob("*")):
                    weights = self.model.get_weights()
                found = self._keep.restore(self.model)
                if found is not None:
                    told = json.loads((found / "history.json").read_bytes())
                    self._before = [(epoch, numbers) for epoch, numbers in told]
            except Exception as error:  # noqa: BLE001  # whatever it is, the training must go on
                self._give_up("trains from the beginning", error)
                # The next one that is saved takes its place; Keras 2 has nothing to save with now.
                self._off = isinstance(self._keep, _Keras2)
                if weights and len(weights) == len(self.model.get_weights()):
                    self.model.set_weights(weights)

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if self._before and not self._since:
                self._before = [(each, numbers) for each, numbers in self._before if each < epoch]
                if not self._before:
                    self._say("no checkpoint could be used, this fit trains from the beginning")

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            self._cut_short = self._cut_short or self._must_stop()

        def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
            self._since.append((int(epoch), _numbers(logs or {})))
            if not self._cut_short:
                self._save(int(epoch))

        def on_train_end(self, logs: object = None) -> None:
            # One that was ended by its own callbacks has ended, however many epochs were left.
            if not self._cut_short and not self._must_stop() and self._since:
                self._save((self.params or {}).get("epochs", self._since[-1][0] + 1) - 1)
            if not self._off:
                try:
                    self._keep.close(self.model)
                except Exception as error:  # noqa: BLE001  # it has been trained
                    self._give_up("goes on without", error)

        def complete(self, history: Any) -> None:  # noqa: ANN401  # Keras's own class
            """Put what was trained before the restart into what fit returns."""
            if not self._before or self._off:
                return
            values: dict[str, list[float]] = {}
            for _, numbers in self._before:
                for name, value in numbers.items():
                    values.setdefault(name, []).append(value)
            for name, since in history.history.items():
                values.setdefault(name, []).extend(since)
            history.history.clear()
            history.history.update(values)
            history.epoch[:0] = [epoch for epoch, _ in self._before]

        def _save(self, epoch: int) -> None:
            if self._off:
                return
            try:
                told = json.dumps(self._before + self._since)
                self._keep.save(self.model, epoch, told.encode())
            except Exception as error:  # noqa: BLE001  # whatever it is, the training must go on
                self._give_up("goes on without; after a restart it goes on from the last", error)

        def _give_up(self, what: str, error: Exception) -> None:
            self._off = True
            self._say(f"no checkpoint, this fit {what}: {type(error).__name__}: {error}")

    return EpochBackup


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for name, value in logs.items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers


def _sync(path: Path) -> None:
    """Make it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
