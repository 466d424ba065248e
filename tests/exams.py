"""A user in an exam: its workspace, a clock that a test moves, and models without a framework."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.desk import Desk
from orchestrator.exams.desk import ExamDesk
from orchestrator.exams.exam import CATEGORIES, Instant
from orchestrator.exams.start import Clock
from orchestrator.screen.console import Console
from orchestrator.settings.config import load_workspace
from tests.laptop import SCRIPT, Laptop

HOUR_S = 3600.0


@dataclass
class Clocks:
    """A laptop's clocks, real but for what a test adds.

    Attributes:
        slept_s: how much further both are.
        set_s: how far the wall clock was set besides.
    """

    slept_s: float = 0.0
    set_s: float = 0.0
    boot: str = "boot-1"
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> Instant:
        now = datetime.now(UTC)
        up_s = (now - self._began).total_seconds() + self.slept_s
        return Instant(now + timedelta(seconds=self.slept_s + self.set_s), self.boot, up_s)


@contextmanager
def at_exam(root: Path, clocks: Clock) -> Iterator[ExamDesk]:
    """One command's work in an exam."""
    with Desk(load_workspace(root), Console()) as desk, desk.console:
        yield ExamDesk(desk, clocks)


def stand_in_problems(folder: Path, categories: Sequence[str] = CATEGORIES) -> None:
    """What the practice pack would make, but for its data: five categories, quick to train."""
    jobs = ["jobs:"]
    for name in categories:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "brief.md").write_text(f"# {name}\n")
        (folder / name / "grader.py").write_text("THRESHOLDS = (1, 2, 3, 4, 5)\n")
        (folder / name / "job.py").write_text(SCRIPT)
        jobs.append(f'  {name}: {{command: "python3 {name}/job.py", outputs: [{name}/mymodel.h5]}}')
    (folder / "train.yaml").write_text("\n".join(jobs) + "\n")


def run(laptop: Laptop, category: str, **params: str) -> str:
    """Train a category on the VM to its end; the run's id. Without a grade."""
    before = set(laptop.states())
    words = [word for name, value in params.items() for word in ("--param", f"{name}={value}")]
    laptop.train("run", category, "--remote", "vm", *words)
    (made,) = set(laptop.states()) - before
    return made
