"""The study behind a sweep: Optuna's own file, gone on with after any interruption."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path

import optuna
import pytest

from orchestrator.errors import UsageError
from orchestrator.records.curves import Epoch, Point
from orchestrator.sweeps.metric import Metric
from orchestrator.sweeps.past import Past
from orchestrator.sweeps.space import Space
from orchestrator.sweeps.study import opened_study, read_past
from orchestrator.sweeps.terms import Terms
from orchestrator.sweeps.trial import (
    Fate,
    Trial,
    best_of,
    fate_of,
    is_hopeless,
    is_void,
    last_value,
    ranked,
)
from tests.studies import Params, write_study

SPACE = Space.parse({"lr": "1e-4..1e-1:log", "units": "32,64,128", "layers": "1..4"})
TERMS = Terms("a", SPACE, Metric("val_accuracy", higher_is_better=True), "tpe", "median")


def go_through(file: Path, count: int, is_reopened: Callable[[int], bool]) -> list[dict[str, str]]:
    """What a sweep of so many trials tries, one after the other."""
    done = 0
    while done < count:
        with opened_study(file, TERMS) as study:
            while done < count:
                study.ask()
                trial = study.bind(study.trials()[-1], f"a-{done}")
                value = float(trial.params["layers"]) - abs(float(trial.params["lr"]) - 0.01)
                study.end(trial, Fate.COMPLETE, value)
                done += 1
                if is_reopened(done):
                    break
    with opened_study(file, TERMS) as study:
        return [dict(trial.params) for trial in study.trials()]


def test_an_interrupted_study_suggests_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole = go_through(tmp_path / "1" / "a.sqlite3", 11, lambda done: False)
    cut = go_through(tmp_path / "2" / "a.sqlite3", 11, lambda done: done % 5 == 0)

    assert cut == whole
    assert len({str(params) for params in whole}) == 11


def test_a_trial_that_was_asked_for_and_not_drawn_before_a_kill_is_drawn_later(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.sqlite3"
    with opened_study(file, TERMS) as study:
        study.ask()
    with opened_study(file, TERMS) as study:
        (left,) = study.trials()
        bound = study.bind(left, "a-1")

    assert (left.fate, left.run, left.params) == (Fate.OPEN, "", {})
    assert (bound.run, set(bound.params)) == ("a-1", set(SPACE.varied))


def test_binding_again_draws_nothing_anew(tmp_path: Path) -> None:
    with opened_study(tmp_path / "a.sqlite3", TERMS) as study:
        study.ask()
        first = study.bind(study.trials()[0], "a-1")
        again = study.bind(first, "a-1")

    assert again == first


def test_a_grid_is_gone_through_in_order_over_interruptions(tmp_path: Path) -> None:
    space = Space.parse({"units": "32,64", "layers": "1..2"})
    terms = replace(TERMS, space=space, sampler="grid")
    for number in range(space.grid_size()):
        with opened_study(tmp_path / "a.sqlite3", terms) as study:
            study.ask()
            study.bind(study.trials()[number], f"a-{number}")
    with opened_study(tmp_path / "a.sqlite3", terms) as study:
        tried = [tuple(trial.params.values()) for trial in study.trials()]

    assert tried == [("32", "1"), ("32", "2"), ("64", "1"), ("64", "2")]


def test_a_curve_below_the_others_is_not_worth_going_on_with(tmp_path: Path) -> None:
    def curve(height: float) -> list[Point]:
        return [Point(step, height * step) for step in range(1, 6)]

    with opened_study(tmp_path / "a.sqlite3", TERMS) as study:
        for number in range(5):
            study.ask()
            trial = study.bind(study.trials()[number], f"a-{number}")
            assert not study.report(trial, curve(1.0))
            study.end(trial, Fate.COMPLETE, 5.0)
        study.ask()
        poor = study.bind(study.trials()[5], "a-5")
        too_early = study.report(poor, curve(0.1)[:2])
        poor = study.trials()[5]
        late = study.report(poor, curve(0.1))
        study.give_up(poor)
        study.end(study.trials()[5], Fate.PRUNED, None)
        pruned = study.trials()[5]

    assert (too_early, late) == (False, True)
    assert (pruned.fate, pruned.given_up, pruned.told, pruned.value) == (Fate.PRUNED, True, 5, 0.5)


def test_the_study_is_read_by_optuna_itself(tmp_path: Path) -> None:
    file = tmp_path / "wide.sqlite3"
    go_through(file, 3, lambda done: False)
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    study = optuna.load_study(study_name="wide", storage=storage)

    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert [trial.user_attrs["run"] for trial in study.trials] == ["a-0", "a-1", "a-2"]
    assert study.best_value == max(trial.value for trial in study.trials if trial.value)
    storage.engine.dispose()


def test_a_file_that_is_no_study_is_told_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite3"
    file.write_bytes(b"not a database, however one looks at it" * 50)

    with (
        pytest.raises(UsageError, match="cannot be read or written") as told,
        opened_study(file, TERMS),
    ):
        pass
    assert "not a database" in told.value.cause


def test_a_study_of_another_optunas_form_is_told_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite3"
    write_study(file, TERMS, [{"lr": 0.01, "units": "32", "layers": 1}], by("lr"))
    with closing(sqlite3.connect(file)) as tables, tables:
        tables.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")

    with pytest.raises(UsageError, match="of another version of Optuna") as told:
        read_past(file)
    assert "optuna storage upgrade --storage sqlite:///" in told.value.fix
    with pytest.raises(UsageError, match="of another version"), opened_study(file, TERMS):
        pass


def trial(number: int, fate: Fate, value: float | None = None) -> Trial:
    return Trial(number, {}, fate, value=value)


def test_three_that_fail_and_none_that_does_not_leave_no_hope() -> None:
    failed = [trial(number, Fate.FAILED) for number in range(3)]

    assert is_hopeless([*failed, trial(3, Fate.OPEN)])
    assert not is_hopeless(failed[:2])
    assert not is_hopeless([*failed, trial(3, Fate.PRUNED)])
    assert is_void(failed)
    assert not is_void([*failed, trial(3, Fate.OPEN)])


def test_the_best_is_the_first_of_the_best_that_came_to_its_end() -> None:
    trials = [
        trial(0, Fate.PRUNED, 9.0),
        trial(1, Fate.COMPLETE, 0.5),
        trial(2, Fate.COMPLETE, 0.7),
        trial(3, Fate.COMPLETE, 0.7),
        trial(4, Fate.OPEN),
    ]

    best, lowest = (best_of(trials, higher_is_better=way) for way in (True, False))
    assert (best, lowest) == (trials[2], trials[1])
    order = [one.number for one in ranked(trials, higher_is_better=True)]
    assert order == [2, 3, 1, 0, 4]
    assert best_of(trials[:1], higher_is_better=True) is None


@pytest.mark.parametrize(
    ("verdict", "value", "given_up", "fate"),
    [
        ("succeeded", 0.5, False, Fate.COMPLETE),
        ("succeeded", 0.5, True, Fate.COMPLETE),
        ("succeeded", None, False, Fate.FAILED),
        ("cancelled", 0.5, True, Fate.PRUNED),
        ("cancelled", 0.5, False, Fate.FAILED),
        ("timed-out", 0.5, False, Fate.FAILED),
        ("lost", None, False, Fate.FAILED),
    ],
)
def test_what_an_ended_run_means(
    verdict: str, value: float | None, given_up: bool, fate: Fate
) -> None:
    assert fate_of(verdict, value, given_up=given_up) is fate


def test_a_training_that_ends_in_no_number_has_no_value() -> None:
    epochs = [Epoch(n, {"loss": value}) for n, value in enumerate((0.5, None))]

    assert last_value(epochs, "loss") is None
    assert last_value(epochs[:1], "loss") == 0.5
    assert last_value(epochs, "val_loss") is None


def sweep_of(file: Path, points: list[Params], worth: Callable[[Params], float]) -> Past:
    """What a sweep has found out, as its file tells it."""
    write_study(file, TERMS, points, worth)
    with opened_study(file, TERMS) as study:
        past = study.past()
    assert read_past(file) == past
    return past


def by(name: str) -> Callable[[Params], float]:
    return lambda point: float(point[name])


# Each choice of `units` with each number of layers, and whatever `lr`, twice.
CHOSEN = enumerate(product(("32", "64", "128"), (1, 2, 3, 4)))
POINTS: list[Params] = [
    {"lr": 10 ** -(1 + number * 7 % 24 / 8), "units": units, "layers": layers}
    for number, (units, layers) in CHOSEN
]
POINTS += POINTS


@pytest.mark.parametrize("name", ["units", "layers", "lr"])
def test_the_parameter_that_trials_are_good_by_is_the_important_one(
    tmp_path: Path, name: str
) -> None:
    past = sweep_of(tmp_path / "a.sqlite3", POINTS, by(name))

    assert next(iter(past.importances)) == name
    assert sum(past.importances.values()) == pytest.approx(1)
    assert list(past.importances.values()) == sorted(past.importances.values(), reverse=True)


def test_where_nothing_can_be_told_no_importances_are(tmp_path: Path) -> None:
    few = sweep_of(tmp_path / "few.sqlite3", POINTS[:9], by("layers"))
    alike = sweep_of(tmp_path / "alike.sqlite3", POINTS[:12], lambda _: 1.0)
    one = replace(TERMS, space=Space.parse({"layers": "1..4"}))
    layers: list[Params] = [{"layers": point["layers"]} for point in POINTS[:12]]
    write_study(tmp_path / "one.sqlite3", one, layers, by("layers"))

    assert few.importances == alike.importances == {}
    assert read_past(tmp_path / "one.sqlite3").importances == {}


def test_a_study_tells_its_past_to_who_does_not_go_on_with_it(tmp_path: Path) -> None:
    space = Space.parse({"lr": "1e-4..1e-1:log", "epochs": "20", "n": "1,2"})
    terms = replace(TERMS, space=space)
    file = tmp_path / "a b.sqlite3"
    write_study(file, terms, [{"lr": 0.01, "n": "1"}, {"lr": 0.1, "n": "2"}], by("n"))
    past = read_past(file)

    assert (past.name, past.category, past.metric) == ("a b", "a", TERMS.metric)
    assert past.varied == space.varied
    assert past.best == past.ranked()[0] == past.trials[1]
    assert [trial.run for trial in past.trials] == ["a-0", "a-1"]


@pytest.mark.parametrize("content", [b"", b"no database", None])
def test_what_is_no_study_of_a_sweep_is_left_as_it_is(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "a.sqlite3"
    if content is None:
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        optuna.create_study(storage=storage, study_name="another")
        storage.remove_session()
        storage.engine.dispose()
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"a\.sqlite3"):
        read_past(file)

    assert file.read_bytes() == before
