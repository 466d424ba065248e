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

from orchestrator.grades.verdict import POINTS

Data = Any
"""What the user's code makes and takes, mostly numpy arrays."""
Named = Any
"""Whatever the user's code binds to a name."""

Shape = tuple[int | None, ...]
"""Of one example, without the batch; None is any size."""


class Broken(Exception):
    """The grader's fault, with file and line."""


@dataclass(frozen=True)
class Grader:
    """What a grader demands.

    Attributes:
        input_shapes: of each input of the model.
        input_names: of these inputs; empty where they are told by their order.
        thresholds: the metric that earns 1..5 points, each harder than the one before.
    """

    path: Path
    module: ModuleType
    input_shapes: tuple[Shape, ...]
    input_names: tuple[str, ...]
    output_shape: Shape
    metric: str
    higher_is_better: bool
    thresholds: tuple[float, ...]

    def held_out(self) -> tuple[tuple[Data, ...], Data]:
        """The data the candidate never sees: x of [n, *shape] for each input, and y as `score`
        wants it.

        Raises:
            Broken: it raised, or gave something else.
        """
        with _blamed(self.path, "make the held-out data"):
            x, y = self.module.held_out()
            if self.input_names:
                x = [x[name] for name in self.input_names]
            parts = (x,) if hasattr(x, "shape") else tuple(x)
            shapes = [tuple(part.shape) for part in parts]
        count = shapes[0][:1] if shapes else ()
        fitting = len(shapes) == len(self.input_shapes) and all(
            shape[:1] == count and fits(shape[1:], wanted)
            for shape, wanted in zip(shapes, self.input_shapes, strict=True)
        )
        if not fitting or not count or not count[0]:
            found = " and ".join(shown(shape[1:]) for shape in shapes) or "nothing"
            counts = " and ".join(dict.fromkeys(str(shape[:1]) for shape in shapes))
            wanted = " and ".join(map(shown, self.input_shapes))
            raise Broken(
                f"{self.path}: held_out() gave {counts} examples of shape {found}, "
                f"INPUT_SHAPE is {wanted}"
            )
        return parts, y

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
    names, shapes = _inputs(path, get("INPUT_SHAPE"))
    return Grader(
        path,
        module,
        shapes,
        names,
        _shape(path, "OUTPUT_SHAPE", get("OUTPUT_SHAPE")),
        module.METRIC,
        module.HIGHER_IS_BETTER,
        _thresholds(path, get("THRESHOLDS"), module.HIGHER_IS_BETTER),
    )


def fits(shape: Shape, wanted: Shape) -> bool:
    """Whether two shapes can be one; None is any size."""
    return len(shape) == len(wanted) and all(
        a is None or b is None or a == b for a, b in zip(shape, wanted, strict=True)
    )


def shown(shape: Shape) -> str:
    """As Python writes it, and the briefs."""
    sizes = ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _inputs(path: Path, value: Named) -> tuple[tuple[str, ...], tuple[Shape, ...]]:
    """Names and shapes: of one shape, of a list of shapes, or of a dict with one for each name."""
    names = tuple(map(str, value)) if isinstance(value, dict) else ()
    several = list(value.values()) if isinstance(value, dict) else value
    if not names and not (
        isinstance(value, tuple | list) and value and isinstance(value[0], tuple | list)
    ):
        several = [value]
    return names, tuple(_shape(path, "INPUT_SHAPE", shape) for shape in several)


def _shape(path: Path, name: str, value: object) -> Shape:
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
