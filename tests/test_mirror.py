"""Runs on the laptop: those whose result the user has not had are found among however many."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.plan import make_run_id
from orchestrator.records.mirror import Mirror, Mirrors, readable
from orchestrator.screen.tell import Silence
from remote.protocol import RunReport
from remote.runfolder import RunRequest, RunState, State

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    return Mirrors(tmp_path / "an 'exam'\n試験" / ".train")


def made(mirrors: Mirrors, job: str, minute: int, token: str = "0000") -> Mirror:
    run_id = make_run_id(job, NOON + timedelta(minutes=minute), token)
    mirror = mirrors.make(RunRequest(run_id, job, "0" * 64, "true"))
    moment = (NOON + timedelta(minutes=minute)).timestamp()
    os.utime(mirror.folder / "request.json", (moment, moment))
    return mirror


def index(mirrors: Mirrors) -> Path:
    return mirrors.folder.parent / "settled"


def test_without_runs_there_is_nothing_to_find(mirrors: Mirrors) -> None:
    assert mirrors.unsettled() == mirrors.latest(10) == mirrors.all() == ()
    assert list(mirrors.begun("")) == []
    assert not index(mirrors).exists()


def test_a_run_is_unsettled_until_the_user_has_had_its_result(mirrors: Mirrors) -> None:
    one, other = made(mirrors, "a", 0), made(mirrors, "b", 1)
    assert mirrors.unsettled() == (one, other)

    one.settle()
    assert mirrors.unsettled() == (other,)
    assert mirrors.unsettled() == (other,)
    assert index(mirrors).read_text() == f"\n{one.run_id}\n"
    assert mirrors.all() == (one, other)


def test_a_run_known_to_be_settled_is_not_looked_into_again(mirrors: Mirrors) -> None:
    run = made(mirrors, "a", 0)
    run.settle()
    mirrors.unsettled()
    (run.folder / "settled").unlink()

    assert mirrors.unsettled() == ()


@pytest.mark.parametrize("content", [None, b"", b"a-2026", b"\xff\xfe\x00", b"\n" * 9, b"other\n"])
def test_a_list_that_is_missing_cut_or_damaged_is_made_good(
    mirrors: Mirrors, content: bytes | None
) -> None:
    """As an older trainshed left it, or a crash, or a hand."""
    settled, unsettled = made(mirrors, "a", 0), made(mirrors, "a", 1)
    settled.settle()
    if content is not None:
        index(mirrors).write_bytes(content)

    for _ in range(2):
        assert mirrors.unsettled() == (unsettled,)
    unsettled.settle()
    assert mirrors.unsettled() == ()


def test_a_list_that_cannot_be_written_hides_nothing(mirrors: Mirrors) -> None:
    made(mirrors, "a", 0).settle()
    other = made(mirrors, "a", 1)
    index(mirrors).mkdir()

    assert mirrors.unsettled() == (other,)


def test_what_is_no_run_or_was_never_whole_is_passed_over(mirrors: Mirrors) -> None:
    run = made(mirrors, "a", 0)
    (mirrors.folder / "a-20260801-120100-0000").mkdir()  # a crash before its request was there
    (mirrors.folder / "-rf *").mkdir()
    (mirrors.folder / ".tmp-1").touch()

    assert mirrors.unsettled() == mirrors.latest(10) == mirrors.all() == (run,)
    assert list(mirrors.begun("")) == [run]


def test_a_folder_left_without_its_request_is_taken_and_one_with_it_is_not(
    mirrors: Mirrors,
) -> None:
    request = RunRequest("a-20260101-000000-0001", "a", "0" * 64, "true")
    (mirrors.folder / request.run_id).mkdir(parents=True)

    assert mirrors.make(request).request == request
    with pytest.raises(FileExistsError):
        mirrors.make(request)


def test_the_latest_are_the_last_of_all_jobs_in_the_order_they_were_made(mirrors: Mirrors) -> None:
    runs = [made(mirrors, job, minute) for minute, job in enumerate("zaybxc")]

    assert mirrors.latest(3) == tuple(runs[-3:])
    assert mirrors.latest(99) == tuple(runs)


def test_of_runs_of_one_second_the_files_tell_which_came_last(mirrors: Mirrors) -> None:
    runs = [made(mirrors, "a", 0, token) for token in ("ffff", "0000", "7777")]
    for number, run in enumerate(runs):
        os.utime(run.folder / "request.json", (number, number))

    assert mirrors.latest(2) == tuple(runs[1:])
    later = made(mirrors, "a", 1, "0000")
    assert list(mirrors.begun("a")) == [later, *reversed(runs)]


def test_runs_are_found_by_the_beginning_of_their_ids_the_last_first(mirrors: Mirrors) -> None:
    first, last = made(mirrors, "a-b", 0), made(mirrors, "a-b", 1)
    made(mirrors, "b", 2)

    assert list(mirrors.begun("a-")) == [last, first]
    assert mirrors.get(first.run_id) == first
    assert mirrors.get("a") is None


def test_a_request_nobody_can_read_is_told_and_left_out(mirrors: Mirrors) -> None:
    told = []

    class Listener(Silence):
        def warn(self, text: str) -> None:
            told.append(text)

    good, bad = made(mirrors, "a", 0), made(mirrors, "b", 1)
    (bad.folder / "request.json").write_bytes(b"\xff{")

    assert readable(mirrors.all(), Listener()) == (good,)
    assert [text.partition(" cannot")[0] for text in told] == [str(bad.folder / "request.json")]


@pytest.mark.parametrize(
    ("state", "alive", "goes_on"),
    [
        (None, True, True),
        (State.RUNNING, True, True),
        (State.RUNNING, False, False),
        (State.SUCCEEDED, False, False),
    ],
)
def test_what_a_vm_told_says_whether_a_run_goes_on(
    mirrors: Mirrors, state: State | None, *, alive: bool, goes_on: bool
) -> None:
    run = made(mirrors, "a", 0)
    assert not run.goes_on, "no VM has spoken of it"

    stands = None if state is None else RunState(state, "2026-08-01T12:00:00Z")
    run.see(RunReport(run.run_id, "a", alive, "1", stands), "boot")
    assert run.goes_on is goes_on
    assert run.ended is not goes_on
