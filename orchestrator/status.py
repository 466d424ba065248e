"""Runs as `train status` shows them: from what this laptop knows of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.cost import Cost, format_duration
from orchestrator.declared import is_home
from orchestrator.errors import ConnectError, ConnectionLost, TrainshedError
from orchestrator.ledger import Ledger
from orchestrator.mirror import LOST, Mirror, age
from orchestrator.money import priced_runs
from orchestrator.shelf import Shelf
from orchestrator.spec import Workspace

# The later of two grades takes the place of the earlier one.
_POINTS = """
SELECT sha256, points FROM verdict
WHERE workspace = ? AND sha256 IN (SELECT value FROM json_each(?)) AND outcome <> 'broken'
ORDER BY graded_at, rowid
"""


@dataclass(frozen=True)
class StatusRow:
    """A run as `train status` shows it.

    Attributes:
        note: what the user should know beyond the state: not asked, not pulled.
        ended_at: by this laptop's clock; None while it goes on, and where nobody knows.
        points: of the model it made; None where there is none, or no grade of it.
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
    """What the last grades of the runs' models were, by run id."""
    made = [(m.run_id, fact.sha256) for m in mirrors for fact in ledger.artifacts(m.run_id)]
    digests = json.dumps([sha256 for _, sha256 in made])
    graded = dict(ledger.query(_POINTS, str(workspace.root), digests))
    return {run_id: graded[sha256] for run_id, sha256 in made if sha256 in graded}


def _note(mirror: Mirror, error: TrainshedError | None, ledger: Ledger, shelf: Shelf) -> str:
    if error is not None:
        return why_unasked(mirror, error)
    away = mirror.ended and mirror.verdict != LOST and not is_home(mirror, ledger, shelf)
    return "not here yet: train pull" if away else ""


def why_unasked(mirror: Mirror, error: TrainshedError) -> str:
    if not isinstance(error, ConnectError | ConnectionLost):
        return str(error)
    seen = mirror.seen
    last = f"last seen {format_duration(age(seen))} ago" if seen else "never seen"
    return f"unreachable ({last}): {error}"
