"""What a tracking server is told of a run: what this laptop knows of it by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchestrator.desk import Desk
from orchestrator.exams.book import hides_metrics
from orchestrator.history import Entry, History
from orchestrator.records.curves import Epoch, read_epochs, versions
from orchestrator.records.ledger import RunFact
from orchestrator.records.mirror import Mirror, Mirrors, is_over
from orchestrator.records.shelf import Shelf
from orchestrator.screen.costs import cost_text
from orchestrator.screen.printable import printable
from remote.runfolder import State


@dataclass(frozen=True)
class Tracked:
    """Attributes:
    ended_at: None while it goes on.
    params: as they were given with --param.
    tags: by names without a prefix.
    numbers: of the run as a whole.
    model: the file of the digest `tags["model"]`; None where none came home.
    """

    run_id: str
    state: str
    started_at: datetime
    ended_at: datetime | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    epochs: tuple[Epoch, ...]
    numbers: Mapping[str, float]
    model: Path | None


def gather(desk: Desk, names: Sequence[str]) -> tuple[Tracked, ...]:
    """The runs that were sent to a machine or came from elsewhere, by time.

    Args:
        names: as `find_run` takes them; all of the workspace without.

    Raises:
        UsageError: there is no such run.
    """
    wanted = {desk.find_run(name).run_id for name in names}
    mirrors = Mirrors(desk.workspace.state)
    found = []
    for entry in History(desk).entries():
        mirror, fact = mirrors.get(entry.name), desk.ledger.run(entry.name)
        if mirror and fact and mirror.was_heard_of and (not names or entry.name in wanted):
            found.append(_tracked(desk, entry, mirror, fact))
    return tuple(found)


def _tracked(desk: Desk, entry: Entry, mirror: Mirror, fact: RunFact) -> Tracked:
    state = mirror.verdict
    events = desk.ledger.events(entry.name)
    epochs = read_epochs(mirror.metrics)
    hides = hides_metrics(desk.workspace.root)
    tags = {
        "run": entry.name,
        "category": entry.category,
        "remote": fact.remote,
        "code": entry.snapshot,
        "command": fact.command,
        "state": state,
        "reason": "" if hides else entry.reason,
        "cost": cost_text(entry.cost),
        "metric": "" if hides else entry.metric,
        "model": entry.model or "",
        "versions": ", ".join(f"{name} {version}" for name, version in versions(epochs)),
    }
    numbers = {
        "points": entry.points,
        "metric": None if hides else entry.value,
        "cost": entry.cost.amount if entry.cost else None,
    }
    return Tracked(
        run_id=entry.name,
        state=state,
        started_at=entry.at,
        ended_at=events[-1].at if events and is_over(state) else None,
        params=dict(fact.params),
        tags={name: printable(text) for name, text in tags.items() if text},
        epochs=epochs,
        numbers={name: float(number) for name, number in numbers.items() if number is not None},
        model=Shelf(desk.workspace.state).find(entry.model) if entry.model else None,
    )


def status(state: str) -> str:
    """MLflow's word for a run's state."""
    if state == State.SUCCEEDED.value:
        return "FINISHED"
    if state == State.CANCELLED.value:
        return "KILLED"
    return "FAILED" if is_over(state) else "RUNNING"
