"""Where an exam's categories stand, for the advice: by the folders, the attempts and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median

from orchestrator.advise import Place, Try
from orchestrator.exambook import Attempt
from orchestrator.ledger import Ledger
from orchestrator.mirror import UNKNOWN, Mirrors
from orchestrator.spec import Job
from orchestrator.standing import Exam
from orchestrator.verdict import Outcome

# What handing in takes where nothing was handed in yet: mostly the import of TensorFlow.
_GRADING_S = 20.0
_LAST = 10


def place_of(category: str, standings: Exam, attempts: Sequence[Attempt]) -> Place:
    """Args:
    attempts: of the exam.
    """
    workspace = standings.workspace
    mine = [attempt for attempt in attempts if attempt.fact.category == category]
    best = max((a.points for a in mine if a.points is not None), default=None)
    job = next((job for job in workspace.jobs if job.name == category), None)
    running = next(
        (
            mirror.run_id
            for mirror in Mirrors(workspace.state).unsettled()
            if mirror.request.job == category
            and not (mirror.ended or mirror.is_known_unsent or mirror.verdict == UNKNOWN)
        ),
        "",
    )
    return Place(
        category,
        best,
        unsubmitted=job is not None and _is_worth_handing_in(standings, job, best, mine),
        running=running,
        tries=_tries(standings.ledger, category),
    )


def _is_worth_handing_in(
    standings: Exam, job: Job, best: int | None, attempts: Sequence[Attempt]
) -> bool:
    """Whether what stands in the folder may get more than what was handed in."""
    standing = standings.standing(job)
    verdict = standing.verdict
    if standing.sha256 is None or standing.sha256 in {a.fact.sha256 for a in attempts}:
        return False
    if verdict is None or verdict.outcome is Outcome.BROKEN:
        return True
    return verdict.points is not None and (best is None or verdict.points > best)


def grading_s(ledger: Ledger) -> float:
    """What handing in takes: what the last attempts took, by the wall clock."""
    rows = ledger.query(
        "SELECT at, graded_at FROM attempt JOIN attempt_grade USING"
        " (session_id, category, number) ORDER BY attempt.rowid DESC LIMIT ?",
        _LAST,
    )
    took = [
        (datetime.fromisoformat(done) - datetime.fromisoformat(at)).total_seconds()
        for at, done in rows
    ]
    # One that had its grade before it was handed in took no time, which says nothing.
    took = [seconds for seconds in took if seconds > 0]
    return median(took) if took else _GRADING_S


_TRIES = """
SELECT run.workspace, microseconds, max(points) FROM run_price JOIN run USING (run_id)
JOIN verdict USING (run_id)
WHERE run.category = ? AND started_at IS NOT NULL AND ended_at IS NOT NULL AND outcome = 'graded'
GROUP BY run_id ORDER BY run.submitted_at
"""


def _tries(ledger: Ledger, category: str) -> tuple[Try, ...]:
    """All of this user's in this category, whatever the workspace; each against those before it."""
    best: dict[str, int] = {}
    found = []
    for workspace, time_us, points in ledger.query(_TRIES, category):
        before = best.get(workspace, 0)
        found.append(Try(before, points, time_us / 1e6))
        best[workspace] = max(before, points)
    return tuple(found)
