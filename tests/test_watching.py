"""What the live view gathers of a workspace, with nobody at the other end of the line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.desk import Desk
from orchestrator.errors import ConfigError, LedgerDamaged
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirrors
from orchestrator.screen.console import Console
from orchestrator.settings.config import load_workspace
from orchestrator.settings.home import ledger_file
from orchestrator.watch import command, gathering
from orchestrator.watch.board import Board
from orchestrator.watch.gathering import Gathering
from orchestrator.watch.watching import Watching, _chosen
from remote.runfolder import RunRequest
from tests.invented import REMOTE, invent, last_run
from tests.vm import wait_until


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path / "home"))
    return tmp_path / "mock"


@contextmanager
def watching(root: Path) -> Iterator[Watching]:
    with Desk(load_workspace(root), Console(), ask=False) as desk, Watching(desk) as found:
        yield found


def look(root: Path, chosen: str = "") -> Board:
    with watching(root) as found:
        return found.board(chosen)


def test_each_category_has_its_points_its_metric_and_its_last_run(root: Path) -> None:
    invent(root)
    board = look(root)

    assert [(v.name, v.points, v.metric, v.state) for v in board.categories] == [
        ("category1", "5 of 5", "accuracy 0.98", "succeeded"),
        ("category2", "4 of 5", "accuracy 0.93", "succeeded"),
        ("category3", "3 of 5", "accuracy 0.78", "running, epoch 24 of 60, 6 min left"),
        ("category4", "-", "no model in the folder", "queued"),
        ("category5", "4 of 5", "accuracy 0.61", "succeeded"),
    ]


def test_runs_are_there_with_what_they_took_the_last_one_first(root: Path) -> None:
    invent(root)
    first, *_, last = look(root).runs

    assert (first.category, first.state, first.note) == (
        "category4",
        "queued",
        "waits for slot gpu0",
    )
    assert (last.category, last.epoch, last.time, last.cost, last.note) == (
        *("category1", "60 of 60", "10 min", "$0.15", "5 of 5"),
    )


def test_the_run_that_runs_is_shown_against_the_best_before_it(root: Path) -> None:
    invent(root)
    detail = look(root).detail

    assert detail is not None
    assert detail.run_id == last_run(root, "category3")
    assert [chart.metric for chart in detail.charts] == ["loss", "accuracy"]
    assert [(c.label, len(c.points)) for c in detail.charts[0].curves] == [
        ("training", 24),
        ("validation", 24),
        ("best (3 of 5)", 60),
    ]
    assert detail.log[-2] == "Epoch 24/60"
    assert detail.usage[0].startswith("gpu 0 ")


def test_a_run_is_compared_with_none_that_came_after_it(root: Path) -> None:
    invent(root)
    first, second = sorted(
        mirror.run_id for mirror in Mirrors(root / ".train").all() if mirror.request.job
        == "category3" and mirror.ended
    )  # fmt: skip

    for run_id, labels in ((first, []), (second, ["best (2 of 5)"])):
        detail = look(root, run_id).detail
        assert detail is not None
        assert [curve.label for curve in detail.charts[0].curves][2:] == labels


def test_no_run_is_the_best_by_the_grade_of_another_grader(root: Path) -> None:
    invent(root)
    with Ledger.open(ledger_file()) as ledger:
        first, _ = ledger.verdicts(str(root), "category3")
        ledger.add(replace(first, id="v", points=5, versions=(("grader", "another"),)))
    detail = look(root).detail

    assert detail is not None
    assert detail.charts[0].curves[2].label == "best (3 of 5)"


def test_a_run_that_was_never_sent_is_not_preferred_to_the_last(root: Path) -> None:
    invent(root)
    mirrors = Mirrors(root / ".train")
    ended = [mirror for mirror in mirrors.all() if mirror.ended]
    request = RunRequest("category1-20200101-000000-beef", "category1", "0" * 64, "python", ())

    assert _chosen([mirrors.make(request), *ended], "") is ended[-1]


def test_an_exams_clock_session_and_advice_are_there(root: Path) -> None:
    invent(root)
    board = look(root)

    assert board.exam == "exam: 3 h 20 min left, 0 of 25 points handed in"
    assert board.advice.startswith("train submit category1 ")
    (session,) = board.sessions
    assert "of $5.00" in session
    assert session.startswith(f"{REMOTE}: session mock: ")


def test_an_exam_hides_what_it_hides_elsewhere(root: Path) -> None:
    invent(root, practice=False)
    board = look(root)

    assert [view.points for view in board.categories][:3] == ["5 of 5", "4 of 5", "3 of 5"]
    assert "accuracy" not in " ".join(view.metric for view in board.categories)
    assert "accuracy 0.98" not in str(board)


def test_what_was_heard_of_a_run_is_told_to_the_ledger_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invent(root)
    told: list[str] = []
    with watching(root) as found:
        monkeypatch.setattr(
            found._desk.trip, "record_events", lambda mirror: told.append(mirror.run_id)
        )
        found.board()
        before = len(told)
        found.board()
        mirror = Mirrors(root / ".train").get(last_run(root, "category3"))
        assert mirror is not None
        assert mirror.seen is not None
        mirror.see(mirror.seen.report._replace(stamp="2"), "b")
        found.board()

    assert told[before:] == [mirror.run_id]


def test_models_are_not_read_again_while_nothing_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invent(root)
    with watching(root) as found:
        for _ in range(3):  # the first ones tell the ledger what they saw
            found.board()
        monkeypatch.setattr(found._desk, "shown", lambda standings: pytest.fail("read again"))
        found.board()
        (root / "category4" / "mymodel.h5").write_text("a model from elsewhere")
        with pytest.raises(pytest.fail.Exception):
            found.board()


def test_a_machine_that_is_not_reached_is_told_with_what_is_known(root: Path) -> None:
    invent(root)
    with watching(root) as found:
        wait_until(lambda: [r for r in found.board().remotes if r.trouble], "the trouble")
        (remote,) = found.board().remotes

    assert remote.text.startswith(f"{REMOTE}: not heard of yet; ")


def test_a_workspace_without_runs_has_its_categories(root: Path) -> None:
    invent(root)
    for folder in (root / ".train" / "runs").iterdir():
        folder.rename(root / folder.name)
    board = look(root)

    assert len(board.categories) == 5
    assert board.detail is None
    assert board.remotes == ()


def test_a_request_that_cannot_be_read_hides_no_other_run(root: Path) -> None:
    invent(root)
    folder = root / ".train" / "runs" / last_run(root, "category4")
    (folder / "request.json").write_bytes(b"{")

    assert len(look(root).runs) == 6


def test_a_config_that_breaks_meanwhile_is_told_and_what_was_seen_stays() -> None:
    board = Board("exam", (), ())

    class Broken:
        looks = 0

        def board(self, chosen: str = "") -> Board:
            self.looks += 1
            if self.looks == 2:
                raise ConfigError("train.yaml:3: no such thing")
            return board

    @contextmanager
    def opened() -> Iterator[Broken]:
        yield Broken()

    with Gathering(opened, pace_s=0.2) as found:
        wait_until(lambda: found.board and found.board.trouble, "the trouble")
        wait_until(lambda: found.board is board, "it is well again")


def test_lines_go_on_while_a_config_is_broken(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        looks = 0

        def board(self, chosen: str = "") -> Board:
            self.looks += 1
            if self.looks == 20:
                raise LedgerDamaged("so that it ends")
            if self.looks > 1:
                raise ConfigError("train.yaml:3: no such thing")
            return Board("exam", (), ())

    @contextmanager
    def opened(*_: object) -> Iterator[Broken]:
        yield Broken()

    monkeypatch.setattr(command, "_watching", opened)
    monkeypatch.setattr(gathering, "PACE_S", 0.02)
    monkeypatch.setattr(Gathering.__init__, "__defaults__", (0.02,))
    invent(root)
    with pytest.raises(LedgerDamaged):
        command._print_lines(load_workspace(root), "")

    assert capsys.readouterr().out == "not up to date: train.yaml:3: no such thing\n"


def test_a_damaged_ledger_ends_the_view_so_that_it_can_be_made_again() -> None:
    class Damaged:
        looks = 0

        def board(self, chosen: str = "") -> Board:
            self.looks += 1
            if self.looks == 2:
                raise LedgerDamaged("the ledger makes no sense")
            return Board("exam", (), ())

    @contextmanager
    def opened() -> Iterator[Damaged]:
        yield Damaged()

    with pytest.raises(LedgerDamaged), Gathering(opened, 0.05) as found:
        wait_until(lambda: found.has_ended, "it has ended")
