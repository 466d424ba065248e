"""What the commands report, as tables for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.cost import (
    Cost,
    CostRow,
    Grade,
    PricedRun,
    format_duration,
    format_money,
    format_total,
    story,
    sum_costs,
)
from orchestrator.mirror import LOST, UNKNOWN, Mirror, age, why_lost
from orchestrator.printable import printable
from orchestrator.size import format_size
from orchestrator.table import Cell, Table
from orchestrator.verdict import Outcome, Verdict
from remote import record

if TYPE_CHECKING:
    from orchestrator.desk import StatusRow
    from orchestrator.doctor import Check
    from orchestrator.ledger import Ledger
    from orchestrator.roundtrip import Result
    from orchestrator.spec import Remote
    from orchestrator.standing import Standing
    from remote.protocol import Heap

Json = dict[str, Any]


def points_table(standings: Iterable[Standing], runs: Iterable[PricedRun]) -> Table:
    """Each category's standing model, and what these runs took."""
    made = Table("category", ">points", "~metric", "next point needs", ">time", ">cost", "model")
    runs = tuple(runs)
    for standing in standings:
        mine = [run for run in runs if run.category == standing.category]
        seconds = sum(run.cost.seconds for run in mine)
        made.add_row(
            standing.category,
            points_text(standing.verdict),
            metric_text(standing),
            next_text(standing.verdict),
            format_duration(seconds) if mine else "",
            format_total(sum_costs(run.cost for run in mine)) if mine else "",
            model_text(standing),
        )
    return made


def points_text(verdict: Verdict | None) -> str:
    match verdict:
        case None:
            return "-"
        case Verdict(outcome=Outcome.GRADED):
            return f"{verdict.points} of 5"
        case _:
            return verdict.outcome.value


def metric_text(standing: Standing) -> str:
    """The metric and its value, or why there is none."""
    verdict = standing.verdict
    if verdict is None or not standing.is_graded or verdict.value is None:
        return printable(standing.gap)
    return f"{verdict.metric} {verdict.value:.4g}"


def next_text(verdict: Verdict | None) -> str:
    if verdict is None or verdict.outcome is not Outcome.GRADED:
        return ""
    needed = verdict.next_threshold
    if needed is None:
        return "all five"
    return f"{'at least' if verdict.higher_is_better else 'at most'} {needed:.4g}"


def model_text(standing: Standing) -> str:
    return f"{standing.path.name} {standing.sha256[:12]}" if standing.sha256 else "none"


def standing_json(standing: Standing) -> Json:
    return {
        "category": standing.category,
        "model": str(standing.path),
        "sha256": standing.sha256,
        "run": standing.run_id,
        "verdict": verdict_json(standing.verdict) if standing.verdict else None,
    }


def verdict_json(verdict: Verdict) -> Json:
    value = verdict.value
    return {
        "category": verdict.category,
        "outcome": verdict.outcome.value,
        "points": verdict.points,
        "metric": verdict.metric,
        "value": value if value is not None and value == value else None,
        "thresholds": list(verdict.thresholds),
        "next_threshold": verdict.next_threshold,
        "higher_is_better": verdict.higher_is_better,
        "reason": verdict.reason,
        "sha256": verdict.sha256,
        "size_bytes": verdict.size_bytes,
        "graded_at": verdict.graded_at.isoformat(),
        "versions": verdict.versions,
    }


def runs_table(rows: Iterable[StatusRow]) -> Table:
    """Runs with their remote, a note on how fresh this is, and their cost."""
    made = Table("run", "state", "remote", "seen", ">time", ">cost", "~note")
    for row in rows:
        seen = row.mirror.seen
        made.add_row(
            row.mirror.run_id,
            row.mirror.verdict,
            row.remote,
            f"{format_duration(age(seen))} ago" if seen else "never",
            format_duration(row.cost.seconds) if row.cost and row.cost.seconds else "",
            cost_text(row.cost),
            row.note or reason_text(row.mirror),
        )
    return made


def reason_text(mirror: Mirror) -> str:
    """Why a run is as it is, where there is more to say than its state."""
    seen = mirror.seen
    if seen is None:
        return "the command that started it goes on with it"
    if mirror.verdict == LOST:
        return why_lost(seen)
    return printable(seen.report.state.reason) if seen.report.state else ""


def run_json(row: StatusRow) -> Json:
    mirror, seen = row.mirror, row.mirror.seen
    state = seen.report.state if seen else None
    return {
        "run": mirror.run_id,
        "category": mirror.request.job,
        "state": mirror.verdict,
        "remote": row.remote,
        "seen_at": seen.at if seen else None,
        "note": row.note,
        "reason": "" if mirror.verdict == UNKNOWN else reason_text(mirror),
        "exit_code": state.exit_code if state else None,
        "signal": state.signal if state else None,
        "queued_at": state.queued_at if state else None,
        "running_at": state.running_at if state else None,
        "ended_at": state.ended_at if state else None,
        "cost": cost_json(row.cost),
        "log": str(mirror.log),
    }


def cost_text(cost: Cost | None) -> str:
    if cost is None:
        return ""
    if cost.amount is None:
        return "unknown"
    if not cost.seconds:
        return ""
    return format_money(cost.amount, cost.currency) + (" so far" if cost.estimated else "")


def cost_json(cost: Cost | None) -> Json | None:
    if cost is None:
        return None
    return {
        "amount": None if cost.amount is None else f"{cost.amount:f}",
        "currency": cost.currency or None,
        "seconds": cost.seconds,
        "estimated": cost.estimated,
    }


