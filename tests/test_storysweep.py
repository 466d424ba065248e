"""A sweep in the report: its trials as a table and as lines, and which parameters mattered."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from orchestrator.records.ledger import Ledger, RunFact
from orchestrator.records.mirror import Mirrors
from orchestrator.stories.chronicle import find_subject, tell_story
from orchestrator.stories.page import html_page, markdown_page, story_json
from orchestrator.stories.plot import BOTTOM, TOP, WIDTH, Plot
from orchestrator.stories.story import Story
from orchestrator.stories.sweepplots import importance_bars, parallel_coordinates
from orchestrator.sweeps.metric import Metric
from orchestrator.sweeps.past import Past
from orchestrator.sweeps.space import Choices, Space
from orchestrator.sweeps.terms import Terms
from orchestrator.sweeps.trial import Fate, Trial
from tests.studies import Params, write_study
from tests.tales import Teller, at
from tests.test_storybrowser import browser, show
from tests.test_storypage import EVIL

__all__ = ["browser"]  # a fixture

SPACE = Space.parse(
    {"learning_rate": "1e-4..1e-1:log", "units": "32,64,128", "dropout": "0.1..0.5"}
)
METRIC = Metric("val_accuracy", higher_is_better=True)


def worth(point: Params) -> float:
    """Best where the rate is 3e-3, a little better with more units, whatever the dropout."""
    return (
        0.9
        - 0.15 * (math.log10(float(point["learning_rate"])) + 2.5) ** 2
        + float(point["units"]) / 2000
    )


def points(count: int) -> list[Params]:
    """Spread over the space, by steps that share no factor with it."""
    return [
        {
            "learning_rate": 10 ** (-4 + 3 * (number * 7 % count) / count),
            "units": ("32", "64", "128")[number * 5 % 3],
            "dropout": 0.1 + 0.4 * (number * 11 % count) / count,
        }
        for number in range(count)
    ]


def fate(number: int) -> Fate:
    return {5: Fate.FAILED, 8: Fate.PRUNED, 13: Fate.PRUNED}.get(number, Fate.COMPLETE)


class Swept:
    """A told session some of whose runs were trials of a sweep.

    Attributes:
        runs: those of category3, which are its first trials.
    """

    def __init__(self, folder: Path) -> None:
        self.teller = Teller(folder / "home")
        self.teller.tell()
        self.studies = self.teller.root / ".train" / "sweeps"
        with self.ledger() as ledger:
            facts: tuple[RunFact, ...] = ledger.runs(workspace=str(self.teller.root))
        self.runs = [fact.run_id for fact in facts if fact.category == "category3"]
        mirrors = Mirrors(self.teller.root / ".train")
        for run in self.runs:
            mirror = mirrors.get(run)
            assert mirror is not None
            mirror.note_trial()

    def ledger(self) -> Ledger:
        return Ledger.open(self.teller.home / "ledger.sqlite3")

    def sweep(self, name: str, count: int, space: Space = SPACE) -> None:
        terms = Terms("category3", space, METRIC, "random", "median")
        named = dict(enumerate(self.runs))
        write_study(
            self.studies / f"{name}.sqlite3",
            terms,
            points(count),
            worth,
            fate=fate,
            run=lambda number: named.get(number, f"category3-20261121-{number:06}-0000"),
        )

    def story(self) -> Story:
        with self.ledger() as ledger:
            return tell_story(ledger, find_subject(ledger, "s-1", None), at(200))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Story:
    made = Swept(tmp_path_factory.mktemp("swept"))
    made.sweep("wide", 25)
    return made.story()


def places(plot: Plot, style: str) -> list[list[tuple[float, float]]]:
    """The points of each line of a style, in the picture's pixels."""
    return [
        [tuple(map(float, point.split(","))) for point in data[1:].split()]  # type: ignore[misc]
        for name, data in plot.paths
        if name == style
    ]


def test_a_sweep_is_told_with_all_its_trials_if_one_was_in_the_session(swept: Story) -> None:
    (past,) = swept.sweeps

    assert (past.name, past.category, len(past.trials)) == ("wide", "category3", 25)
    assert past.best == past.trials[16]
    assert next(iter(past.importances)) == "learning_rate"
    assert swept.untold_sweeps == ()


