"""What a sweep varies, as typed: `lr=1e-4..1e-2:log`, `units=32,64,128`, `layers=1..4`. Pure."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import UsageError

_WHOLE = re.compile(r"[-+]?\d+")
_RANGE = re.compile(r"(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(:(?P<scale>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Choices:
    """Texts, as the script gets them."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.values)


@dataclass(frozen=True)
class Wholes:
    """Whole numbers, both ends included."""

    low: int
    high: int
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low}..{self.high}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Reals:
    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low!r}..{self.high!r}{':log' if self.log else ''}"


Range = Choices | Wholes | Reals
Value = str | int | float


@dataclass(frozen=True)
class Space:
    """Attributes:
    varied: in the order in which they were typed.
    fixed: what every trial gets.
    """

    varied: Mapping[str, Range]
    fixed: Mapping[str, str]

    @classmethod
    def parse(cls, params: Mapping[str, str]) -> Space:
        """Raises:
        UsageError: a range makes no sense, or nothing is varied.
        """
        read = {name: _read(name, text) for name, text in params.items()}
        varied = {name: range_ for name, range_ in read.items() if not isinstance(range_, str)}
        fixed = {name: text for name, text in read.items() if isinstance(text, str)}
        if not varied:
            raise UsageError(
                "a sweep needs a parameter to vary",
                cause=", ".join(f"{name}={text} is one value" for name, text in fixed.items()),
                fix="--param lr=1e-4..1e-2:log, or --param units=32,64,128",
            )
        return cls(varied, fixed)

    def words(self) -> dict[str, str]:
        """The same for the same space, however it was typed."""
        return {name: str(each) for name, each in sorted({**self.varied, **self.fixed}.items())}

    def grid_size(self) -> int:
        """Raises:
        UsageError: there are infinitely many values.
        """
        return math.prod(len(values) for values in self._axes().values())

    def grid(self) -> Iterator[dict[str, Value]]:
        """Each point of it; the parameter typed last changes first."""
        axes = self._axes()
        for point in itertools.product(*axes.values()):
            yield dict(zip(axes, point, strict=True))

    def _axes(self) -> dict[str, Sequence[Value]]:
        axes: dict[str, Sequence[Value]] = {}
        for name, each in self.varied.items():
            match each:
                case Choices(values):
                    axes[name] = values
                case Wholes(low, high):
                    axes[name] = range(low, high + 1)
                case Reals():
                    raise UsageError(
                        f"a grid needs the values of {name}, and {each} has infinitely many",
                        fix=f"--param {name}={each.low:g},{each.high:g}; or --sampler tpe",
                    )
        return axes


def _read(name: str, text: str) -> Range | str:
    """A text that is neither a range nor several choices is what every trial gets."""
    found = _RANGE.fullmatch(text)
    if found is not None and any(map(_is_number, (found["low"], found["high"]))):
        return _read_range(name, text, found["low"], found["high"], found["scale"])
    if "," not in text:
        return text
    values = tuple(text.split(","))
    if "" in values or len(set(values)) < len(values):
        raise UsageError(f"--param {name}={text} has an empty choice, or one twice")
    return Choices(values)


def _read_range(name: str, text: str, low: str, high: str, scale: str | None) -> Range:
    def wrong(why: str) -> UsageError:
        return UsageError(
            f"--param {name}={text}: {why}", fix=f"--param {name}=1e-4..1e-2:log, for example"
        )

    if not (_is_number(low) and _is_number(high)):
        raise wrong("one end is no number")
    if scale not in (None, "log"):
        raise wrong(f"after the range only :log may stand, not :{scale}")
    log = scale == "log"
    if float(low) >= float(high):
        raise wrong("the first end is not below the second")
    if not math.isfinite(float(high) - float(low)):
        raise wrong("its ends are too far apart to draw between them")
    if log and float(low) <= 0:
        raise wrong("a logarithm needs ends above 0")
    if _WHOLE.fullmatch(low) and _WHOLE.fullmatch(high):
        return Wholes(int(low), int(high), log)
    return Reals(float(low), float(high), log)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