def cost_table(by: str, rows: Iterable[CostRow]) -> Table:
    made = Table(by, ">runs", ">time", ">cost")
    for row in rows:
        made.add_row(
            row.key or f"(no {by})",
            str(row.runs),
            format_duration(row.seconds),
            format_total(row.total),
        )
    return made


def cost_row_json(row: CostRow) -> Json:
    return {
        "key": row.key,
        "runs": row.runs,
        "seconds": row.seconds,
        "cost": {currency: f"{amount:f}" for currency, amount in row.total.by_currency},
        "unknown_runs": row.total.unknown_runs,
        "estimated": row.total.estimated,
    }


def ready_table(standings: Iterable[Standing]) -> Table:
    made = Table("category", "ready", ">points", "~metric", "model", ">size", "graded with")
    for standing in standings:
        verdict = standing.verdict
        size = verdict.size_bytes if verdict else None
        made.add_row(
            standing.category,
            "yes" if standing.is_graded else "NO",
            points_text(verdict),
            metric_text(standing),
            model_text(standing),
            format_size(size) if size is not None else "",
            verdict.versions if verdict else "",
        )
    return made


def checks_table(checks: Iterable[Check]) -> Table:
    made = Table("check", "", "~found", "~fix")
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for check in checks:
        mark = check.mark.value
        made.add_row(check.name, Cell(mark, styles[mark]), check.found, check.fix)
    return made


def check_json(check: Check) -> Json:
    return {
        "check": check.name,
        "mark": check.mark.value,
        "found": check.found,
        "fix": check.fix,
    }


def heaps_table(heaps: Iterable[Heap], *, dropped: bool) -> Table:
    gone = "dropped" if dropped else "may go"
    made = Table("in the store", ">count", ">size", f">{gone}", f">{gone}, size")
    for heap in heaps:
        made.add_row(
            heap.kind,
            str(heap.count),
            format_size(heap.size_bytes),
            str(heap.droppable),
            format_size(heap.droppable_bytes),
        )
    return made


def heap_json(heap: Heap) -> Json:
    return record.encode(heap)


def files_table(files: Iterable[tuple[str, int]]) -> Table:
    made = Table(">size", "path")
    for path, size_bytes in files:
        made.add_row(format_size(size_bytes), path)
    return made


def remotes_table(remotes: Iterable[Remote]) -> Table:
    made = Table("remote", "reached at", ">per hour", "gpus", "~python")
    for remote in remotes:
        price = remote.price
        made.add_row(
            remote.name,
            f"{remote.user + '@' if remote.user else ''}{remote.host}"
            + (f":{remote.port}" if remote.port else ""),
            format_money(price.per_hour, price.currency) if price else "unknown",
            "auto" if remote.gpus is None else str(remote.gpus),
            remote.python,
        )
    return made


def remote_json(remote: Remote) -> Json:
    price = remote.price
    return {
        "name": remote.name,
        "host": remote.host,
        "user": remote.user,
        "port": remote.port,
        "key": remote.key,
        "gpus": remote.gpus,
        "price_per_hour": str(price.per_hour) if price else None,
        "currency": price.currency if price else None,
        "python": remote.python,
        "requirements": remote.env.requirements,
    }


def result_blocks(result: Result, ledger: Ledger) -> Iterator[Table | str]:
    """The end of a run, a pull or a grading for people: points, time, money."""
    if result.standings:
        yield points_table(result.standings, result.runs)
    yield from others(result)
    if result.runs:
        yield from stories(result, ledger)
        seconds = sum(run.cost.seconds for run in result.runs)
        spent = format_total(sum_costs(run.cost for run in result.runs))
        yield f"together: {spent} for {format_duration(seconds)} of training"


def result_json(result: Result) -> Json:
    """The same for programs."""
    from orchestrator.desk import StatusRow

    runs = {run.usage.run_id: run for run in result.runs}
    rows = []
    for mirror in result.mirrors:
        run = runs.get(mirror.run_id)
        rows.append(StatusRow(mirror, run.usage.remote if run else "", run.cost if run else None))
    return {
        "runs": [run_json(row) for row in rows],
        "made": {run_id: verdict_json(verdict) for run_id, verdict in result.made.items()},
        "verdicts": [verdict_json(verdict) for verdict in result.verdicts],
        "categories": [standing_json(standing) for standing in result.standings],
    }


def value_text(verdict: Verdict) -> str:
    """The metric and its value, or why there is none."""
    if verdict.outcome is Outcome.GRADED and verdict.value is not None:
        return f"{verdict.metric} {verdict.value:.4g}"
    return verdict.reason


def others(result: Result) -> list[str]:
    """What the models are worth that these runs made and that do not stand in a folder."""
    standing = {one.category: one.sha256 for one in result.standings}
    return [
        f"{run_id} made another model: {value_text(verdict)}, {points_text(verdict)}; "
        "the one in the folder stays"
        for run_id, verdict in result.made.items()
        if verdict.sha256 != standing.get(verdict.category)
    ]


def stories(result: Result, ledger: Ledger) -> list[str]:
    """What these runs brought each category, and for how much."""
    lines = []
    for standing in result.standings:
        mine = [run for run in result.runs if run.category == standing.category]
        if mine:
            facts = ledger.verdicts(mine[0].workspace, standing.category)
            grades = [Grade(fact.run_id, fact.points, fact.graded_at) for fact in facts]
            lines.append(story(standing.category, grades, mine, datetime.now(UTC)))
    return lines
