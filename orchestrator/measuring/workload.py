"""What `train bench` trains, and what the figures of one workload on one remote come to. Pure.

What was trained is synthetic and says nothing of points. The time to 5/5 is reckoned: the start as
it was measured, and as many epochs at the measured rate as the pack's network of that category
takes to all five points (docs/bench.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from statistics import median
from typing import NamedTuple

from orchestrator.grades.versions import gpu_unused
from orchestrator.screen.printable import printable
from remote import clock
from remote.measured import Measured

# More than any machine does, in an epoch or a second: what is beyond is not a measurement.
_MOST = 1e12
_REPEATS_LIMIT = 100
# Programs on a GPU, in a warning.
_NAMED = 3


@dataclass(frozen=True)
class Workload:
    """Attributes:
    samples: of an epoch.
    epochs: after which the pack's network of this category has 5/5.
    """

    name: str
    category: str
    samples: int
    batch: int
    epochs: int


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("regression", "category1", samples=294, batch=32, epochs=100),
        Workload("digits", "category2", samples=4000, batch=64, epochs=12),
        Workload("photos", "category3", samples=3200, batch=64, epochs=20),
        Workload("text", "category4", samples=8000, batch=64, epochs=4),
        Workload("series", "category5", samples=6516, batch=64, epochs=15),
    )
}


class Kept(NamedTuple):
    """A workload's figures from one run, with what they depend on; a line of the book.

    Attributes:
        quick: whether it was measured with few samples and for a short time.
        price_per_hour: a decimal number, as the ledger has it for the run; empty when unknown,
            and `currency` then too.
        measured: as the VM wrote it; `is_sound`.
    """

    remote: str
    run_id: str
    quick: bool
    price_per_hour: str
    currency: str
    measured: Measured

    @property
    def at(self) -> datetime:
        return clock.parse(self.measured.at)

    @property
    def workload(self) -> Workload:
        return WORKLOADS[self.measured.workload]

    @property
    def rates(self) -> tuple[float, ...]:
        """Samples a second of each repeat."""
        return tuple(repeat.samples / repeat.seconds for repeat in self.measured.repeats)

    @property
    def rate(self) -> float:
        return median(self.rates)

    @property
    def to_five_s(self) -> float:
        """From the start of the script to 5/5."""
        return self.measured.start_s + self.workload.samples * self.workload.epochs / self.rate

    @property
    def price(self) -> Decimal | None:
        """An hour's, then."""
        return Decimal(self.price_per_hour) if self.price_per_hour else None

    @property
    def per_million(self) -> Decimal | None:
        """What a million samples cost, once the run has started."""
        return money(self.price, 1e6 / self.rate)

    @property
    def to_five_cost(self) -> Decimal | None:
        return money(self.price, self.to_five_s)

    @property
    def gpu_percent(self) -> float | None:
        percents = self.measured.gpu_percent
        return median(percents) if percents else None

    @property
    def device(self) -> str:
        """What it was trained on."""
        measured = self.measured
        if measured.framework_gpus:
            return printable(measured.gpu) or "a GPU"
        return f"CPU, {measured.cpus} cores"


def money(per_hour: Decimal | None, seconds: float) -> Decimal | None:
    """What so long costs; None at an unknown price."""
    return None if per_hour is None else per_hour * Decimal(seconds) / 3600


def is_sound(measured: Measured) -> bool:
    """Whether these can be figures of a workload that there is: a VM may write what it likes."""
    try:
        clock.parse(measured.at)
    except ValueError:
        return False
    return (
        measured.workload in WORKLOADS
        and 0 <= measured.start_s < _MOST
        and 0 < len(measured.repeats) <= _REPEATS_LIMIT
        and all(
            0 < repeat.samples < _MOST and 1 / _MOST < repeat.seconds < _MOST
            for repeat in measured.repeats
        )
    )


def complaints(kept: Kept) -> Iterator[str]:
    """What makes these figures worse than the machine is."""
    measured = kept.measured
    gpu, tensorflow = printable(measured.gpu), f"tensorflow {printable(measured.tensorflow)}"
    if not measured.framework_gpus:
        if gpu:
            known = f", compute capability {measured.compute_cap}" if measured.compute_cap else ""
            why = gpu_unused(gpu + known, tensorflow)
            plain = f"{tensorflow} does not see the {gpu} and trained on the CPU at the GPU's price"
            yield f"{why or plain}; see: train doctor {kept.remote}"
        else:
            yield "no GPU: CPU figures"
    if measured.others:
        programs = ", ".join(map(printable, measured.others[:_NAMED]))
        yield f"the {gpu} was shared with {programs}; alone it would be faster"
    if measured.slowed:
        heat = f" at {measured.temperature_c:g} °C" if measured.temperature_c is not None else ""
        yield f"the {gpu} was throttled{heat}: {', '.join(map(printable, measured.slowed))}"


def newest(book: Iterable[Kept]) -> dict[tuple[str, str], Kept]:
    """The last figures of each workload on each remote, by the remote's name and the workload's.

    Args:
        book: in the order in which they were added; the machines' clocks may be wrong.
    """
    return {(kept.remote, kept.measured.workload): kept for kept in book}
