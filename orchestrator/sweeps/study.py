"""The one door to Optuna: what was tried, what came of it, and what to try next.

A study is a SQLite file of Optuna's own form, so that its dashboard reads it. Of a trial it keeps
besides, as user attributes, `run` (the run's id, before anything of it is made) and `given_up`.
What it suggests depends only on what it was told: after a kill it goes on as if nothing had been.
"""

from __future__ import annotations

import shlex
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import UsageError
from orchestrator.records.curves import Point
from orchestrator.sweeps.past import Past
from orchestrator.sweeps.space import Choices, Reals, Value, Wholes
from orchestrator.sweeps.terms import Terms
from orchestrator.sweeps.trial import Fate, Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)

# Noise of the first epochs ends nobody.
_WARMUP_STEPS = 3

# At least so many complete trials are taken for the good ones, as Optuna's documentation advises.
# Of 30 invented sweeps 22 then named the parameter that mattered after ten random trials, and 29
# after twenty.
_GOOD = 5
_LEAST_TO_COMPARE = 2 * _GOOD

_FATES = {
    TrialState.RUNNING: Fate.OPEN,
    TrialState.COMPLETE: Fate.COMPLETE,
    TrialState.PRUNED: Fate.PRUNED,
    TrialState.FAIL: Fate.FAILED,
}
_STATES = {fate: state for state, fate in _FATES.items()}


class Kept(NamedTuple):
    """Attributes:
    terms: in words, as the sweep was begun with them.
    code: the digest of the tree that its trials execute.
    """

    terms: Mapping[str, str]
    code: str


class Study:
    """Args:
    file: is made, if it is not there.
    """

    def __init__(self, file: Path, terms: Terms) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.name = file.stem
        self._terms = terms
        self._storage = _storage(file)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            direction="maximize" if terms.metric.higher_is_better else "minimize",
            pruner=_pruner(terms.pruner),
            load_if_exists=True,
        )

    @property
    def kept(self) -> Kept:
        """Empty before `keep`, or where that was cut off."""
        attributes = self._study.user_attrs
        return Kept(attributes.get("terms", {}), attributes.get("code", ""))

    def keep(self, code: str) -> None:
        """It is begun, with this code."""
        self._study.set_user_attr("terms", self._terms.words())
        self._study.set_user_attr("code", code)

    def close(self) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def trials(self) -> tuple[Trial, ...]:
        """Those that were asked for, by number."""
        return _trials(self._study)

    def past(self) -> Past:
        return _past(self._study, self._terms)

    def ask(self) -> None:
        """One more trial is open; what it tries is drawn when it is bound."""
        known = self._study.get_trials(deepcopy=False)
        if self._terms.sampler == "grid" and all(t.state is not TrialState.WAITING for t in known):
            point = next(islice(self._terms.space.grid(), len(known), None))
            self._study.enqueue_trial(point)
        self._study.ask()

    def bind(self, trial: Trial, run_id: str) -> Trial:
        """Draw what it tries, and call its run so; before anything of the run is made."""
        # A generator that began anew in each command would repeat itself.
        seed = zlib.crc32(f"{self.name}/{trial.number}".encode())
        samplers = optuna.samplers
        is_tpe = self._terms.sampler == "tpe"
        self._study.sampler = (samplers.TPESampler if is_tpe else samplers.RandomSampler)(seed=seed)
        found = self._open(trial)
        # What was drawn before a kill stays.
        for name, each in self._terms.space.varied.items():
            match each:
                case Choices(values):
                    found.suggest_categorical(name, values)
                case Wholes(low, high, log):
                    found.suggest_int(name, low, high, log=log)
                case Reals(lowest, highest, log):
                    found.suggest_float(name, lowest, highest, log=log)
        found.set_user_attr("run", run_id)
        return self.trials()[trial.number]

    def report(self, trial: Trial, values: Sequence[Point]) -> bool:
        """Tell what is new of an open trial; whether it is not worth going on with."""
        found = self._open(trial)
        new = [point for point in values if point.step > trial.told]
        for point in new:
            found.report(point.value, point.step)
        return bool(new) and found.should_prune()

    def give_up(self, trial: Trial) -> None:
        """Its run is about to be asked to end."""
        self._open(trial).set_user_attr("given_up", True)

    def end(self, trial: Trial, fate: Fate, value: float | None) -> None:
        """Args:
        value: of a complete one.
        """
        self._study.tell(trial.number, value, state=_STATES[fate], skip_if_finished=True)

    def _open(self, trial: Trial) -> optuna.Trial:
        known = self._study.get_trials(deepcopy=False)
        return optuna.Trial(self._study, known[trial.number]._trial_id)


