"""What the commands report, as tables for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cost import (
    Cost,
    CostRow,
    Grade,
    PricedRun,
    format_duration,
    format_money,
    format_total,
    is_small,
    story,
    sum_costs,
    sum_rows,
)
from orchestrator.mirror import LOST, Mirror, age, restarted_text, why_lost
from orchestrator.printable import printable
from orchestrator.size import format_size
from orchestrator.table import Cell, Table
from orchestrator.verdict import Outcome, Verdict
from remote import record

if TYPE_CHECKING:
    from decimal import Decimal

    from orchestrator.bill import Bill
    from orchestrator.doctor import Check
    from orchestrator.ledger import Ledger
    from orchestrator.machinecost import MachineCost
    from orchestrator.machines import Change
    from orchestrator.plan import Overrides
    from orchestrator.settling import Result
    from orchestrator.spec import Job, Remote
    from orchestrator.standing import Standing
    from orchestrator.status import StatusRow
    from remote.protocol import Heap

Json = dict[str, Any]


def points_table(standings: Iterable[Standing], runs: Iterable[PricedRun]) -> Table:
    """Each category's standing model, and what these runs took, if there are any."""
    runs = tuple(runs)
    names = ["category", ">points", "~metric", "next point needs", ">time", ">cost", "model"]
    made = Table(*(name for name in names if runs or name not in (">time", ">cost")))
    for standing in standings:
        mine = [run for run in runs if run.category == standing.category]
        seconds = sum(run.cost.seconds for run in mine)
        taken = (
            format_duration(seconds) if mine else "",
            format_total(sum_costs(run.cost for run in mine)) if mine else "",
        )
        made.add_row(
            standing.category,
            points_text(standing.verdict),
            metric_text(standing),
            next_text(standing.verdict),
            *(taken if runs else ()),
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
    if verdict is None or verdict.outcome is not Outcome.GRADED or not verdict.thresholds:
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
    names = ("run", "state", "remote", "seen", "ended", ">time", ">cost", ">points", "~note")
    cells = [
        (
            row.mirror.run_id,
            state_text(row.mirror),
            row.remote,
            f"{format_duration(age(seen))} ago" if (seen := row.mirror.seen) else "never",
            _ago(row.ended_at),
            format_duration(row.cost.seconds) if row.cost and row.cost.seconds else "",
            cost_text(row.cost),
            "" if row.points is None else f"{row.points} of 5",
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


def _ago(at: datetime | None) -> str:
    if at is None:
        return ""
    return f"{format_duration(max(0.0, (datetime.now(UTC) - at).total_seconds()))} ago"


def state_text(mirror: Mirror) -> str:
    """What the laptop thinks of it, in a word or three."""
    return "not sent" if mirror.is_known_unsent else mirror.verdict


def reason_text(mirror: Mirror) -> str:
    """Why a run is as it is, where there is more to say than its state."""
    seen = mirror.seen
    if mirror.is_known_unsent:
        return "refused, or never reached the VM; to forget it: train cancel RUN"
    if seen is None:
        return "the command that started it goes on with it"
    if mirror.verdict == LOST:
        return why_lost(seen)
    state = seen.report.state
    reasons = (restarted_text(state), printable(state.reason) if state else "")
    return "; ".join(reason for reason in reasons if reason)


def run_json(row: StatusRow) -> Json:
    mirror, seen = row.mirror, row.mirror.seen
    state = seen.report.state if seen else None
    return {
        "run": mirror.run_id,
        "category": mirror.request.job,
        "state": state_text(mirror),
        "remote": row.remote,
        "seen_at": seen.at if seen else None,
        "note": row.note,
        "reason": reason_text(mirror),
        "restarts": state.restarts if state else 0,
        "exit_code": state.exit_code if state else None,
        "signal": state.signal if state else None,
        # Before the VM's first word on it, the time at which it took it.
        "queued_at": state.queued_at if state else seen.at if seen else None,
        "running_at": state.running_at if state else None,
        "ended_at": state.ended_at if state else None,
        "points": row.points,
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


def cost_table(bill: Bill) -> Table:
    """The rows, and below several of them their total, with a line for each currency.

    The total is the exact sum, rounded; it is not the sum of what the rows show, from which it may
    differ in the last digit. All amounts have as many decimals as the smallest needs. Where the
    machines were counted, what they cost stands beside what of it is the runs'.
    """
    rows, by = bill.rows, bill.by
    small = any(is_small(amount) for row in rows for _, amount in row.total.by_currency)
    machines = _machine_columns(bill)
    made = Table(by, ">runs", ">time", ">cost", *machines)
    for row in rows:
        name = row.key or f"(no {by})"
        cost = format_total(row.total, small=small)
        cells = [texts.get(row.key, "") for texts in machines.values()]
        made.add_row(name, str(row.runs), format_duration(row.seconds), cost, *cells)
    if len(rows) > 1:
        nothing = [""] * len(machines)
        (total,) = sum_rows(replace(row, key="total") for row in rows)
        known = total.total.by_currency
        first = replace(total.total, by_currency=known[:1])
        count, time = str(total.runs), format_duration(total.seconds)
        made.add_row("total", count, time, format_total(first, small=small), *nothing)
        for currency, amount in known[1:]:
            made.add_row("", "", "", format_money(amount, currency, small=small), *nothing)
    return made


def _machine_columns(bill: Bill) -> dict[str, dict[str, str]]:
    """By heading, and then by row; without what no machine has."""
    columns: dict[str, dict[str, str]] = {}
    for key, cost in bill.machines.items():
        paid = cost.paid
        amount = "unknown" if paid.amount is None else format_money(paid.amount, cost.currency)
        texts = {
            ">paid": format_duration(paid.time.total_seconds()),
            ">idle": format_duration(paid.idle.total_seconds()),
            ">machine": f"{amount} (estimated)" if paid.is_estimated else amount,
            ">while off": format_money(cost.off, cost.currency) if cost.off else "",
            ">points": "" if cost.gained is None else f"+{cost.gained}",
            ">a point": format_money(cost.per_point, cost.currency) if cost.per_point else "",
        }
        for heading, text in texts.items():
            columns.setdefault(heading, {})[key] = text
    return {heading: texts for heading, texts in columns.items() if any(texts.values())}


def cost_row_json(row: CostRow, machine: MachineCost | None = None) -> Json:
    return {
        "key": row.key,
        "runs": row.runs,
        "seconds": row.seconds,
        "cost": {currency: f"{amount:f}" for currency, amount in row.total.by_currency},
        "unknown_runs": row.total.unknown_runs,
        "estimated": row.total.estimated,
        "machine": None if machine is None else _machine_json(machine),
    }


def _machine_json(cost: MachineCost) -> Json:
    def number(amount: Decimal | None) -> str | None:
        return None if amount is None else f"{amount:f}"

    paid = cost.paid
    return {
        "paid_s": paid.time.total_seconds(),
        "used_s": paid.used.total_seconds(),
        "setup_s": paid.setup.total_seconds(),
        "idle_s": paid.idle.total_seconds(),
        "cost": number(paid.amount),
        "currency": cost.currency,
        "estimated": paid.is_estimated,
        "cost_while_off": number(cost.off),
        "points_gained": cost.gained,
        "cost_per_point": number(cost.per_point),
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


def dry_run_blocks(
    files: Sequence[tuple[str, int]], jobs: Iterable[Job], chosen: Overrides
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


def jobs_table(jobs: Iterable[Job], chosen: Overrides) -> Table:
    made = Table("job", "~command", ">gpus", ">time limit", "~outputs", "~params")
    for job in jobs:
        limit_s = chosen.time_limit_of(job)
        made.add_row(
            job.name,
            job.command,
            str(chosen.gpus_of(job)),
            "none" if limit_s is None else format_duration(limit_s),
            ", ".join(job.outputs),
            ", ".join(f"{name}={value}" for name, value in (chosen.params or {}).items()),
        )
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


def change_text(change: Change) -> str:
    """What is new of a remote, and its host key where it was greeted."""
    old, new = remote_json(change.old), remote_json(change.new)
    told = "; ".join(
        f"{key.replace('_', ' ')} {_said(key, old[key])} -> {_said(key, new[key])}"
        for key in new
        if new[key] != old[key]
    )
    if change.host_key is not None:
        kind, fingerprint = change.host_key
        told = f"{told or 'as it was'}; its {kind} host key is {fingerprint}"
    return f"{change.new.name}: {told or 'as it was'}"


def _said(key: str, value: object) -> str:
    absent = {"gpus": "auto", "price_per_hour": "unknown"}.get(key, "nothing")
    return absent if value is None else str(value)


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
    """The end of a run, a pull or a grading for people: points, time, money.

    A category without a run of this command shows what the run took that made its model.
    """
    runs = [run for run in result.runs if run.usage.run_id not in result.old]
    if result.standings:
        from orchestrator.money import priced_runs

        ran = {run.category for run in runs}
        makers = {one.run_id for one in result.standings if one.run_id and one.category not in ran}
        yield points_table(result.standings, (*runs, *priced_runs(ledger, makers)))
    yield from others(result)
    yield from left_out(result.standings, runs, ledger)
    if runs:
        yield from stories(result.standings, runs, ledger)
        seconds = sum(run.cost.seconds for run in runs)
        spent = format_total(sum_costs(run.cost for run in runs))
        yield f"together: {spent} for {format_duration(seconds)} of training"


def result_json(result: Result) -> Json:
    """The same for programs."""
    from orchestrator.status import StatusRow

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
        if run_id not in result.old and verdict.sha256 != standing.get(verdict.category)
    ]


def left_out(
    standings: Iterable[Standing], runs: Sequence[PricedRun], ledger: Ledger
) -> Iterator[str]:
    """What these runs made that has no verdict, and so took no graded model's place."""
    for standing in standings:
        for run in runs if standing.is_graded and not standing.can_grade else ():
            for fact in ledger.artifacts(run.usage.run_id):
                is_model = Path(run.workspace, fact.path) == standing.path
                graded = {v.sha256 for v in ledger.verdicts(run.workspace, standing.category)}
                if is_model and fact.sha256 not in graded | {standing.sha256}:
                    yield (
                        f"{run.usage.run_id} made another model, not graded: TensorFlow is not "
                        "installed here; the one in the folder stays. To have this one there: "
                        f"train pull {standing.category} --latest"
                    )


def stories(
    standings: Iterable[Standing], runs: Sequence[PricedRun], ledger: Ledger
) -> Iterator[str]:
    """What these runs brought each category, and for how much."""
    for standing in standings:
        mine = [run for run in runs if run.category == standing.category]
        if mine:
            facts = ledger.verdicts(mine[0].workspace, standing.category)
            grades = [Grade(fact.run_id, fact.points, fact.graded_at) for fact in facts]
            yield story(standing.category, grades, mine, datetime.now(UTC))
