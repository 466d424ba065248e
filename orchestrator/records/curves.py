"""How a run's training went, and what it used of its machine: the lines of its mirrored files.

Both files come from a VM: a line that makes no sense is passed over, as the last one is while it
is being written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from orchestrator.screen.printable import printable
from remote.record import Malformed, decode
from remote.usage import Usage

Line = TypeVar("Line", bound=tuple[object, ...])
Item = TypeVar("Item")

# A sample of 16 GPUs is under 4 kB, and so is an epoch of a hundred metrics.
_LINE_LIMIT_BYTES = 64_000
# Of an epoch or a sample; what is longer is not worth being kept.
_KEPT_LINE_BYTES = 2_000
# A hundred thousand epochs. In memory it takes thirty times as much, so no VM may tell more.
_FILE_LIMIT_BYTES = 32 * 2**20

# A loss beyond this is as good as infinite, and where it stands nothing else can be drawn.
_LARGEST_VALUE = 1e30

# Keras tells the validation's metrics by the same names with this before them.
_VALIDATION = "val_"


class Epoch(NamedTuple):
    """One epoch, as `remote/kerashook.py` wrote it, or the script itself.

    Attributes:
        epoch: from 0, in its fit.
        metrics: by name; None is not a finite number.
        fit: from 1, over the run.
        epochs: how many the fit will have; None where nobody tells.
        at: its end, ISO 8601 UTC, by the VM's clock; what a script writes may be no time at all.
        seconds: it took, validation included; 0 where nobody tells.
        versions: of the frameworks, by name; told with a process's first epoch.
    """

    epoch: int
    metrics: dict[str, float | None]
    fit: int = 1
    epochs: int | None = None
    at: str = ""
    seconds: float = 0.0
    versions: dict[str, str] = {}  # noqa: RUF012  # nobody writes to it


class Point(NamedTuple):
    """A value of one metric; `step` counts epochs from 1, over all fits of the run."""

    step: int
    value: float


def read_epochs(file: Path) -> tuple[Epoch, ...]:
    """In the order of training. Each epoch is here once, also one that a restart trained again, or
    that both Keras and the script told of. Of a file beyond 32 MiB the last ones.
    """
    told: dict[tuple[int, int], list[Epoch]] = {}
    for line in _lines(file, Epoch, _FILE_LIMIT_BYTES):
        told.setdefault((line.fit, line.epoch), []).append(line)
    return tuple(_joined(told[key]) for key in sorted(told))


def _joined(lines: Sequence[Epoch]) -> Epoch:
    """What lines on one epoch say together: of each fact what was told last."""
    if len(lines) == 1:
        return lines[0]
    told = {name: fact for line in lines for name, fact in line._asdict().items() if fact}
    metrics = {name: value for line in lines for name, value in line.metrics.items()}
    return lines[-1]._replace(**{**told, "metrics": metrics})


def trained_with(file: Path) -> tuple[tuple[str, str], ...]:
    """`versions` by the first epoch alone, which tells them in all but odd cases."""
    first = next(_lines(file, Epoch), None)
    return versions((first,) if first else ())


def read_usage(file: Path, tail_bytes: int = _FILE_LIMIT_BYTES) -> tuple[Usage, ...]:
    """In the order in which they were taken.

    Args:
        tail_bytes: look no further back than this from the file's end.
    """
    return tuple(_lines(file, Usage, tail_bytes))


def series(epochs: tuple[Epoch, ...]) -> dict[str, tuple[Point, ...]]:
    """The curve of each metric, by its printable name, in the order in which they were first told.

    What is not a finite number, or as good as infinite, is left out, so a curve can have gaps in
    its steps.
    """
    curves: dict[str, list[Point]] = {}
    for step, epoch in enumerate(epochs, 1):
        for name, value in epoch.metrics.items():
            curve = curves.setdefault(printable(name), [])
            if value is not None and abs(value) <= _LARGEST_VALUE:
                curve.append(Point(step, value))
    return {name: tuple(curve) for name, curve in curves.items()}


class Pair(NamedTuple):
    """One metric's curves; at least one of them has points."""

    metric: str
    training: tuple[Point, ...]
    validation: tuple[Point, ...]


def paired(curves: Mapping[str, tuple[Point, ...]]) -> tuple[Pair, ...]:
    """Each metric with its validation: the loss, then the others in the order in which they were
    told. What was only validated stands under its whole name.
    """
    found = []
    for name in sorted(curves, key=lambda name: name != "loss"):
        if not name.startswith(_VALIDATION):
            found.append(Pair(name, curves[name], curves.get(f"{_VALIDATION}{name}", ())))
        elif name.removeprefix(_VALIDATION) not in curves:
            found.append(Pair(name, (), curves[name]))
    return tuple(pair for pair in found if pair.training or pair.validation)


def versions(epochs: tuple[Epoch, ...]) -> tuple[tuple[str, str], ...]:
    """Names and versions of the frameworks that trained, printable and sorted."""
    told = {name: version for epoch in epochs for name, version in epoch.versions.items()}
    return tuple(sorted((printable(name), printable(told[name])) for name in told))


def thinned(items: Sequence[Item], most: int) -> tuple[Item, ...]:
    """At most so many of them, evenly taken, the first and the last among them."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[index * (len(items) - 1) // (most - 1)] for index in range(most))


@lru_cache(maxsize=2**14)
def _parse(kind: type[Line], line: bytes) -> Line:
    """Kept, because who watches a run reads its file again whenever a line was added."""
    return _decode(kind, line)


def _decode(kind: type[Line], line: bytes) -> Line:
    """As `from_bytes`, but what Python's json writes for a loss that diverged is none."""
    try:
        value = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON") from error
    return decode(kind, value)


def _lines(file: Path, kind: type[Line], tail_bytes: int | None = None) -> Iterator[Line]:
    try:
        with file.open("rb") as lines:
            if tail_bytes is not None:
                lines.seek(max(0, lines.seek(0, os.SEEK_END) - tail_bytes))
            for line in iter(lambda: lines.readline(_LINE_LIMIT_BYTES), b""):
                parse = _parse if len(line) <= _KEPT_LINE_BYTES else _decode
                try:
                    yield parse(kind, line)
                except Malformed:
                    continue
    except FileNotFoundError:
        return
