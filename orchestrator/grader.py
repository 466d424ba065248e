"""A category's grader: the user's own `grader.py`, read and called with all its faults caught.

Imported and called in the confined process only.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

POINTS = 5

Data = Any
"""What the user's code makes and takes, mostly numpy arrays."""
Named = Any
"""Whatever the user's code binds to a name."""


class Broken(Exception):
    """The grader's fault, with file and line."""


@dataclass(frozen=True)
class Grader:
    """What a grader demands.

    Attributes:
        input_shape, output_shape: of one example, without the batch; None is any size.
        thresholds: the metric that earns 1..5 points, each harder than the one before.
    """

    path: Path
    module: ModuleType
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    metric: str
    higher_is_better: bool
    thresholds: tuple[float, ...]

    def held_out(self) -> tuple[Data, Data]:
        """The data the candidate never sees: x of [n, *input_shape], and y as `score` wants it.

        Raises:
            Broken: it raised, or gave something else.
        """
        with _blamed(self.path, "make the held-out data"):
            x, y = self.module.held_out()
            shape = tuple(x.shape)
        if not shape or not shape[0] or not fits(shape[1:], self.input_shape):
            found, wanted = shown(shape[1:]), shown(self.input_shape)
            raise Broken(
                f"{self.path}: held_out() gave {shape[:1]} examples of shape {found}, "
                f"INPUT_SHAPE is {wanted}"
            )
        return x, y

    def score(self, y: Data, predictions: Data) -> float:
        """The metric. May be NaN.

        Raises:
            Broken: it raised, or gave no number.
        """
        with _blamed(self.path, "score the predictions"):
            value = self.module.score(y, predictions)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise Broken(f"{self.path}: score() gave {_named(value)}, not a number")
        return float(value)


def _named(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def read(path: Path) -> Grader:
    """Import a grader and check what it promises.

    Raises:
        Broken: it is missing, raises, or lacks or misstates a name.
    """
    if not path.is_file():
        raise Broken(f"{path}: there is no such grader")
    sys.dont_write_bytecode = True
    with _blamed(path, "be imported"):
        spec = importlib.util.spec_from_file_location("grader", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Its dataclasses look their module up there.
        sys.modules["grader"] = module
        spec.loader.exec_module(module)

    def get(name: str) -> Named:
        if not hasattr(module, name):
            raise Broken(f"{path}: {name} is missing")
        return getattr(module, name)

    for name in ("held_out", "score"):
        if not callable(get(name)):
            raise Broken(f"{path}: {name} is not a function")
    if not isinstance(get("METRIC"), str):
        raise Broken(f"{path}: METRIC is {module.METRIC!r}, not a name")
    if not isinstance(get("HIGHER_IS_BETTER"), bool):
        raise Broken(f"{path}: HIGHER_IS_BETTER is {module.HIGHER_IS_BETTER!r}, not True or False")
    return Grader(
        path,
        module,
        _shape(path, "INPUT_SHAPE", get("INPUT_SHAPE")),
        _shape(path, "OUTPUT_SHAPE", get("OUTPUT_SHAPE")),
        module.METRIC,
        module.HIGHER_IS_BETTER,
        _thresholds(path, get("THRESHOLDS"), module.HIGHER_IS_BETTER),
    )


def fits(shape: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether two shapes can be one; None is any size."""
    return len(shape) == len(wanted) and all(
        a is None or b is None or a == b for a, b in zip(shape, wanted, strict=True)
    )


def shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def _shape(path: Path, name: str, value: object) -> tuple[int | None, ...]:
    sizes = tuple(value) if isinstance(value, tuple | list) else None
    if sizes is None or not all(size is None or type(size) is int for size in sizes):
        raise Broken(f"{path}: {name} is {value!r}, not a tuple of sizes such as (28, 28, 1)")
    return sizes


def _thresholds(path: Path, value: object, higher_is_better: bool) -> tuple[float, ...]:
    numbers = list(value) if isinstance(value, tuple | list) else []
    if len(numbers) != POINTS or not all(isinstance(n, Real) and math.isfinite(n) for n in numbers):
        raise Broken(f"{path}: THRESHOLDS is {value!r}, not {POINTS} numbers")
    thresholds = tuple(float(n) for n in numbers)
    order = thresholds if higher_is_better else thresholds[::-1]
    if any(a >= b for a, b in pairwise(order)):
        direction = "rise" if higher_is_better else "fall"
        raise Broken(f"{path}: THRESHOLDS {value!r} do not {direction} from 1 to {POINTS} points")
    return thresholds


@contextmanager
def _blamed(path: Path, doing: str) -> Iterator[None]:
    """Turn whatever the user's code raises into `Broken`, except running out of memory."""
    try:
        yield
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == str(path):
                line = frame.lineno
        where = f"{path}:{line}" if line else f"{path}"
        raise Broken(f"{where}: could not {doing}: {type(error).__name__}: {error}") from error
