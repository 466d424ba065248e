"""What a sweep varies, and which way its metric is better."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.sweeps.metric import Metric
from orchestrator.sweeps.space import Choices, Reals, Space, Wholes
from orchestrator.sweeps.words import no_such_metric


def parse(**params: str) -> Space:
    return Space.parse(params)


def test_ranges_and_choices_are_varied_and_single_values_are_not() -> None:
    space = parse(lr="1e-4..1e-2:log", units="32,64", layers="1..4", epochs="5", data="../data")

    assert space.varied == {
        "lr": Reals(1e-4, 1e-2, log=True),
        "units": Choices(("32", "64")),
        "layers": Wholes(1, 4),
    }
    assert space.fixed == {"epochs": "5", "data": "../data"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2..1", "first end is not below"),
        ("1..1", "first end is not below"),
        ("-1e308..1e308", "too far apart"),
        ("0..1:log", "above 0"),
        ("1..x", "no number"),
        ("1..inf", "no number"),
        ("1..2:ln", "only :log"),
        ("1,,2", "empty choice"),
        ("a,a", "one twice"),
    ],
)
def test_what_makes_no_range_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(lr=text)


def test_a_sweep_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="a parameter to vary") as refused:
        parse(lr="1..")
    assert refused.value.cause == "lr=1.. is one value"


@given(st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), st.text(max_size=20)))
def test_any_text_is_read_or_refused_and_its_words_mean_the_same(params: dict[str, str]) -> None:
    try:
        space = Space.parse(params)
    except UsageError:
        return

    assert Space.parse(space.words()).words() == space.words()


def test_a_grid_has_every_point_once() -> None:
    space = parse(units="32,64", layers="1..3")

    points = [tuple(point.values()) for point in space.grid()]
    assert len(set(points)) == len(points) == space.grid_size() == 6


def test_a_grid_of_real_numbers_is_refused() -> None:
    with pytest.raises(UsageError, match="infinitely many"):
        parse(lr="0.1..0.2").grid_size()


@pytest.mark.parametrize(
    ("text", "name", "higher"),
    [
        ("val_accuracy", "val_accuracy", True),
        ("val_loss", "val_loss", False),
        ("sparse_categorical_crossentropy", "sparse_categorical_crossentropy", False),
        ("score:max", "score", True),
        ("val_accuracy:min", "val_accuracy", False),
    ],
)
def test_the_better_way_is_known_by_the_name_or_said(text: str, name: str, higher: bool) -> None:
    assert Metric.parse(text) == Metric(name, higher)


def test_who_trains_without_validation_data_is_told_how_to_have_some() -> None:
    assert "validation_split" in no_such_metric("val_loss", "a-1", ["loss"]).fix
    assert no_such_metric("val_auc", "a-1", ["loss"]).fix == "--metric loss, for example"


@pytest.mark.parametrize("text", ["val_loss:maximum", "val_loss:", ":max", "a:b"])
def test_a_way_that_is_neither_min_nor_max_is_no_part_of_a_metrics_name(text: str) -> None:
    with pytest.raises(UsageError, match="NAME:min or NAME:max"):
        Metric.parse(text)


@pytest.mark.parametrize("text", ["score", "accuracy_loss"])
def test_a_name_that_does_not_tell_which_way_is_better_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--metric {text}:max|not known"):
        Metric.parse(text)
