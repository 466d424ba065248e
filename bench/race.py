"""Programs in the same case, in turn, so that whatever slows the machine slows them all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bench.figures import Figure, seconds
from bench.taken import Taken
from bench.vm import Vm


@dataclass(frozen=True)
class Step:
    """What one program does for a case.

    Attributes:
        go: measured.
        before: brings about the state the case starts from; not measured.
    """

    go: Callable[[], Taken]
    before: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Heat:
    """One case on one line.

    Attributes:
        repeats: of each program.
    """

    part: str
    case: str
    vm: Vm
    repeats: int

    def race(self, steps: Mapping[str, Step]) -> Iterator[Figure]:
        """A figure for each program."""
        taken: dict[str, list[Taken]] = {program: [] for program in steps}
        for _ in range(self.repeats):
            for program, step in steps.items():
                step.before()
                self.vm.rest()
                taken[program].append(step.go())
        rtt_ms = self.vm.line.rtt_ms
        for program, all_of_it in taken.items():
            figure = seconds(self.part, self.case, rtt_ms, program, all_of_it)
            say(f"{rtt_ms:g} ms, {self.case}: {program} {figure.median:.3f} s")
            yield figure
        self.vm.rest()


def say(text: str) -> None:
    """Progress."""
    sys.stderr.write(f"{text}\n")
