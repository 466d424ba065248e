"""The live view's screen: what is drawn, and what the keys begin."""

from __future__ import annotations

import asyncio
import sys
import time
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable

from orchestrator.watch import app as watchapp
from orchestrator.watch.app import WatchApp
from orchestrator.watch.board import (
    Board,
    CategoryView,
    Chart,
    Curve,
    RemoteView,
    RunDetail,
    RunView,
)
from orchestrator.watch.errand import Errand
from orchestrator.watch.gathering import Gathering
from tests.vm import WAIT_LIMIT_S, wait_until

CURVE = Curve("training", tuple((step, 1 / step) for step in range(1, 30)))
CHARTS = (Chart("loss", (CURVE,)), Chart("accuracy", (CURVE,)))
NAMES = ("category1", "category2", "category3", "category4", "category5")
HOSTILE = "[bold]no markup[/bold] [@click=app.quit]x[/]"


def run_of(name: str) -> RunView:
    return RunView(
        *(f"{name}-20260101-120000-beef", name, "running", "vm", "3 of 10", "40 s left"),
        *("2 min", "$0.02", HOSTILE, False),
    )


RUNS = tuple(map(run_of, NAMES))
BOARD = Board(
    "exam",
    tuple(
        CategoryView(run.category, "4 of 5", "accuracy 0.9", run.progress, run.run_id, "vm")
        for run in RUNS
    ),
    RUNS,
    (RemoteView("vm", 0.5),),
    detail=RunDetail(RUNS[1].run_id, ("Epoch 3/10", HOSTILE), CHARTS, ("cpu 10 % ▁",)),
)


class Source:
    """Gives the board that stands in it, with the details of the run that is asked for.

    Args:
        is_slow: whether it has not got to these yet.
    """

    def __init__(self, board: Board = BOARD, *, is_slow: bool = False) -> None:
        self.given = board
        self.is_slow = is_slow
        self.asked: list[str] = []

    def board(self, chosen: str = "") -> Board:
        self.asked.append(chosen)
        if not chosen or self.is_slow or self.given.detail is None:
            return replace(self.given)
        return replace(self.given, detail=replace(self.given.detail, run_id=chosen))


class Begun:
    """Stands for an errand, which is a process."""

    made: list[Begun]
    result: tuple[bool, str] | None = None

    def __init__(self, root: Path, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.name = " ".join(("train", *words))
        self.made.append(self)

    def end(self) -> tuple[bool, str] | None:
        return self.result


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchapp, "_LOOK_S", 0.02)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Begun]:
    Begun.made = []
    Begun.result = None
    monkeypatch.setattr(watchapp, "Errand", Begun)
    return Begun.made


class Seen(NamedTuple):
    """Attributes:
    rows: the first cell of the row on which each table's cursor is.
    colours: other than the terminal's own two.
    """

    rows: tuple[str, ...]
    text: str
    colours: set[str]


Act = Callable[[WatchApp, Pilot[None]], Awaitable[None]]


def at_screen(
    act: Act, source: Source | None = None, size: tuple[int, int] = (80, 24), until: str = ""
) -> Seen:
    """What there was to be seen after it, as soon as `until` was."""
    seen = source or Source()

    @contextmanager
    def opened() -> Iterator[Source]:
        yield seen

    async def look(gathering: Gathering) -> Seen:
        app = WatchApp(gathering, Path("/exam"))
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot)
            await act(app, pilot)
            await settle(app, pilot)
            if until:
                await wait_for(pilot, lambda: until in shown(app))
            rows = tuple(
                table.get_row_at(table.cursor_row)[0].plain
                for table in app.query(DataTable)
                if table.row_count
            )
            return Seen(rows, shown(app), colours(app))

    with Gathering(opened, pace_s=0.02) as gathering:
        return asyncio.run(look(gathering))


async def wait_for(pilot: Pilot[None], is_true: Callable[[], bool]) -> None:
    """As long as it takes, but not for ever: what then is not so fails where it is looked at."""
    end = time.monotonic() + WAIT_LIMIT_S
    while not is_true() and time.monotonic() < end:
        await pilot.pause(0.02)


async def settle(app: WatchApp, pilot: Pilot[None]) -> None:
    """Wait until a board is drawn whose making began only now: it is the third from here, as the
    first may be made already, and the second may be in the making.
    """
    for _ in range(3):
        board = app._board
        await wait_for(pilot, lambda board=board: app._board is not board)  # type: ignore[misc]
    await pilot.pause()


def colours(app: WatchApp) -> set[str]:
    """As they go to the terminal."""
    found = set()
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            style = segment.style
            if style is not None:
                found |= {str(c.name) for c in (style.color, style.bgcolor) if c is not None}
    return found - {"default"}


def shown(app: WatchApp) -> str:
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    text = "\n".join(strip.text for strip in lines)
    assert len(lines) == height
    assert all(len(strip.text) <= width for strip in lines)
    return text


async def nothing(app: WatchApp, pilot: Pilot[None]) -> None:
    """Only look."""


