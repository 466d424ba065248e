"""Runs, and what would be run, as tables for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator.costs.cost import format_duration, gang_cost
from orchestrator.grades.verdict import of_five
from orchestrator.loads import loadings_json, loadings_text
from orchestrator.records.mirror import LOST, Mirror, age, restarted_text, why_lost
from orchestrator.screen.costs import cost_json, cost_text
from orchestrator.screen.printable import printable
from orchestrator.screen.table import Table
from orchestrator.size import format_size
from remote import clock
from remote.runfolder import chief_id

if TYPE_CHECKING:
    from orchestrator.plan import Overrides
    from orchestrator.settings.spec import Job
    from orchestrator.status import StatusRow

Json = dict[str, Any]


def runs_table(rows: Iterable[StatusRow]) -> Table:
    """Runs with their remote, a note on how fresh this is, and their cost."""
    names = ("run", "state", "remote", "seen", "ended", ">time", ">cost", ">points", "~note")
    cells = [
        (
            row.mirror.run_id,
            state_text(row.mirror),
            row.remote,
            _ago(row.mirror.heard_at) or "never",
            _ago(row.ended_at),
            format_duration(row.cost.seconds) if row.cost and row.cost.seconds else "",
            cost_text(row.cost, ended=row.mirror.ended),
            "" if row.points is None else of_five(row.points),
            row.note or reason_text(row.mirror),
        )
        for row in rows
    ]
    # A column of which no row has anything is not worth its place.
    shown = [number for number in range(len(names)) if any(row[number] for row in cells)]
    made = Table(*(names[number] for number in shown))
    for row in cells:
        made.add_row(*(row[number] for number in shown))
    return made


def fold_gangs(rows: Sequence[StatusRow]) -> list[StatusRow]:
    """A row for each gang, its chief's, with what all cost, and a note on those that stand
    elsewhere than it.
    """
    gangs: dict[str, list[StatusRow]] = {}
    for row in rows:
        gangs.setdefault(chief_id(row.mirror.run_id), []).append(row)
    return [_fold(gang) if len(gang) > 1 else gang[0] for gang in gangs.values()]


def _fold(gang: Sequence[StatusRow]) -> StatusRow:
    chief, *others = sorted(gang, key=lambda row: len(row.mirror.run_id))
    state = state_text(chief.mirror)
    unlike = [
        f"{row.mirror.run_id.rpartition('.')[2]} {word}"
        for row in others
        if (word := state_text(row.mirror)) != state
    ]
    notes = (chief.note or reason_text(chief.mirror), f"on {len(gang)} hosts", *unlike)
    costs = [row.cost for row in (chief, *others) if row.cost is not None]
    return replace(
        chief,
        cost=gang_cost(costs) if costs else None,
        note=", ".join(note for note in notes if note),
    )


def _ago(at: datetime | None) -> str:
    if at is None:
        return ""
    return f"{format_duration(age(at))} ago"


def state_text(mirror: Mirror) -> str:
    """What the laptop thinks of it, in a word or three."""
    if mirror.is_known_unsent:
        return "not sent"
    return "moved" if mirror.successor and not mirror.ended else mirror.verdict


def reason_text(mirror: Mirror) -> str:
    """Why a run is as it is, where there is more to say than its state."""
    seen = mirror.seen
    if (after := mirror.successor) is not None:
        return f"goes on as {after.run_id}"
    if mirror.is_known_unsent:
        return "refused, or never reached the VM; to forget it: train cancel RUN"
    if seen is None:
        return "the command that started it goes on with it"
    if mirror.verdict == LOST:
        return why_lost(seen)
    state = seen.report.state
    told = printable(state.reason) if state else ""
    reasons = (restarted_text(state), told, loadings_text(state))
    return "; ".join(reason for reason in reasons if reason)


def run_json(row: StatusRow) -> Json:
    mirror, seen, heard_at = row.mirror, row.mirror.seen, row.mirror.heard_at
    state = seen.report.state if seen else None
    return {
        "run": mirror.run_id,
        "category": mirror.request.job,
        "state": state_text(mirror),
        "remote": row.remote,
        "seen_at": clock.moment(heard_at.timestamp()) if heard_at else None,
        "note": row.note,
        "reason": reason_text(mirror),
        "restarts": state.restarts if state else 0,
        "exit_code": state.exit_code if state else None,
        "signal": state.signal if state else None,
        # Before the VM's first word on it, the time at which it took it.
        "queued_at": state.queued_at if state else seen.at if seen else None,
        "running_at": state.running_at if state else None,
        "ended_at": state.ended_at if state else None,
        "loadings": loadings_json(state),
        "points": row.points,
        "cost": cost_json(row.cost),
        "log": str(mirror.log),
    }


def dry_run_blocks(
    files: Sequence[tuple[str, int]], jobs: Sequence[Job], chosen: Overrides
) -> Iterator[Table | str]:
    """What would be sent if the VM had nothing, and what it would be asked to execute."""
    yield files_table(files)
    size = format_size(sum(size_bytes for _, size_bytes in files))
    yield f"together: {len(files)} {'file' if len(files) == 1 else 'files'}, {size}\n"
    yield jobs_table(jobs, chosen)


def files_table(files: Iterable[tuple[str, int]]) -> Table:
    made = Table(">size", "path")
    for path, size_bytes in files:
        made.add_row(format_size(size_bytes), path)
    return made


def jobs_table(jobs: Sequence[Job], chosen: Overrides) -> Table:
    has_gangs = any(job.nodes > 1 for job in jobs)
    places = (">nodes", ">gpus") if has_gangs else (">gpus",)
    made = Table("job", "~command", *places, ">time limit", "~outputs", "~params")
    for job in jobs:
        limit_s = chosen.time_limit_of(job)
        made.add_row(
            job.name,
            job.command,
            *([str(job.nodes)] if has_gangs else []),
            str(chosen.gpus_of(job)),
            "none" if limit_s is None else format_duration(limit_s),
            ", ".join(job.outputs),
            ", ".join(f"{name}={value}" for name, value in (chosen.params or {}).items()),
        )
    return made
