"""The results: what was measured, on what, and how to keep it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.proof import Proof
from bench.taken import Taken

OURS = "train"


@dataclass(frozen=True)
class Figure:
    """One program in one case.

    Attributes:
        part: of the bench.
        case: what it had to do; the same words for each program.
        rtt_ms: of the line, as asked for.
        program: `train`, or what it is compared with.
        unit: of the values.
        values: in the order they were measured.
        cpu_s, peak_mib: the medians, where they were measured.
    """

    part: str
    case: str
    rtt_ms: float
    program: str
    unit: str
    values: tuple[float, ...]
    cpu_s: float | None = None
    peak_mib: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def race(self) -> tuple[str, str, float]:
        """What programs are compared in."""
        return self.part, self.case, self.rtt_ms


@dataclass(frozen=True)
class Results:
    """Attributes:
    about: machine, date and versions of each part, by the part's name.
    lines: what each line was proven to do.
    left_out: what could not be measured here, and why.
    """

    about: dict[str, dict[str, str]]
    lines: tuple[Proof, ...]
    figures: tuple[Figure, ...]
    left_out: tuple[str, ...] = ()

    def updated(self, newer: Results) -> Results:
        """These, but the newer ones' parts and lines as they have them."""
        lines = {line.asked_ms: line for line in (*self.lines, *newer.lines)}
        kept = tuple(figure for figure in self.figures if figure.part not in newer.about)
        return Results(
            self.about | newer.about,
            tuple(lines[rtt_ms] for rtt_ms in sorted(lines)),
            kept + newer.figures,
            newer.left_out,
        )


def seconds(part: str, case: str, rtt_ms: float, program: str, taken: Iterable[Taken]) -> Figure:
    """The figure of one program's repetitions."""
    taken = tuple(taken)
    return Figure(
        part,
        case,
        rtt_ms,
        program,
        "s",
        tuple(round(one.seconds, 4) for one in taken),
        round(statistics.median(one.cpu_s for one in taken), 4),
        round(statistics.median(one.peak_mib for one in taken), 1),
    )


def ratios(figures: Iterable[Figure]) -> Iterator[tuple[Figure, Figure, float]]:
    """Ours, another, and how many times ours the other's median is."""
    figures = tuple(figures)
    ours = {figure.race: figure for figure in figures if figure.program == OURS}
    for other in figures:
        mine = ours.get(other.race)
        if mine is not None and other is not mine and mine.median > 0:
            yield mine, other, other.median / mine.median


def to_json(results: Results) -> str:
    return json.dumps(dataclasses.asdict(results), indent=1) + "\n"


def from_json(text: str) -> Results:
    data = json.loads(text)
    return Results(
        data["about"],
        tuple(Proof(**line) for line in data["lines"]),
        tuple(Figure(**{**one, "values": tuple(one["values"])}) for one in data["figures"]),
        tuple(data["left_out"]),
    )


def load(file: Path) -> Results:
    """What was kept; empty if nothing was."""
    return from_json(file.read_text("utf-8")) if file.exists() else Results({}, (), ())