def press(*keys: str) -> Act:
    async def act(app: WatchApp, pilot: Pilot[None]) -> None:
        for key in keys:
            await pilot.press(key)
            await settle(app, pilot)

    return act


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_all_that_matters_is_on_the_screen(size: tuple[int, int]) -> None:
    text = at_screen(nothing, size=size).text

    for name in NAMES:
        assert f"{name}  4 of 5  running, epoch 3 of 10, 40 s left  accuracy 0.9" in text
    assert "vm: connected" in text
    assert "cpu 10 %" in text
    assert "Epoch 3/10" in text
    assert f"{RUNS[1].run_id}: running, epoch 3 of 10, 40 s left" in text
    assert "q quit  ? help  s run  c cancel  p pull  g grade  o report" in text


def test_a_narrow_screen_has_states_points_and_the_way_out() -> None:
    text = at_screen(nothing, size=(40, 24)).text

    assert "category1  4 of 5  running, epoch 3 of" in text
    assert RUNS[0].run_id in text
    assert "q quit  ? help  s run" in text


def test_where_there_is_room_the_curves_stand_beside_the_log() -> None:
    text = at_screen(nothing, size=(120, 40)).text

    assert "loss  ── training" in text
    assert "accuracy  ── training" in text


def test_where_there_is_none_a_key_turns_to_them() -> None:
    before = at_screen(nothing).text
    after = at_screen(press("v")).text

    assert "── training" not in before
    assert "loss  ── training" in after
    assert "Epoch 3/10" not in after


def test_text_from_a_run_is_shown_as_it_is() -> None:
    text = at_screen(nothing, size=(200, 60)).text
    assert text.count(HOSTILE) == len(("the log", "the note of the chosen run", *RUNS))


def test_a_note_leaves_room_for_the_rest_on_a_narrow_screen() -> None:
    text = at_screen(nothing).text
    assert f"running  {HOSTILE[:12]}  3 of 10  2 min" in text


def test_the_screen_begins_with_the_run_that_is_shown() -> None:
    assert at_screen(nothing).rows == ("category2", RUNS[1].run_id)


def test_choosing_a_category_shows_its_last_run() -> None:
    source = Source()
    text = at_screen(press("down"), source, until=f"{RUNS[2].run_id}: running").text

    assert source.asked[-1] == RUNS[2].run_id
    assert f"{RUNS[2].run_id}: running" in text


def test_choosing_a_run_chooses_its_category_for_the_keys(begun: list[Begun]) -> None:
    at_screen(press("tab", "down", "down", "p"))

    assert [errand.words for errand in begun] == [("pull", "category4")]


def test_coming_to_the_runs_chooses_the_one_under_the_cursor(begun: list[Begun]) -> None:
    never_run = CategoryView("category3", "-", "it was never run")
    views = (*BOARD.categories[:2], never_run, *BOARD.categories[3:])
    source = Source(replace(BOARD, categories=views))
    at_screen(press("down", "p", "tab", "p"), source)

    assert [errand.words[1] for errand in begun] == ["category3", "category2"]


def test_where_nothing_was_run_the_keys_are_for_the_first_category(begun: list[Begun]) -> None:
    views = tuple(CategoryView(name, "-", "it was never run") for name in NAMES)
    at_screen(press("p"), Source(Board("exam", views, ())))

    assert [errand.words for errand in begun] == [("pull", "category1")]


def test_the_keys_are_for_the_run_that_is_shown_where_nobody_chose(begun: list[Begun]) -> None:
    source = Source()

    async def another(app: WatchApp, pilot: Pilot[None]) -> None:
        assert BOARD.detail is not None
        source.given = replace(BOARD, detail=replace(BOARD.detail, run_id=RUNS[3].run_id))
        await settle(app, pilot)
        await press("p")(app, pilot)

    assert at_screen(another, source).rows == ("category4", RUNS[3].run_id)
    assert [errand.words for errand in begun] == [("pull", "category4")]


def test_a_chosen_category_goes_on_to_its_next_run() -> None:
    source = Source()
    new = replace(run_of("category3"), run_id="category3-20260101-130000-beef")

    async def more(app: WatchApp, pilot: Pilot[None]) -> None:
        await press("down")(app, pilot)
        views = tuple(
            replace(view, run_id=new.run_id) if view.name == "category3" else view
            for view in BOARD.categories
        )
        source.given = replace(BOARD, categories=views, runs=(new, *RUNS))
        await wait_for(pilot, lambda: source.asked[-1] == new.run_id)

    assert f"{new.run_id}: running" in at_screen(more, source).text


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("sy", ("run", "category2", "--remote", "vm", "--detach", "--yes")),
        ("cy", ("cancel", RUNS[1].run_id)),
        ("p", ("pull", "category2")),
        ("g", ("grade", "category2")),
        ("o", ("report", "-o", "/exam/.train/report.html")),
    ],
)
def test_a_key_begins_a_command(keys: str, words: tuple[str, ...], begun: list[Begun]) -> None:
    text = at_screen(press(*keys)).text

    assert [errand.words for errand in begun] == [words]
    assert " ".join(("train", *words[:2])) in text


