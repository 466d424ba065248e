"""Inside the user's Python, where the job says `tensorboard: on`: a fit that writes event files.

Stands alone, like `kerashook`, which loads it. The writing is the work of Keras's own TensorBoard;
what it would do beyond the numbers of each epoch (the graph, a profile) is left out: it slows a
training down, and fails in some. Nothing that goes wrong here may stop a training.

    events/fit-<number>/{train,validation}/events.out.tfevents.*

Source: keras/src/callbacks/tensorboard.py of Keras 3.15 and keras/callbacks.py of Keras 2.13.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

NAME = "TensorBoard"
Say = Callable[[str], None]


def make_board(callbacks: ModuleType, folder: Path, say: Say) -> Any:  # noqa: ANN401  # a callback of whichever Keras it is
    """The callback that writes one fit's event files into `folder`.

    Raises:
        ImportError: the packages that Keras's own needs are not there.
    """
    # Keras finds out when it writes, and then in words of its own.
    for package in ("tensorflow", "tensorboard"):
        importlib.import_module(package)

    own = callbacks.TensorBoard(os.fspath(folder), write_graph=False, profile_batch=0)
    return _callback_class(callbacks.Callback)(own, say)


@functools.lru_cache(maxsize=None)
def _callback_class(base: Any) -> Callable[..., Any]:  # noqa: ANN401  # Keras's own class
    class EpochBoard(base):  # type: ignore[misc]  # a class known only at run time
        """Keras's TensorBoard without its work at each batch, which it has only with a graph, a
        profile or other options.
        """

        # Keras 2: the batch's logs are not ours to read, so they need not leave the GPU.
        _supports_tf_logs = True

        def __init__(self, own: Any, say: Say) -> None:  # noqa: ANN401
            super().__init__()
            self._own = own
            self._say = say
            self._off = False

        def on_train_begin(self, logs: object = None) -> None:
            self._do("set_params", self.params)
            self._do("set_model", self.model)
            self._do("on_train_begin")

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self._do("on_epoch_begin", epoch)

        def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
            self._do("on_epoch_end", epoch, logs)
            # Else they are written every two minutes, and nobody could look on.
            self._guard(
                lambda: [writer.flush() for writer in getattr(self._own, "_writers", {}).values()]
            )

        def on_train_end(self, logs: object = None) -> None:
            self._do("on_train_end")

        def _do(self, name: str, *arguments: object) -> None:
            self._guard(lambda: getattr(self._own, name)(*arguments))

        def _guard(self, work: Callable[[], object]) -> None:
            if self._off:
                return
            try:
                work()
            except Exception as error:  # noqa: BLE001  # whatever it is, the training must go on
                self._off = True
                self._say(f"no more TensorBoard events: {type(error).__name__}: {error}")

    return EpochBoard