def test_a_sweep_of_other_runs_is_not_told_and_one_that_cannot_be_read_is_named(
    tmp_path: Path,
) -> None:
    made = Swept(tmp_path)
    made.runs = []
    made.sweep("elsewhere", 2)
    (made.studies / "spoilt.sqlite3").write_bytes(b"no database")
    story = made.story()

    assert story.sweeps == ()
    assert story.untold_sweeps == ("the sweep spoilt cannot be told: its study cannot be read",)
    assert story.untold_sweeps[0] in html_page(story)
    assert str(tmp_path) not in html_page(story)


def test_without_optuna_the_report_says_how_sweeps_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Swept(tmp_path)
    made.sweep("wide", 2)
    monkeypatch.setattr("orchestrator.stories.sweeps.find_spec", lambda _: None)
    story = made.story()

    assert story.sweeps == ()
    assert "pip install 'trainshed[sweep]'" in markdown_page(story).replace("\\", "")
    assert len(story.trials) > 3


def test_a_trial_is_a_line_from_its_parameters_to_its_value(swept: Story) -> None:
    plot = parallel_coordinates(swept.sweeps[0])
    assert plot is not None
    (best,) = places(plot, "best")
    others = places(plot, "good") + places(plot, "tried")

    # The rate, units, dropout, and the metric on the right, where the best is the highest.
    assert len(best) == 4
    assert best[-1][1] == TOP
    assert all(line[-1][1] > TOP for line in others)
    assert (len(places(plot, "good")), len(others)) == (5, 21)
    # 128 is the last choice; a rate of 0.0028 lies a little below the middle of its powers.
    assert best[1][1] == TOP
    assert 0.4 < (BOTTOM - best[0][1]) / (BOTTOM - TOP) < 0.5
    # A pruned trial has no value at its end, and one that failed nothing to show.
    assert {len(line) for line in places(plot, "pruned")} == {3}
    assert len(places(plot, "pruned")) == 2
    assert [key.text for key in plot.keys] == ["the best", "best quarter", "others", "pruned"]


def sweep_of(values: list[float], *, higher_is_better: bool) -> Past:
    trials = tuple(
        Trial(number, {"units": "32"}, Fate.COMPLETE, f"a-{number}", 1, value)
        for number, value in enumerate(values)
    )
    metric = Metric("loss", higher_is_better=higher_is_better)
    return Past("a", "a", metric, Space.parse({"units": "32,64"}).varied, trials, {})


def test_up_is_better_also_where_less_is() -> None:
    plot = parallel_coordinates(sweep_of([0.5, 0.3, 0.4], higher_is_better=False))
    assert plot is not None

    assert [line[-1][1] for line in places(plot, "best")] == [TOP]
    assert sorted(line[-1][1] for line in places(plot, "tried")) == [(TOP + BOTTOM) / 2, BOTTOM]
    assert "trial 1, has the lowest, 0.3" in plot.text


def test_a_trial_that_diverged_does_not_press_the_others_together() -> None:
    plot = parallel_coordinates(sweep_of([0.3, 0.4, 0.5, 4e9], higher_is_better=False))
    assert plot is not None
    heights = sorted(line[-1][1] for line in places(plot, "tried"))

    assert heights[0] < heights[1] - 30
    assert heights[1] < heights[2] - 30
    assert heights[2] == BOTTOM
    assert "worse" in [label.text for label in plot.labels]


@pytest.mark.parametrize("values", [[1e308, -1e308, 0.0], [-1e308, *[1e308] * 12]])
def test_values_that_no_picture_holds_lie_within_it(values: list[float]) -> None:
    plot = parallel_coordinates(sweep_of(values, higher_is_better=True))
    assert plot is not None

    heights = [line[-1][1] for style in ("best", "tried") for line in places(plot, style)]
    assert all(TOP <= height <= BOTTOM for height in heights)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.5]])
def test_few_or_equal_trials_make_no_picture_or_a_flat_one(values: list[float]) -> None:
    past = sweep_of(values, higher_is_better=True)

    assert (parallel_coordinates(past) is None) == (len(values) < 2)
    assert importance_bars(past) is None