@pytest.mark.parametrize("key", ["s", "c"])
def test_what_costs_or_ends_something_is_asked_first(key: str, begun: list[Begun]) -> None:
    text = at_screen(press(key)).text
    assert "y / n" in text

    at_screen(press(key, "n"))
    at_screen(press(key, "escape"))
    assert not begun


def test_a_run_that_has_ended_is_not_cancelled(begun: list[Begun]) -> None:
    ended = replace(BOARD, runs=tuple(replace(run, has_ended=True) for run in RUNS))
    text = at_screen(press("c"), Source(ended)).text

    assert "the chosen run has ended" in text
    assert not begun


def test_handing_in_is_there_in_an_exam_only(begun: list[Begun]) -> None:
    at_screen(press("h", "y"))
    assert not begun

    exam = replace(BOARD, exam="exam: 3 h left", advice="train submit category2   it stands there")
    text = at_screen(nothing, Source(exam)).text
    assert "exam: 3 h left" in text
    assert "next: train submit category2" in text
    assert "h hand in  o report  v curves" in text
    at_screen(press("h", "y"), Source(exam))
    assert [errand.words for errand in begun] == [("submit", "category2")]


def test_what_a_command_said_is_shown_until_it_is_put_away(
    begun: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Begun, "result", (False, f"error: {HOSTILE}"))
    text = at_screen(press("p"), until=f"error: {HOSTILE}").text
    assert "train pull category2: did not go well (esc puts this away)" in text
    assert f"error: {HOSTILE}" in text

    text = at_screen(press("p", "escape")).text
    assert "did not go well" not in text


@pytest.mark.parametrize("exam", ["", "exam: 3 h left\nnext: train submit category2\n  it stands"])
def test_the_last_line_of_what_a_command_said_has_its_place(
    begun: list[Begun], monkeypatch: pytest.MonkeyPatch, exam: str
) -> None:
    monkeypatch.setattr(Begun, "result", (True, "• connected\n• synced\n• submitted x"))
    text = at_screen(press("p"), Source(replace(BOARD, exam=exam)), until="submitted x").text

    said = text.splitlines()[-4:]
    assert [line.strip() for line in said[:3]] == ["• connected", "• synced", "• submitted x"]
    assert said[3].startswith(" q quit")


def test_a_report_is_opened_only_in_a_window(
    begun: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Begun, "result", (True, ""))
    monkeypatch.setattr(sys, "platform", "linux")
    opened: list[str] = []

    def open_window(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", open_window)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    text = at_screen(press("o"), until="it is in").text
    assert "it is in /exam/.train/report.html" in text
    assert not opened

    monkeypatch.setenv("DISPLAY", ":0")
    at_screen(press("o"), until="opened")
    assert opened == ["file:///exam/.train/report.html"]


def test_help_tells_the_keys() -> None:
    text = at_screen(press("question_mark")).text

    assert "s       run the chosen category: train run CATEGORY --detach" in text
    assert "folder, and how its last run stands. The lower one has the runs, the" in text
    assert "train watch --plain" in text


def test_a_line_that_is_cut_says_how_old_the_rest_is() -> None:
    lost = replace(BOARD, remotes=(RemoteView("vm", 42, "the line is gone", 5),))
    text = at_screen(nothing, Source(lost)).text

    assert "vm: what is shown is 42 s old; again in 5 s: the line is gone" in text


def test_a_new_run_leaves_the_cursor_on_the_users_row() -> None:
    source = Source(is_slow=True)

    async def more(app: WatchApp, pilot: Pilot[None]) -> None:
        await press("tab", "down")(app, pilot)
        new = replace(run_of("category1"), run_id="category1-20260101-130000-beef")
        source.given = replace(BOARD, runs=(new, *RUNS))

    assert at_screen(more, source).rows[1] == RUNS[2].run_id


def test_without_colours_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = at_screen(nothing, size=(120, 40))
    monkeypatch.setenv("NO_COLOR", "1")
    plain = at_screen(nothing, size=(120, 40))

    assert coloured.colours
    assert not plain.colours
    assert plain.text == coloured.text


def test_an_errand_outlives_the_view_and_says_its_error(tmp_path: Path) -> None:
    errand = Errand(tmp_path, ("pull", "nothing"))
    wait_until(lambda: errand._process.poll() is not None, "it has ended")
    end = errand.end()

    assert end is not None
    went_well, said = end
    assert not went_well
    assert said.startswith("error: ")


def test_an_errand_that_went_well_says_its_steps_and_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/sh\necho '• it is pulled\n  grading (2 s)\n! it is small' >&2\n"
        "echo 'category    points   metric'\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    errand = Errand(tmp_path, ("pull", "category1"))
    wait_until(lambda: errand._process.poll() is not None, "it has ended")

    assert errand.end() == (True, "• it is pulled\n! it is small")