@contextmanager
def opened_study(file: Path, terms: Terms) -> Iterator[Study]:
    """Raises:
    UsageError: the file cannot be read or written, by then or in the block.
    """
    with _translated(file):
        study = Study(file, terms)
        try:
            yield study
        finally:
            study.close()


def read_past(file: Path) -> Past:
    """For who does not go on with the sweep; nothing is written.

    Raises:
        UsageError: there is no study of ours in it, or it cannot be read.
    """
    with _translated(file):
        storage = _storage(file, skip_table_creation=True)
        try:
            study = optuna.load_study(study_name=file.stem, storage=storage)
            return _past(study, Terms.parse(study.user_attrs["terms"]))
        except (KeyError, ValueError) as error:  # not of ours, or damaged
            raise UsageError(f"{file} is not the study of a sweep") from error
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _storage(file: Path, *, skip_table_creation: bool = False) -> optuna.storages.RDBStorage:
    url = f"sqlite:///{file}"
    try:
        return optuna.storages.RDBStorage(url, skip_table_creation=skip_table_creation)
    except RuntimeError as error:  # what Optuna raises for tables of another version's form
        raise UsageError(
            f"{file} is of another version of Optuna",
            cause=str(error).partition(". ")[0],
            fix=f"with the newer of the two: optuna storage upgrade --storage {shlex.quote(url)}",
        ) from error


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        raise UsageError(
            f"{file} cannot be read or written",
            cause=str(getattr(cause, "orig", cause)),
            fix="make room on that disk if it is full; else move the file away, and a new sweep "
            "begins: runs and models are not in it",
        ) from error


def _past(study: optuna.Study, terms: Terms) -> Past:
    return Past(
        name=study.study_name,
        category=terms.category,
        metric=terms.metric,
        varied=terms.space.varied,
        trials=_trials(study),
        importances=_importances(study) if len(terms.space.varied) > 1 else {},
    )


def _trials(study: optuna.Study) -> tuple[Trial, ...]:
    found = study.get_trials(deepcopy=False)
    return tuple(_as_trial(one) for one in found if one.state is not TrialState.WAITING)


def _importances(study: optuna.Study) -> dict[str, float]:
    """By PED-ANOVA: how far the good trials lie elsewhere than all of them.

    Source: https://arxiv.org/abs/2304.10255. Optuna's other ways need scikit-learn.
    """
    count = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if count < _LEAST_TO_COMPARE:
        return {}
    # Not at the module's top: where scikit-learn is installed, this imports it, in two seconds.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, _GOOD / count))
    with warnings.catch_warnings():
        # It warns where the good ones are all: their values are the same, so nothing mattered.
        warnings.simplefilter("error")
        try:
            return get_param_importances(study, evaluator=evaluator)
        except UserWarning:
            return {}


def _as_trial(one: FrozenTrial) -> Trial:
    last = max(one.intermediate_values, default=0)
    value = one.value if one.state is TrialState.COMPLETE else one.intermediate_values.get(last)
    return Trial(
        one.number,
        {name: _text(value) for name, value in one.params.items()},
        _FATES[one.state],
        one.user_attrs.get("run", ""),
        last,
        value,
        one.user_attrs.get("given_up", False),
    )


def _text(value: Value) -> str:
    return value if isinstance(value, str) else repr(value)


def _pruner(name: str) -> optuna.pruners.BasePruner:
    match name:
        case "median":
            return optuna.pruners.MedianPruner(n_warmup_steps=_WARMUP_STEPS)
        case "hyperband":
            return optuna.pruners.HyperbandPruner()
        case _:
            return optuna.pruners.NopPruner()
