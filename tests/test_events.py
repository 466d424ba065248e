"""What a VM tells of a run, as facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.records.events import run_events
from orchestrator.records.ledger import Reporter
from orchestrator.records.mirror import LOST, Seen, age
from remote.protocol import RunReport
from remote.runfolder import Attempt, RunState, State

SUBMITTED = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
REPORTED = SUBMITTED + timedelta(hours=2)


def text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def seen(state: RunState | None, *, alive: bool = False, off_s: float = 0.0) -> Seen:
    report = RunReport("a-1", "a", alive, "stamp", state)
    return Seen(report, text(REPORTED), "boot", off_s)


def ended(start: datetime, end: datetime) -> RunState:
    return RunState(
        State.SUCCEEDED,
        queued_at=text(start),
        setting_up_at=text(start),
        running_at=text(start),
        ended_at=text(end),
        exit_code=0,
    )


def moments(found: Seen, last_use_at: str | None = None) -> dict[str, datetime]:
    return {event.state: event.at for event in run_events("a-1", found, SUBMITTED, last_use_at)}


def test_a_vms_times_are_kept_where_its_clock_is_right() -> None:
    start, end = SUBMITTED + timedelta(minutes=1), SUBMITTED + timedelta(minutes=31)

    found = moments(seen(ended(start, end)))

    assert found["setting-up"] == start
    assert found["succeeded"] == end


def test_a_reason_that_no_file_could_hold_is_kept_as_far_as_it_can_be() -> None:
    state = ended(SUBMITTED, REPORTED)._replace(reason="\ud800\x1b[2Jgone" + "x" * 10**6)
    reason = run_events("a-1", seen(state), SUBMITTED, None)[-1].reason
    assert reason.startswith(r"\ud800gonexxx")
    assert len(reason) == 10_000


@pytest.mark.parametrize("off_s", [3600.0, -3600.0, 86400.0])
def test_a_clock_that_is_off_is_put_right(off_s: float) -> None:
    start, end = SUBMITTED + timedelta(minutes=1), SUBMITTED + timedelta(minutes=31)
    off = timedelta(seconds=off_s)

    found = moments(seen(ended(start + off, end + off), off_s=off_s))

    assert found["setting-up"] == start
    assert found["succeeded"] == end


@pytest.mark.parametrize("off_s", [0.0, 1e9, -1e9])
def test_no_lie_about_time_makes_a_run_longer_than_it_can_have_been(off_s: float) -> None:
    year_1, year_9999 = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)

    found = moments(seen(ended(year_1, year_9999), off_s=off_s))

    assert all(SUBMITTED <= at <= REPORTED for at in found.values())


def test_a_laptop_whose_clock_was_put_back_since_it_sent_a_run_counts_the_vms_time() -> None:
    start, end = SUBMITTED + timedelta(minutes=1), SUBMITTED + timedelta(minutes=31)
    back_s = 86400.0
    told = seen(ended(start, end), off_s=back_s)
    told = told._replace(at=text(REPORTED - timedelta(seconds=back_s)))
    found = moments(told)
    assert found["setting-up"] == SUBMITTED
    assert found["succeeded"] - found["setting-up"] == end - start


def test_a_lost_run_ended_with_its_last_sample_of_use() -> None:
    start = SUBMITTED + timedelta(minutes=1)
    state = RunState(State.RUNNING, queued_at=text(start), running_at=text(start))
    last = SUBMITTED + timedelta(minutes=40)

    assert moments(seen(state), text(last))[LOST] == last
    assert moments(seen(state))[LOST] == REPORTED
    assert LOST not in moments(seen(state, alive=True), text(last))


@pytest.mark.parametrize("off_s", [0.0, 86400.0, -86400.0])
def test_a_lost_run_of_which_no_use_is_known_lasted_until_it_was_missed(off_s: float) -> None:
    at = text(SUBMITTED + timedelta(seconds=off_s))
    state = RunState(State.SETTING_UP, queued_at=at, setting_up_at=at)
    assert moments(seen(state, off_s=off_s))[LOST] == REPORTED


def test_what_the_laptop_concludes_is_marked_as_its_own() -> None:
    (lost,) = run_events("a-1", seen(None), SUBMITTED, None)

    assert (lost.state, lost.source) == (LOST, Reporter.LAPTOP)
    assert lost.reason


def test_a_run_that_was_restarted_stood_still_between_its_attempts() -> None:
    def at(minutes: int) -> str:
        return text(SUBMITTED + timedelta(minutes=minutes))

    earlier = (
        Attempt(at(10), setting_up_at=at(1), running_at=at(2)),
        Attempt(at(21)),  # it only waited for its turn
        Attempt(at(40), setting_up_at=at(30)),
    )
    state = RunState(State.QUEUED, at(0), restarts=3, earlier=earlier)

    still = moments(seen(state, alive=True))
    on = moments(seen(state._replace(state=State.RUNNING, setting_up_at=at(50)), alive=True))

    assert {name: text(when) for name, when in still.items()} == {
        "queued": at(0),
        "setting-up": at(1),
        "running": at(2),
        "interrupted-1": at(10),
        "resumed-1": at(30),
        "interrupted-3": at(40),
    }
    assert on.keys() - still.keys() == {"resumed-3"}


def test_what_the_vm_said_in_the_future_it_said_now() -> None:
    assert age(datetime(2999, 1, 1, tzinfo=UTC)) == 0
