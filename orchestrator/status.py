"""Runs as `train status` shows them: from what this laptop knows of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.costs.cost import Cost, format_duration
from orchestrator.costs.money import priced_runs
from orchestrator.declared import is_home
from orchestrator.errors import ConnectError, ConnectionLost, TrainshedError
from orchestrator.grades.counting import present_grades
from orchestrator.grades.verdict import Outcome
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import LOST, Mirror, age
from orchestrator.records.shelf import Shelf
from orchestrator.settings.spec import Workspace


@dataclass(frozen=True)
class StatusRow:
    """A run as `train status` shows it.

    Attributes:
        note: what the user should know beyond the state: not asked, not pulled.
        ended_at: by this laptop's clock; None while it goes on, and where nobody knows.
        points: of the model it made, by the grader of now; None where there is none, or no such
            grade of it.
    """

    mirror: Mirror
    remote: str
    cost: Cost | None
    note: str = ""
    ended_at: datetime | None = None
    points: int | None = None


def status_rows(
    workspace: Workspace,
    ledger: Ledger,
    mirrors: Sequence[Mirror],
    errors: Mapping[str, TrainshedError],
) -> list[StatusRow]:
    """Args:
    errors: why a run's remote could not be asked, by run id.
    """
    shelf = Shelf(workspace.state)
    runs = {run.usage.run_id: run for run in priced_runs(ledger, {m.run_id for m in mirrors})}
    points = _points(workspace, ledger, mirrors)
    rows = []
    for mirror in mirrors:
        run = runs.get(mirror.run_id)
        rows.append(
            StatusRow(
                mirror,
                ledger.remote_of(mirror.run_id),
                run.cost if run else None,
                _note(mirror, errors.get(mirror.run_id), ledger, shelf),
                run.usage.ended_at if run and mirror.ended else None,
                points.get(mirror.run_id),
            )
        )
    return rows


def _points(
    workspace: Workspace, ledger: Ledger, mirrors: Sequence[Mirror]
) -> dict[str, int | None]:
    """What the last grades of the runs' models are, by run id."""
    jobs = {mirror.request.job for mirror in mirrors}
    # One file may stand in two categories, and be worth points in one of them only.
    graded = {
        (job.name, fact.sha256): fact.points
        for job in workspace.jobs
        if job.name in jobs
        for fact in present_grades(workspace, ledger, job)
        if fact.outcome != Outcome.BROKEN.value
    }
    made = [
        (mirror, (mirror.request.job, fact.sha256))
        for mirror in mirrors
        for fact in ledger.artifacts(mirror.run_id)
    ]
    return {mirror.run_id: graded[model] for mirror, model in made if model in graded}


def _note(mirror: Mirror, error: TrainshedError | None, ledger: Ledger, shelf: Shelf) -> str:
    if error is not None:
        return why_unasked(mirror, error)
    away = mirror.ended and mirror.verdict != LOST and not is_home(mirror, ledger, shelf)
    if away and mirror.is_gone:
        return f"gone from {ledger.remote_of(mirror.run_id)} before it was pulled"
    if away and mirror.is_trial:
        return "a trial, left there: train pull RUN"
    return "not here yet: train pull" if away else ""


def why_unasked(mirror: Mirror, error: TrainshedError) -> str:
    if not isinstance(error, ConnectError | ConnectionLost):
        return str(error)
    at = mirror.heard_at
    last = f"last seen {format_duration(age(at))} ago" if at else "never seen"
    return f"unreachable ({last}): {error}"
