"""The `sitecustomize` of a run's Pythons: waits until Keras is imported, then brings `kerashook`.

Python imports a module of that name by itself before it looks at its arguments, so the user's
script starts as it always does: argv, sys.path, __main__ and tracebacks are untouched, and the
script's own child processes are reached too. With `python -I`, `-E` or `-S` Python ignores it,
and the script runs without metrics.

Copied to a run's `site` folder by `launcher`; imports nothing that Python has not loaded by then:
a module imported here would hide a module of the same name beside the user's script.

Source: the documentation of the `site` module and of `importlib`.
"""

from __future__ import annotations

import os
import sys

# As typing.TYPE_CHECKING, which would have to be imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SITE = os.path.dirname(__file__)  # noqa: PTH120  # pathlib is not loaded yet

# The modules that hold a class `Model` with `fit`, and where its callbacks are: Keras 3, Keras 2
# and TensorFlow 2.6 on; Keras 2 beside Keras 3; TensorFlow 2.2 to 2.5.
CALLBACKS = {
    "keras": "keras.callbacks",
    "tf_keras": "tf_keras.callbacks",
    "tensorflow.python.keras.engine.training": "tensorflow.python.keras.callbacks",
}


class KerasFinder:
    """Finds what the other finders find, and sees Keras's modules when they are complete."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in CALLBACKS:
            return None
        found = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            _follow(spec.loader)
        return spec


def _follow(loader: object) -> None:
    """Let `loader`'s next module be hooked once it has been executed."""

    def exec_module(module: ModuleType) -> None:
        del loader.exec_module  # type: ignore[attr-defined]  # the class's own is back
        loader.exec_module(module)  # type: ignore[attr-defined]
        _hook(module)

    # On the instance: its class, and so what else asks the loader for files, stays what it is.
    loader.exec_module = exec_module  # type: ignore[attr-defined]


def _hook(module: ModuleType) -> None:
    try:
        from importlib.util import module_from_spec, spec_from_file_location
        from pathlib import Path

        name = "trainshed_kerashook"
        if name not in sys.modules:
            spec = spec_from_file_location(name, Path(SITE, "kerashook.py"))
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        sys.modules[name].hook(module, CALLBACKS[module.__name__], Path(SITE).parent)
    except Exception as error:  # noqa: BLE001  # whatever it is, the training must go on
        try:
            os.write(2, f"trainshed: metrics are off: {type(error).__name__}: {error}\n".encode())
        except OSError:
            pass  # a full disk, or a script that has closed it


def _make_way() -> None:
    """Run the `sitecustomize` that Python would have found without this one."""
    sys.path[:] = [entry for entry in sys.path if entry != SITE]
    this = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except ImportError as error:
        if error.name != __name__:
            raise
        sys.modules[__name__] = this


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, KerasFinder())
    _make_way()
