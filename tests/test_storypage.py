"""A story as a page, as Markdown and as JSON: the same facts, and nothing that was slipped in."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orchestrator.records.ledger import Ledger, SessionFact, SessionTerms
from orchestrator.stories.chronicle import find_subject, tell_story
from orchestrator.stories.page import html_page, markdown_page, story_json
from orchestrator.stories.story import Story
from tests.tales import REMOTE, START, TALE, Teller, at

EVIL = "<script>hacked=1</script>|`*_[x](javascript:1)\u202e\x1b[2J&lt;"


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Story:
    teller = Teller(tmp_path_factory.mktemp("tale") / "home")
    teller.tell()
    return read(teller)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Whatever a user or a VM may name is named to harm, in the texts of the code too."""
    teller = Teller(tmp_path_factory.mktemp("evil") / "home")
    names = ("reason", "metric", "curve", "version", "param")
    with Ledger.open(teller.home / "ledger.sqlite3") as ledger:
        ledger.add(SessionFact("s-1", EVIL, REMOTE, START))
        for tried in (TALE[2], TALE[3], TALE[4]):
            teller.run(ledger, tried, **dict.fromkeys(names, EVIL))
    story = read(teller)
    trials = [
        dataclasses.replace(
            trial,
            name=EVIL,
            category=EVIL,
            remote=EVIL,
            code=EVIL,
            model=EVIL,
            change=dataclasses.replace(trial.change, lines=(f"+{EVIL}",), since=EVIL),
        )
        for trial in story.trials
    ]
    machines = [dataclasses.replace(one, remote=EVIL, region=EVIL) for one in story.machines]
    chapters = [dataclasses.replace(one, category=EVIL) for one in story.chapters]
    rises = [dataclasses.replace(one, category=EVIL) for one in story.rises]
    return dataclasses.replace(
        story,
        trials=tuple(trials),
        machines=tuple(machines),
        chapters=tuple(chapters),
        rises=tuple(rises),
    )


def read(teller: Teller) -> Story:
    with Ledger.open(teller.home / "ledger.sqlite3") as ledger:
        return tell_story(ledger, find_subject(ledger, "s-1", None), at(200))


class Seen(HTMLParser):
    """The elements of a page, and the attributes that could act."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.acting: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.acting += [
            (name, value)
            for name, value in attrs
            if name.startswith("on") or name in ("src", "style", "action")
            or (name == "href" and not (value or "").startswith("#"))
        ]  # fmt: skip


def test_nothing_that_was_named_becomes_a_part_of_the_page(evil: Story) -> None:
    page = html_page(evil)
    seen = Seen(page)

    assert "&lt;script&gt;hacked=1" in page
    assert not seen.names & {"script", "iframe", "img", "link", "object", "form", "base"}
    assert seen.acting == []
    assert not {"\u202e", "\x1b"} & set(page)


def test_a_page_forbids_all_that_it_does_not_have(tale: Story) -> None:
    page = html_page(tale)

    assert "content=\"default-src 'none'; style-src 'sha256-" in page.replace("&#39;", "'")
    assert "unsafe" not in page


def test_in_markdown_names_mean_nothing_and_stay_in_their_cells(evil: Story) -> None:
    page = markdown_page(evil)
    table = [line for line in page.splitlines() if line.startswith("| ")]

    outside = "\n".join(line for line in page.splitlines() if not line.startswith("    "))
    assert r"\<script\>hacked=1\</script\>\|\`\*\_\[x\](javascript:1)" in outside
    assert "<script" not in outside.replace(r"\<", "")
    assert {row.replace(r"\|", "").count("|") for row in table} <= {5, 6, 7, 10}
    assert not {"\u202e", "\x1b"} & set(page)


def test_all_forms_tell_the_same(tale: Story) -> None:
    page, text, values = html_page(tale), markdown_page(tale), story_json(tale)

    assert values["points"] == 23
    assert values["chapters"][2]["per_point"].startswith("0.1")
    assert values["machines"][0]["paid"]["idle_s"] > 0
    for trial, told in zip(tale.trials, values["trials"], strict=True):
        for said in (trial.name, trial.code[:12], trial.model[:12]):
            assert said in page
            assert said in text
        assert told["code"] == trial.code
        assert told["curves"].get("loss", []) == [list(p) for p in dict(trial.curves)["loss"]]
    for said in ("23 of 25", "$2.01", "budget $5.00", "51 min idle", "westeurope"):
        assert said in page
        assert said in text
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_a_metric_that_is_no_number_is_null_in_json(tale: Story) -> None:
    trials = (dataclasses.replace(tale.trials[0], value=math.inf),)
    values = story_json(dataclasses.replace(tale, trials=trials))

    assert values["trials"][0]["value"] is None
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_a_session_that_goes_on_says_so_and_its_budget_in_its_own_currency(tmp_path: Path) -> None:
    teller = Teller(tmp_path / "home")
    with Ledger.open(teller.home / "ledger.sqlite3") as ledger:
        ledger.add(
            SessionFact("s-1", None, REMOTE, START),
            SessionTerms("s-1", Decimal(5), "EUR", None, None),
        )
        teller.price = None
        teller.run(ledger, TALE[0])
    story = read(teller)

    assert (story.cost.unknown_runs, story.currency) == (1, "")
    assert f" on {REMOTE}, and it goes on\n" in markdown_page(story)
    assert "- cost: unknown, budget 5.00 EUR\n" in markdown_page(story)
    nowhere = dataclasses.replace(story, budget_currency="")
    assert "- cost: unknown, budget 5.00\n" in markdown_page(nowhere)


def test_an_empty_session_is_told_in_all_forms(tmp_path: Path) -> None:
    teller = Teller(tmp_path / "home")
    with Ledger.open(teller.home / "ledger.sqlite3") as ledger:
        ledger.add(SessionFact("s-1", None, REMOTE, START))
    story = read(teller)

    assert "Nothing was tried yet" in html_page(story)
    assert "Nothing was tried yet" in markdown_page(story)
    assert "- points: no grade\n" in markdown_page(story)
    assert story_json(story)["trials"] == []


def test_fifty_runs_with_long_curves_and_changes_stay_under_two_megabytes(
    tale: Story,
) -> None:
    trial = tale.trials[4]
    curves = [
        (f"{kind}{n}", dict(trial.curves)["loss"] * 3) for n in range(4) for kind in ("", "val_")
    ]
    change = dataclasses.replace(trial.change, lines=("+" + "x" * 159,) * 60)
    large = dataclasses.replace(trial, curves=tuple(curves), change=change)
    before_s = time.process_time()
    page = html_page(dataclasses.replace(tale, trials=(large,) * 50))

    assert len(page.encode()) < 2_000_000
    assert time.process_time() - before_s < 5
