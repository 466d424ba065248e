"""Models graded as they come home, while others still train; what grades is imported meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from orchestrator.errors import TrainshedError
from orchestrator.grades.settling import left_ungraded
from orchestrator.grades.verdict import Verdict
from orchestrator.records.mirror import Mirror
from orchestrator.screen.tell import Teller

if TYPE_CHECKING:
    from orchestrator.grades.examiner import Examiner
    from orchestrator.grades.standing import Exam


class Examining:
    """Attributes:
    verdicts: of what was graded in `beside` blocks that have ended.
    """

    def __init__(self, tell: Teller) -> None:
        self._tell = tell
        self._examiner: Examiner | None = None
        self.verdicts: list[Verdict] = []

    @contextmanager
    def beside(self, exam: Exam, mirrors: Sequence[Mirror]) -> Iterator[None]:
        """Grade what comes home in the block, in a process that is ready by then.

        Raises:
            Interrupted: the user did not wait for the last of it.
        """
        examiner = self._make_examiner(exam, mirrors)
        if examiner is None:
            yield
            return
        with examiner as self._examiner:
            try:
                for mirror in mirrors:
                    self.examine(exam, mirror)
                yield
                try:
                    examiner.finish()
                except KeyboardInterrupt:
                    raise left_ungraded() from None
            finally:
                self.verdicts += examiner.verdicts
                self._examiner = None

    def examine(self, exam: Exam, mirror: Mirror) -> None:
        """Have its category's models graded that are here and have no verdict."""
        if self._examiner is None:
            return
        # What keeps a model from being looked at is told by `settle`.
        with suppress(OSError, TrainshedError):
            for job in exam.workspace.jobs:
                if job.name == mirror.request.job:
                    for sha256 in exam.ungraded(job):
                        self._examiner.examine(job, sha256)

    def _make_examiner(self, exam: Exam, mirrors: Sequence[Mirror]) -> Examiner | None:
        """None where nothing can be graded, or not yet: `settle` tells what is in the way."""
        from orchestrator.grades.examiner import Examiner
        from orchestrator.grades.grade import can_grade

        names = {mirror.request.job for mirror in mirrors}
        jobs = [job for job in exam.workspace.jobs if job.name in names]
        if not any(map(exam.grader_path, jobs)) or not can_grade():
            return None
        with suppress(OSError):
            return Examiner(exam.workspace, exam.ledger.path, self._tell)
        return None
