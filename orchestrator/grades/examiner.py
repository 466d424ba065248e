"""Grades what comes home while other runs still train."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Self

from orchestrator.errors import TrainshedError
from orchestrator.exams.book import hides_metrics
from orchestrator.grades.grade import Abandoned, Grading
from orchestrator.grades.standing import Exam
from orchestrator.grades.verdict import Verdict, of_five
from orchestrator.records.ledger import Ledger
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Job, Workspace


class Examiner:
    """A grading process that is started before there is a model, and a thread that asks it.

    Leaving the block ends both at once; a model that has no verdict by then simply has none.

    Args:
        ledger: its file; the thread has a connection of its own.

    Attributes:
        verdicts: recorded and told so far.
    """

    def __init__(self, workspace: Workspace, ledger: Path, tell: Teller) -> None:
        """Raises:
        OSError: there is no folder for temporary files.
        """
        self.verdicts: list[Verdict] = []
        self._workspace = workspace
        self._ledger = ledger
        self._tell = tell
        self._grading = Grading()
        self._asked: set[tuple[str, str]] = set()
        self._queue: SimpleQueue[tuple[Job, str] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="examiner", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._grading.abandon()
        self.finish()
        self._grading.__exit__()

    def examine(self, job: Job, sha256: str) -> None:
        """Have a model of the shelf graded, once."""
        if (job.name, sha256) not in self._asked:
            self._asked.add((job.name, sha256))
            self._queue.put((job, sha256))

    def finish(self) -> None:
        """Wait until all have been graded that were asked for."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            self._grading.start()
            with Ledger.open(self._ledger) as ledger:
                exam = Exam(self._workspace, ledger)
                while (wanted := self._queue.get()) is not None:
                    for verdict in exam.grade([wanted], self._tell, self._grading):
                        self.verdicts.append(verdict)
                        shown = verdict.hidden if hides_metrics(exam.workspace.root) else verdict
                        self._tell.step(_told(shown, exam.earlier_maker(*wanted)))
        except (Abandoned, TrainshedError, OSError):
            # Who settles grades what has no verdict, and tells what is in the way.
            pass


def _told(verdict: Verdict, maker: str | None) -> str:
    """Args:
    maker: the run that made the model, where it was not the category's last.
    """
    if verdict.points is not None:
        worth = f"{of_five(verdict.points)} points"
        if verdict.value is not None:
            worth += f", {verdict.metric} {verdict.value:.4g}"
    else:
        worth = f"{verdict.outcome.value}: {verdict.reason}"
    return f"graded {f'the model of {maker}' if maker else verdict.category}: {worth}"
