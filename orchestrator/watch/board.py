"""What `train watch` shows at one moment, in words, before anything is drawn.

All text in it is printable.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.costs.cost import format_duration

# A second between two looks, and a slow line's answer, are no news.
_FRESH_S = 5.0

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class CategoryView:
    """Attributes:
    points: of the model in its folder: `4 of 5`, `-`, `invalid`.
    metric: behind them, or why there are none.
    state: of its last run; empty where it has none.
    run_id, remote: of that run; empty where it has none.
    """

    name: str
    points: str
    metric: str
    state: str = ""
    run_id: str = ""
    remote: str = ""


@dataclass(frozen=True)
class RunView:
    """Attributes:
    epoch: how far its training is, `12 of 100`; empty where it tells nothing.
    left: how long that will take, `40 s left`; empty where nobody knows.
    time, cost: so far.
    note: its points, or why it is as it is.
    """

    run_id: str
    category: str
    state: str
    remote: str
    epoch: str
    left: str
    time: str
    cost: str
    note: str
    has_ended: bool

    @property
    def progress(self) -> str:
        """`running, epoch 12 of 100, 40 s left`."""
        epoch = f"epoch {self.epoch}" if self.epoch and not self.has_ended else ""
        return ", ".join(part for part in (self.state, epoch, self.left) if part)


@dataclass(frozen=True)
class RemoteView:
    """How fresh what is shown of a remote is; only of those on which runs go on.

    Attributes:
        heard_s: how long ago it last answered; None for never.
        trouble: why it does not answer; empty while it does.
        retry_s: until it is asked again; 0 while it is being asked.
    """

    name: str
    heard_s: float | None
    trouble: str = ""
    retry_s: float = 0.0

    @property
    def is_fresh(self) -> bool:
        return not self.trouble and self.heard_s is not None and self.heard_s < _FRESH_S

    @property
    def text(self) -> str:
        if self.is_fresh:
            return f"{self.name}: connected"
        if self.heard_s is None:
            age = "not heard of yet"
        else:
            age = f"what is shown is {format_duration(self.heard_s)} old"
        if not self.trouble:
            return f"{self.name}: {age}, connecting"
        again = f"again in {format_duration(self.retry_s)}" if self.retry_s >= 1 else "trying again"
        return f"{self.name}: {age}; {again}: {self.trouble}"


@dataclass(frozen=True)
class Curve:
    """Attributes:
    points: step, counted from 1, and value; at least one.
    """

    label: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Chart:
    """One metric of a run: training, validation, and an earlier run's; at least one of them."""

    metric: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class RunDetail:
    """The chosen run.

    Attributes:
        log: its last lines.
        usage: what it uses of its machine, a line for each GPU and one for the rest.
    """

    run_id: str
    log: tuple[str, ...]
    charts: tuple[Chart, ...]
    usage: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """Attributes:
    sessions: clock, cost and budget of each that goes on.
    exam: its clock and points; empty without one.
    advice: the next advised step and why; empty outside an exam.
    trouble: why what is shown could not be brought up to date.
    """

    workspace: str
    categories: tuple[CategoryView, ...]
    runs: tuple[RunView, ...]
    remotes: tuple[RemoteView, ...] = ()
    sessions: tuple[str, ...] = ()
    exam: str = ""
    advice: str = ""
    detail: RunDetail | None = None
    trouble: str = ""

    def category(self, name: str) -> CategoryView | None:
        return next((view for view in self.categories if view.name == name), None)

    def run(self, run_id: str) -> RunView | None:
        return next((view for view in self.runs if view.run_id == run_id), None)


def sparkline(values: tuple[float, ...], top: float) -> str:
    """A bar for each value; `top` is as high as a bar can be."""
    last = len(_BARS) - 1
    return "".join(_BARS[min(last, max(0, round(last * (value / top))))] for value in values)
