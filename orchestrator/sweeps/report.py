"""How a sweep went: a table for people, plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.costs.cost import PricedRun, format_duration, format_total, sum_costs
from orchestrator.errors import TrainshedError
from orchestrator.screen.costs import cost_json, cost_text
from orchestrator.screen.table import Cell, Table
from orchestrator.sweeps.past import Past, importance_text
from orchestrator.sweeps.trial import Fate, Trial, short

Json = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """Attributes:
    study: the file of Optuna's form.
    priced: the runs' costs, by their ids.
    stopped: why there are fewer trials than asked for.
    """

    past: Past
    study: str
    priced: Mapping[str, PricedRun]
    stopped: TrainshedError | None


def blocks(report: Report) -> Iterator[Table | str]:
    """For people: the trials, the best first, and what they cost together. Nothing where there are
    none; why there is no best one is left to the error that says so.
    """
    if not report.past.trials:
        return
    yield _table(report)
    counts = {fate: sum(one.fate is fate for one in report.past.trials) for fate in Fate}
    told = ", ".join(f"{count} {fate}" for fate, count in counts.items() if count)
    total = format_total(sum_costs(run.cost for run in report.priced.values()))
    yield f"{len(report.past.trials)} trials: {told}; they cost {total}"
    if (best := report.past.best) is not None:
        tried = " ".join(f"-p {name}={text}" for name, text in best.params.items())
        yield f"best: trial {best.number}, {best.run}, {tried}"
        if counts[Fate.COMPLETE] > 1:
            yield "another's model: train pull RUN; the runs are in --json and train history"
    if told := importance_text(report.past):
        yield f"what mattered for {report.past.metric.name}: {told}"
    if report.stopped is not None and best is not None:
        yield f"no more were begun: {report.stopped}"
    yield ""


def _table(report: Report) -> Table:
    names = list(dict.fromkeys(name for trial in report.past.trials for name in trial.params))
    columns = [f">{name}" for name in (*names, report.past.metric.name)]
    made = Table(">trial", *columns, "state", ">time", ">cost")
    best = report.past.best
    for trial in report.past.ranked():
        run = report.priced.get(trial.run)
        cost = run.cost if run else None
        ended = trial.fate is not Fate.OPEN
        made.add_row(
            str(trial.number),
            *(short(trial.params.get(name, "")) for name in names),
            "" if trial.value is None else f"{trial.value:.4g}",
            Cell("best", "green") if trial == best else trial.fate.value,
            format_duration(cost.seconds) if cost and cost.seconds else "",
            cost_text(cost, ended=ended),
        )
    return made


def sweep_json(report: Report, result: Json | None) -> Json:
    best = report.past.best
    return {
        "sweep": report.past.name,
        "study": report.study,
        "metric": report.past.metric.name,
        "higher_is_better": report.past.metric.higher_is_better,
        "trials": [_trial_json(trial, report) for trial in report.past.trials],
        "best": None if best is None else best.number,
        "importances": dict(report.past.importances),
        "stopped": "" if report.stopped is None else str(report.stopped),
        "result": result,
    }


def _trial_json(trial: Trial, report: Report) -> Json:
    run = report.priced.get(trial.run)
    return {
        "trial": trial.number,
        "state": trial.fate.value,
        "value": trial.value,
        "params": dict(trial.params),
        "run": trial.run,
        "cost": cost_json(run.cost if run else None),
    }