@pytest.mark.parametrize("text", ["a=1..2", "a=1..4:log", "a=1e-5..2e-5:log", "a=-1.5..1e6"])
def test_an_axis_has_ticks_within_it_in_whatever_range(text: str) -> None:
    name, _, range_ = text.partition("=")
    varied = Space.parse({name: range_}).varied
    low, high = range_.removesuffix(":log").split("..")
    ends = [Trial(n, {name: end}, Fate.COMPLETE, "", 1, n) for n, end in enumerate((low, high))]
    plot = parallel_coordinates(Past("s", "a", METRIC, varied, tuple(ends), {}))
    assert plot is not None

    assert places(plot, "tried")[0][0][1] == BOTTOM
    assert places(plot, "best")[0][0][1] == TOP
    ticks = [label for label in plot.labels if label.style == "tick" and label.x < WIDTH / 2]
    assert len(ticks) >= 2
    assert all(TOP <= label.y - 4 <= BOTTOM for label in ticks)


def test_the_longest_bar_is_the_most_important_parameter(swept: Story) -> None:
    plot = importance_bars(swept.sweeps[0])
    assert plot is not None
    ends = [float(data.partition("H")[2].partition("V")[0]) for _, data in plot.paths]

    assert ends == sorted(ends, reverse=True)
    assert [label.text for label in plot.labels][::2] == ["learning_rate", "units", "dropout"]
    assert "in what made trials good: learning_rate 8" in plot.text


def test_all_forms_tell_the_sweep(swept: Story) -> None:
    page, markdown = html_page(swept), markdown_page(swept)
    told = json.loads(json.dumps(story_json(swept), allow_nan=False))["sweeps"]

    assert "25 trials: 22 complete, 1 failed, 2 pruned; best: trial 16, val_accuracy" in page
    assert re.search(r"^\| 16 \| .* \| best \|", markdown, re.MULTILINE)
    assert len(re.findall(r"^\| \d+ \| 0\.", markdown, re.MULTILINE)) == 25
    assert told[0]["trials"][16]["params"]["units"] == "128"
    assert told[0]["varied"]["learning_rate"] == {"low": 1e-4, "high": 0.1, "log": True}
    assert sum(told[0]["importances"].values()) == pytest.approx(1)
    # A trial of this session leads to what is told of its run.
    (number,) = re.findall(r'<a href="#a(\d+)">category3-20261121-095200-0040</a></td>', page)
    assert f'id="a{number}">category3-20261121-095200-0040<' in page


def test_what_a_sweep_names_becomes_no_part_of_a_page(swept: Story) -> None:
    (past,) = swept.sweeps
    named = {EVIL: EVIL, "b": "c"}
    evil = replace(
        past,
        name=EVIL,
        category=EVIL,
        metric=Metric(EVIL, higher_is_better=True),
        varied={EVIL: Choices((EVIL, "x")), "b": Choices(("b", "c"))},
        trials=tuple(replace(trial, params=named, run=EVIL) for trial in past.trials),
        importances={EVIL: 0.9, "b": 0.1},
    )
    story = replace(swept, sweeps=(evil,), untold_sweeps=(EVIL,))

    for page in (html_page(story), markdown_page(story)):
        assert "<script" not in page.replace("\\<", "")
        assert "\x1b" not in page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_in_a_sweep(
    browser: Browser, swept: Story, tmp_path: Path, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    page = show(browser, swept, tmp_path, viewport=size, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    picture = page.get_by_role("img", name="Trials of wide by val_accuracy")
    assert "The best, trial 16, has the highest" in (picture.locator("desc").text_content() or "")
    # All that is written in a picture lies within it.
    assert page.evaluate(
        """[...document.querySelectorAll("section:has(#sweeps) figure > svg")].every(svg => {
            const box = svg.getBoundingClientRect()
            return [...svg.querySelectorAll("text")].every(text => {
                const own = text.getBoundingClientRect()
                return own.left >= box.left - 1 && own.right <= box.right + 1
            })
        })"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
