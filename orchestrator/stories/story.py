"""What happened in a session or in a workspace, as one value: what `train report` tells. Pure.

All text in it is as it was recorded, by users and VMs: whoever shows it makes it harmless first.
Times are in UTC, by this laptop's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from orchestrator.costs.billing import Paid
from orchestrator.costs.cost import Cost, Span, Total
from orchestrator.records.curves import Point
from orchestrator.sweeps.past import Past


class Use(NamedTuple):
    """How busy a machine was at one moment.

    Attributes:
        gpu_percent: mean over its GPUs; None where none tells.
        cpu_percent: of the run's processes; 100 is one core.
    """

    at: datetime
    gpu_percent: float | None
    cpu_percent: float | None


@dataclass(frozen=True)
class Change:
    """What is different in the code from one trial to the next.

    Attributes:
        since: the name of the earlier one; empty for the first of its category.
        added, removed: lines.
        lines: as `diff -u` has them, the first ones.
        left_out: how many more there are.
        why_unknown: why nobody can tell; empty where it is told.
    """

    since: str = ""
    added: int = 0
    removed: int = 0
    lines: tuple[str, ...] = ()
    left_out: int = 0
    why_unknown: str = ""


@dataclass(frozen=True)
class Trial:
    """A run, or a model that was handed in.

    Attributes:
        name: the run's id, or the attempt's name.
        state: of a run; `handed in` for an attempt.
        points: of the last grade of its model; None where there is none.
        metric: of the grader; empty, as `value` is None, while an exam hides it.
        reason: why there is no grade, or why the run ended as it did.
        cost: of a run, on all its hosts; None where it has none.
        hosts: on so many at once; `remote`, as all but the cost, is the first one's.
        code, model: digests; empty where nobody knows, or there is none.
        curves: by the metric's name; the run's own, so an exam shows them too.
        epochs: how many were told.
        versions: of the frameworks that trained.
        use: of its machine, thinned.
        gpus: how many that told of; `gpu_memory_mib` is what one of them has.
    """

    at: datetime
    category: str
    name: str
    remote: str
    state: str
    points: int | None = None
    metric: str = ""
    value: float | None = None
    reason: str = ""
    params: tuple[tuple[str, str], ...] = ()
    cost: Cost | None = None
    hosts: int = 1
    code: str = ""
    model: str = ""
    change: Change = Change()
    curves: tuple[tuple[str, tuple[Point, ...]], ...] = ()
    epochs: int = 0
    versions: tuple[tuple[str, str], ...] = ()
    use: tuple[Use, ...] = ()
    gpus: int = 0
    gpu_memory_mib: int | None = None


@dataclass(frozen=True)
class Rise:
    """A category got its first points, or more.

    Attributes:
        spent: by then, in the story's currency; None where a price is unknown.
    """

    at: datetime
    category: str
    points: int
    spent: Decimal | None


@dataclass(frozen=True)
class Chapter:
    """What a category took, and what that brought.

    Attributes:
        before: points from before the story; None where there were none.
        points: the best by its end; None without a grade.
        per_point: what a gained point cost in its runs' time; None where nobody can say.
    """

    category: str
    runs: int
    seconds: float
    cost: Total
    before: int | None
    points: int | None
    per_point: Decimal | None


@dataclass(frozen=True)
class Machine:
    """A remote that was used.

    Attributes:
        gpus, gpu_memory_mib: as its last run told.
        per_hour: by its last paid time, else its last run; None where unknown.
        price_source: who says so.
        paid: in the story's time; None where that was not counted, and spans are then empty.
        idle: of the paid time, that in which nothing ran.
    """

    remote: str
    gpus: int
    gpu_memory_mib: int | None
    per_hour: Decimal | None
    currency: str
    price_source: str
    region: str
    spot: bool
    paid: Paid | None
    paid_spans: tuple[Span, ...] = ()
    idle: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Story:
    """Attributes:
    name: the session's, or the workspace's folder.
    remote: the session's; empty for a workspace, and for an exam without a machine.
    is_session: else it is all of a workspace.
    goes_on: whether the session has no end yet.
    workers: what the runs on several hosts did on the others of them.
    hides: whether an exam goes on that shows no metric.
    currency: of what was spent by each rise; empty where there are several.
    cost: of the machine in a session, idle time and all, else of the runs.
    budget_currency: empty where it was set for a machine without a price.
    gained: points; None if nothing was graded.
    graders: versions of what graded.
    sweeps: those with a trial in the story, with all their trials.
    untold_sweeps: why others cannot be told.
    """

    name: str
    remote: str
    is_session: bool
    began_at: datetime
    until: datetime
    told_at: datetime
    goes_on: bool
    hides: bool
    currency: str
    cost: Total
    budget: Decimal | None
    budget_currency: str
    gained: int | None
    per_point: Decimal | None
    chapters: tuple[Chapter, ...]
    rises: tuple[Rise, ...]
    trials: tuple[Trial, ...]
    machines: tuple[Machine, ...]
    graders: tuple[str, ...] = ()
    workers: tuple[Trial, ...] = ()
    sweeps: tuple[Past, ...] = ()
    untold_sweeps: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        return sum(chapter.points or 0 for chapter in self.chapters)


def outside(spans: Iterable[Span], paid: Sequence[Span]) -> tuple[Span, ...]:
    """The parts of paid time that lie in none of the spans."""
    busy = sorted(spans)
    found = []
    for start, end in paid:
        reached = start
        for first, last in busy:
            if last <= reached or first >= end:
                continue
            if first > reached:
                found.append((reached, first))
            reached = max(reached, last)
        if reached < end:
            found.append((reached, end))
    return tuple(found)
