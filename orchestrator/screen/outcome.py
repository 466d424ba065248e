"""What a run, a pull or a grading came to, for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.costs.cost import (
    Grade,
    PricedRun,
    format_duration,
    format_total,
    story,
    sum_costs,
)
from orchestrator.grades.verdict import Outcome, Verdict
from orchestrator.screen.grades import (
    points_table,
    points_text,
    standing_json,
    value_text,
    verdict_json,
)
from orchestrator.screen.runs import run_json
from orchestrator.screen.table import Table

if TYPE_CHECKING:
    from orchestrator.grades.settling import Result
    from orchestrator.grades.standing import Standing
    from orchestrator.records.ledger import Ledger

Json = dict[str, Any]


def result_blocks(result: Result, ledger: Ledger) -> Iterator[Table | str]:
    """The end of a run, a pull or a grading for people: points, time, money.

    A category without a run of this command shows what the run took that made its model.
    """
    runs = [run for run in result.runs if run.usage.run_id not in result.old]
    if result.standings:
        from orchestrator.costs.money import priced_runs

        ran = {run.category for run in runs}
        makers = {one.run_id for one in result.standings if one.run_id and one.category not in ran}
        yield points_table(result.standings, (*runs, *priced_runs(ledger, makers)))
    yield from others(result)
    yield from left_out(result.standings, runs, ledger)
    if runs:
        yield from stories(result.standings, runs, ledger)
        seconds = sum(run.cost.seconds for run in runs)
        spent = format_total(sum_costs(run.cost for run in runs))
        # What came from elsewhere may not say how long it took.
        if seconds:
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


def _worth(verdict: Verdict) -> str:
    is_hidden = verdict.outcome is Outcome.GRADED and verdict.value is None
    return points_text(verdict) if is_hidden else f"{value_text(verdict)}, {points_text(verdict)}"


def others(result: Result) -> list[str]:
    """What the models are worth that these runs made and that do not stand in a folder."""
    standing = {one.category: one.sha256 for one in result.standings}
    return [
        f"{run_id} made another model: {_worth(verdict)}; the one in the folder stays"
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
