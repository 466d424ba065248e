"""Models and their grades, as tables for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.costs.cost import PricedRun, format_duration, format_total, sum_costs
from orchestrator.grades.verdict import Outcome, Verdict, of_five
from orchestrator.loads import loading_text
from orchestrator.screen.printable import printable
from orchestrator.screen.table import Table
from orchestrator.size import format_size
from remote import record

if TYPE_CHECKING:
    from orchestrator.grades.standing import Standing

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


def loading_lines(standings: Iterable[Standing]) -> Iterator[str]:
    """What the VMs found that made these models, where they were asked."""
    for standing in standings:
        if standing.loading is not None:
            yield f"{standing.run_id}: {loading_text(standing.loading)}"


def points_text(verdict: Verdict | None) -> str:
    match verdict:
        case None:
            return "-"
        case Verdict(outcome=Outcome.GRADED):
            return of_five(verdict.points or 0)
        case _:
            return verdict.outcome.value


def metric_text(standing: Standing) -> str:
    """The metric and its value, or why there is none."""
    verdict = standing.verdict
    if verdict is None or not standing.is_graded or verdict.value is None:
        return printable(standing.gap)
    return f"{verdict.metric} {verdict.value:.4g}"


def value_text(verdict: Verdict) -> str:
    """The metric and its value, or why there is none."""
    if verdict.outcome is Outcome.GRADED and verdict.value is not None:
        return f"{verdict.metric} {verdict.value:.4g}"
    return verdict.reason


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
        "loading": record.encode(standing.loading) if standing.loading else None,
        "verdict": verdict_json(standing.verdict) if standing.verdict else None,
    }


def verdict_json(verdict: Verdict) -> Json:
    return {
        "category": verdict.category,
        "outcome": verdict.outcome.value,
        "points": verdict.points,
        "metric": verdict.metric,
        "value": verdict.value,
        "thresholds": list(verdict.thresholds),
        "next_threshold": verdict.next_threshold,
        "higher_is_better": verdict.higher_is_better,
        "reason": verdict.reason,
        "sha256": verdict.sha256,
        "size_bytes": verdict.size_bytes,
        "graded_at": verdict.graded_at.isoformat(),
        "versions": verdict.versions,
    }
