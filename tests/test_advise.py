"""What is worth doing next in an exam."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.exams.advise import Deed, Place, Try, advise, likely_gain, submit_margin_s

FIVE = tuple(f"category{number}" for number in range(1, 6))
HOURS = 5 * 3600.0


def places(**known: Place) -> tuple[Place, ...]:
    """All five, of which those not named have all there is."""
    return tuple(known.get(name, Place(name, best=5)) for name in FIVE)


def said(found: tuple[Place, ...], left_s: float = HOURS, grading_s: float = 10.0) -> list[str]:
    return [one.command for one in advise(found, left_s, grading_s, "vm")]


QUICK, SLOW = Try(3, 4, 300.0), Try(3, 4, 3000.0)
VAIN = Try(3, 3, 300.0)


@pytest.mark.parametrize(
    ("found", "left_s", "commands"),
    [
        # at the beginning: a plain model everywhere, in one command
        (tuple(map(Place, FIVE)), HOURS, ["train --remote vm"]),
        (
            places(category2=Place("category2"), category4=Place("category4")),
            HOURS,
            ["train category2 category4 --remote vm"],
        ),
        # one by one, the easy ones first, where there is no time for all
        (tuple(map(Place, FIVE)), 3000.0, [f"train {name} --remote vm" for name in FIVE]),
        # before improving one, the others get a plain one
        (
            places(category1=Place("category1", 2), category4=Place("category4")),
            HOURS,
            ["train category4 --remote vm", "train category1 --remote vm"],
        ),
        # what stands and was not handed in goes before everything, what counts 0 first
        (
            places(
                category1=Place("category1", 3, unsubmitted=True),
                category2=Place("category2"),
                category3=Place("category3", unsubmitted=True),
            ),
            HOURS,
            ["train submit category3", "train submit category1", "train category2 --remote vm"],
        ),
        # points per minute, by this user's tries
        (
            places(
                category1=Place("category1", 3, tries=(VAIN, VAIN, VAIN)),
                category2=Place("category2", 3, tries=(SLOW, SLOW)),
                category3=Place("category3", 3, tries=(QUICK, QUICK)),
            ),
            HOURS,
            [f"train {name} --remote vm" for name in ("category3", "category1", "category2")],
        ),
        # what does not end in time is not advised
        (
            places(
                category2=Place("category2", 3, tries=(SLOW,)),
                category3=Place("category3", 3, tries=(QUICK,)),
            ),
            1000.0,
            ["train category3 --remote vm"],
        ),
        # for a category that counts 0 a shorter run may do
        (
            places(category5=Place("category5")),
            500.0,
            ["train category5 --remote vm --time-limit 5m"],
        ),
        (places(category5=Place("category5")), 200.0, ["train exam finish"]),
        # a run that goes on is not started again
        (
            places(category3=Place("category3", running="category3-1")),
            HOURS,
            ["train attach category3-1"],
        ),
        (places(), HOURS, ["train exam finish"]),
        (places(category1=Place("category1", unsubmitted=True)), 0.0, ["train exam finish"]),
    ],
)
def test_it_advises(found: tuple[Place, ...], left_s: float, commands: list[str]) -> None:
    assert said(found, left_s) == commands


def test_it_says_why() -> None:
    table = {
        "it counts 0 so far: first a plain model everywhere": Place("category1"),
        "3 of 5 so far; 2 of your 3 tries from 3 of 5 gained, about 0.6 points in 5 min": Place(
            "category1", 3, tries=(QUICK, VAIN, QUICK)
        ),
        "1 of 5 so far; 1 of 1 try there gained, about 0.8 points in 5 min": Place(
            "category1", 1, tries=(QUICK,)
        ),
        "1 of 5 so far; you have no tries there to learn from": Place("category1", 1),
    }
    for why, place in table.items():
        assert advise(places(category1=place), HOURS, 10.0)[0].why == why


def test_close_to_the_end_it_says_to_hand_in_with_time_for_grading_each() -> None:
    standing = tuple(Place(name, unsubmitted=True) for name in FIVE)

    assert submit_margin_s(standing, 20.0) == 120 + 5 * 3 * 20
    early, late = (advise(standing, left_s, 20.0)[0] for left_s in (421.0, 420.0))
    assert (early.deed, late.deed) == (Deed.SUBMIT, Deed.SUBMIT)
    assert not early.why.startswith("only")
    assert late.why.startswith("only 7 min left: ")


tries = st.builds(Try, st.integers(0, 5), st.integers(0, 5), st.floats(1, 20_000))
some_places = st.tuples(
    *(
        st.builds(
            Place,
            st.just(name),
            st.none() | st.integers(0, 5),
            st.booleans(),
            st.sampled_from(["", f"{name}-1"]),
            st.lists(tries, max_size=4).map(tuple),
        )
        for name in FIVE
    )
)


@given(some_places, st.floats(-10, 20_000), st.floats(0, 600))
def test_nothing_is_advised_that_cannot_be_handed_in_before_the_end(
    found: tuple[Place, ...], left_s: float, grading_s: float
) -> None:
    advice = advise(found, left_s, grading_s)

    assert advice
    for one in advice:
        assert one.takes_s <= max(0.0, left_s)
        if one.deed is Deed.TRAIN:
            assert one.takes_s + submit_margin_s(found, grading_s) <= left_s
    deeds = [one.deed for one in advice]
    assert deeds == sorted(deeds, key=list(Deed).index)


@given(some_places)
def test_a_gain_is_never_more_than_there_is(found: tuple[Place, ...]) -> None:
    for place in found:
        assert 0 <= likely_gain(place) <= 5 - (place.best or 0)
