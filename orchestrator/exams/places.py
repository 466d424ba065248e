"""Where an exam's categories stand, for the advice: by the folders, the attempts and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median

from orchestrator.exams.advise import Place, Try
from orchestrator.exams.book import Attempt
from orchestrator.grades.standing import Exam
from orchestrator.grades.verdict import Outcome
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirrors, readable
from orchestrator.records.shelf import file_sha256
from orchestrator.screen.tell import Silence
from orchestrator.settings.config import known_remotes, only_remote
from orchestrator.settings.spec import Job, Workspace

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
            for mirror in readable(Mirrors(workspace.state).unsettled(), Silence())
            if mirror.request.job == category and mirror.goes_on
        ),
        "",
    )
    return Place(
        category,
        best,
        unsubmitted=job is not None and _is_worth_handing_in(standings, job, best, mine),
        running=running,
        tries=_tries(standings, job) if job is not None else (),
    )


def usual_remote(workspace: Workspace, ledger: Ledger) -> str:
    """Where the last run went, else the only remote that is known; empty where neither says."""
    known = {remote.name for remote in known_remotes(workspace)}
    used = [run.remote for run in ledger.runs(workspace=str(workspace.root)) if run.remote in known]
    return used[-1] if used else only_remote(workspace)


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
WHERE instr(versions, ?) AND started_at IS NOT NULL AND ended_at IS NOT NULL AND outcome = 'graded'
AND EXISTS (SELECT 1 FROM run_event WHERE run_event.run_id = run.run_id AND state = 'succeeded')
GROUP BY run_id ORDER BY run.submitted_at
"""


def _tries(standings: Exam, job: Job) -> tuple[Try, ...]:
    """All of this user's at this problem, whatever the workspace; each against those before it.

    By the grader a problem is known: the same category has another one in another exam, and a
    grader's digest stands with each of its grades.
    """
    grader = standings.grader_path(job)
    digest = file_sha256(grader) if grader is not None else None
    best: dict[str, int] = {}
    found = []
    for workspace, time_us, points in standings.ledger.query(_TRIES, digest) if digest else ():
        before = best.get(workspace, 0)
        found.append(Try(before, points, time_us / 1e6))
        best[workspace] = max(before, points)
    return tuple(found)
