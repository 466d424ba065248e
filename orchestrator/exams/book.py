"""What is recorded of a workspace's exam: in the ledger, and once more beside the runs.

.train/exam.jsonl: facts, `["kind", {...}]` a line. Each is there before it is in the ledger, so
whichever of the two is lost or older, the other makes up for it. Before them stands the seed: a
file with nothing else is an exam that was about to begin.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import LedgerDamaged, LedgerError
from orchestrator.exams.exam import CATEGORIES, Instant, Reading, Score, read_clock, score
from orchestrator.records.ledger import (
    AttemptFact,
    AttemptGrade,
    ExamEnd,
    ExamFact,
    ExamMark,
    Fact,
    Ledger,
    SessionFact,
    SessionTerms,
    from_text,
    to_text,
)
from remote import clock
from remote.atomic import naming, replace_file

_KINDS: dict[str, type[Fact]] = {
    kind.__name__: kind
    for kind in (
        *(SessionFact, SessionTerms, ExamFact, ExamMark, ExamEnd),
        *(AttemptFact, AttemptGrade),
    )
}

# Between two marks of one boot; each command of an exam would add one.
_MARK_S = 60.0


def read_instant() -> Instant:
    return Instant(datetime.now(UTC), clock.boot_id(), clock.up_s())


@dataclass(frozen=True)
class Attempt:
    """Attributes:
    grade: None while it has none.
    """

    fact: AttemptFact
    grade: AttemptGrade | None

    @property
    def points(self) -> int | None:
        return self.grade.points if self.grade else None


class ExamBook:
    """Of one workspace."""

    def __init__(self, root: Path, ledger: Ledger) -> None:
        self.file = journal(root)
        self.ledger = ledger
        self.root = root
        self._recall(tuple(read_journal(root)))

    def _recall(self, known: tuple[Fact, ...]) -> None:
        try:
            self.ledger.add(*known)
        except LedgerDamaged:
            raise
        except LedgerError:
            # Some line was spoilt: what builds on it is passed over, and the rest counts.
            for fact in known:
                with suppress(LedgerError):
                    self.ledger.add(fact)

    def keep(self, *facts: Fact) -> None:
        """On the disk, twice, when this returns."""
        lines = [[type(fact).__name__, json.loads(to_text(fact))] for fact in facts]
        with naming(self.file), self.file.open("a", encoding="ascii") as file:
            # A line feed before each: after a crash the file may end in a part of a line.
            file.write("".join(f"\n{json.dumps(line)}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self.ledger.add(*facts)

    def begin(self, seed: int) -> None:
        """From now on an exam of this seed is about to begin here."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.file, f'["seed", {seed}]\n'.encode())

    def begun_seed(self) -> int | None:
        """Of the exam that was about to begin; None for none."""
        with suppress(FileNotFoundError, ValueError, TypeError):
            name, seed = json.loads(self.file.read_text("ascii").partition("\n")[0])
            return int(seed) if name == "seed" else None
        return None

    def exam(self) -> ExamFact | None:
        """The last one."""
        return self.ledger.exam(str(self.root))

    def read_clock(self, exam: ExamFact, now: Instant) -> Reading:
        """How much has passed; remembered, so that it is never less again."""
        last = self.ledger.exam_marks(exam.session_id)[-1]
        then = Instant(last.at, last.boot, last.up_s)
        reading = read_clock(then, last.passed_s, now)
        if reading.moved_s or then.boot != now.boot or reading.passed_s >= last.passed_s + _MARK_S:
            self.keep(ExamMark(exam.session_id, now.at, now.boot, now.up_s, reading.passed_s))
        return reading

    def attempts(self, exam: ExamFact) -> tuple[Attempt, ...]:
        """As they were handed in."""
        grades = {(g.category, g.number): g for g in self.ledger.attempt_grades(exam.session_id)}
        return tuple(
            Attempt(fact, grades.get((fact.category, fact.number)))
            for fact in self.ledger.attempts(exam.session_id)
        )

    def score(self, exam: ExamFact) -> Score:
        found = [(attempt.fact.category, attempt.points) for attempt in self.attempts(exam)]
        return score(CATEGORIES, found, exam.pass_points)


def journal(root: Path) -> Path:
    return root / ".train" / "exam.jsonl"


def read_journal(root: Path) -> Iterator[Fact]:
    """What stands there; a line that nobody can read is passed over."""
    with suppress(FileNotFoundError):
        for line in journal(root).read_text("ascii", "replace").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                name, values = json.loads(line)
                yield from_text(_KINDS[name], json.dumps(values))


def hides_metrics(root: Path) -> bool:
    """Whether an exam goes on there, and is no practice."""
    facts = tuple(read_journal(root))
    exams = [fact for fact in facts if isinstance(fact, ExamFact)]
    ended = {fact.session_id for fact in facts if isinstance(fact, ExamEnd)}
    return bool(exams) and not exams[-1].practice and exams[-1].session_id not in ended
