"""Studies of sweeps that took no time: each trial is written down as its end would have been."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import optuna
from optuna.trial import TrialState, create_trial

from orchestrator.sweeps.space import Choices, Reals, Value, Wholes
from orchestrator.sweeps.study import opened_study
from orchestrator.sweeps.terms import Terms
from orchestrator.sweeps.trial import Fate

Params = Mapping[str, Value]
STATES = {
    Fate.COMPLETE: TrialState.COMPLETE,
    Fate.PRUNED: TrialState.PRUNED,
    Fate.FAILED: TrialState.FAIL,
}


def write_study(
    file: Path,
    terms: Terms,
    points: Iterable[Params],
    worth: Callable[[Params], float],
    *,
    fate: Callable[[int], Fate] = lambda _: Fate.COMPLETE,
    run: Callable[[int], str] = "a-{}".format,
) -> None:
    """Args:
    worth: of a complete trial at its end, of a pruned one after its first epoch.
    fate, run: of the trial of a number.
    """
    with opened_study(file, terms) as study:
        study.keep("0" * 64)
    ranges: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, each in terms.space.varied.items():
        match each:
            case Choices(values):
                ranges[name] = optuna.distributions.CategoricalDistribution(values)
            case Wholes(low, high, log):
                ranges[name] = optuna.distributions.IntDistribution(low, high, log)
            case Reals(lowest, highest, log):
                ranges[name] = optuna.distributions.FloatDistribution(lowest, highest, log)
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    made = optuna.load_study(study_name=file.stem, storage=storage)
    made.add_trials(
        create_trial(
            state=STATES[fate(number)],
            value=worth(point) if fate(number) is Fate.COMPLETE else None,
            params=dict(point),
            distributions=ranges,
            user_attrs={"run": run(number)},
            intermediate_values={1: worth(point)} if fate(number) is Fate.PRUNED else {},
        )
        for number, point in enumerate(points)
    )
    storage.remove_session()
    storage.engine.dispose()
