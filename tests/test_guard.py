"""A real guard over a real store, on a machine that is really off when it is off."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.vm.package import bootstrap_command, bootstrap_input
from remote import record
from remote.guard import Guard
from remote.guardfolder import Beat, GuardFolder, Terms, this_moment
from remote.guardrules import GOES_DOWN_S, Act, Count, Decision, Look, begin
from remote.keeper import on_s
from remote.presence import LiveRun
from remote.protocol import Boot, Hello, HowKept, Keep, Kept, ListRuns, No, Stop
from remote.runfolder import RunFolder
from tests.faults.machine import (
    Machine,
    off_within,
    packed,
    state_of,
    wait_for_state,
)
from tests.test_old_python import FOUND
from tests.vm import WAIT_LIMIT_S, wait_until

# The oldest that is promised, where it is here.
PYTHON = FOUND.get((3, 8), sys.executable)
SLOW_TO_SAVE = """
trap 'sleep 0.5; echo saved >saved; exit 3' TERM
while :; do sleep 0.05; done
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "machine", PYTHON) as machine:
        yield machine


def test_an_idle_machine_is_stopped_and_why_is_on_the_disk(machine: Machine) -> None:
    before_s = time.time()
    kept = machine.keep_until_off(idle_s=1.0)
    assert (kept.session, kept.trouble, kept.why) == ("s1", "", "idle for 1 s")
    assert kept.stops_at_s is not None
    assert before_s + 1 <= kept.stops_at_s <= time.time() + 1
    took_s = off_within(machine, 60)
    (stop,) = machine.guard.read_stops()
    assert (stop.session, stop.trouble) == ("s1", "")
    assert stop.why.startswith("idle for")
    assert took_s < 30


def test_a_run_keeps_it_up_and_the_end_warns_it_and_waits_until_it_has_saved(
    machine: Machine,
) -> None:
    run = machine.submit(SLOW_TO_SAVE, outputs=("saved",), grace_s=5.0)
    wait_for_state(run, "running")
    machine.keep_until_off(idle_s=0.5, ends_in_s=4.0)
    off_within(machine, 60)
    (stop,) = machine.guard.read_stops()
    assert stop.why == "the session's end"
    state = state_of(run)
    assert (state.state.value, state.reason) == (
        "failed",
        "the machine goes off: the session's end",
    )
    assert b'"saved"' in run.artifacts.read_bytes()


def blind_guard(tmp_path: Path) -> Guard:
    """One that was not started."""
    folder = GuardFolder(tmp_path / "guard")
    folder.path.mkdir()
    folder.package.touch()
    guard = Guard(folder)
    guard.count = begin(this_moment())
    guard.warned = set()
    return guard


def test_each_attempt_of_a_run_is_warned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = blind_guard(tmp_path)
    warned: list[int] = []
    monkeypatch.setattr("remote.guard.warn", lambda run, why: warned.append(run.attempt))
    run = LiveRun(RunFolder(tmp_path / "runs" / "run"), 35.0, can_hear=True)
    for attempt in (0, 0, 1, 1):
        guard._warn([run._replace(attempt=attempt)], "the end")
    assert warned == [0, 1]


def test_at_the_stop_a_run_that_has_saved_is_left_to_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = blind_guard(tmp_path)
    saved, deaf = (RunFolder(tmp_path / "runs" / name) for name in ("saved", "deaf"))
    living = [LiveRun(saved, 0.0, can_hear=False), LiveRun(deaf, 35.0, can_hear=False)]
    dismissed: list[RunFolder] = []
    monkeypatch.setattr(Guard, "_look", lambda self: (this_moment(), living))
    monkeypatch.setattr(Guard, "_write_beat", lambda *_: None)
    monkeypatch.setattr(Guard, "_stop", lambda *_: None)
    monkeypatch.setattr("remote.guard.decide", lambda *_: Decision(Act.STOP, "the end"))
    monkeypatch.setattr("remote.guard.dismiss", lambda run: dismissed.append(run.folder))
    guard.tick(Terms("1", Keep("s1"), this_moment()))
    assert dismissed == [deaf]


def test_the_night_after_its_own_stop_is_not_counted_as_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = blind_guard(tmp_path)
    folder, terms = guard.folder, Terms("1", Keep("s1"), Look("before", 0.0, 1e9))
    gone = Count("before", 500.0, 1e9 + 500, on_s=500.0)
    folder.terms.write_bytes(record.to_bytes(terms))
    folder.beat.write_bytes(record.to_bytes(Beat("1", gone)))
    folder.write_stops((Stop("s1", 1e9 + 500, "the session's end"),))
    up = Look("now", 20.0, 1e9 + 500 + 8 * 3600)
    assert on_s(folder, "s1", up) == 500 + GOES_DOWN_S + 20
    monkeypatch.setattr(Guard, "_look", lambda self: (up, []))
    monkeypatch.setattr(Guard, "_listen", lambda *_: None)
    guard._take_up(terms)
    guard.tick(terms)
    assert guard.count.on_s == 500 + GOES_DOWN_S + 20


def test_a_laptop_that_connects_gives_the_sign_that_keeps_it_up(machine: Machine) -> None:
    machine.keep_until_off(idle_s=12.0)
    before = machine.guard.laptop.stat().st_mtime_ns
    machine.ask(ListRuns())
    assert machine.guard.laptop.stat().st_mtime_ns > before
    assert machine.is_up


def test_two_who_ask_at_once_leave_one_guard_with_the_last_terms(machine: Machine) -> None:
    machine.ask()
    command = ["/bin/sh", "-c", bootstrap_command(machine.python)]
    asking = [machine.start(command, machine.folder) for _ in "12"]
    for number, process in enumerate(asking):
        assert process.stdin is not None
        call = packed(Keep("s1", ends_in_s=1000.0 + number))
        process.stdin.write(bootstrap_input() + call)
        process.stdin.flush()
    for process in asking:
        process.communicate(timeout=WAIT_LIMIT_S)
    wait_until(lambda: len(machine.guards()) == 1, "one is left")
    kept = machine.keep_until_off(ends_in_s=500.0)
    wait_until(lambda: len(machine.guards()) == 1, "one is left")
    assert kept.stops_at_s == pytest.approx(time.time() + 500, abs=60)


def test_a_killed_guard_is_back_with_the_next_connection_and_has_lost_nothing(
    machine: Machine,
) -> None:
    machine.keep_until_off(ends_in_s=500.0)
    wait_until(lambda: _passed_s(machine) > 0, "a first count")
    (pid,) = machine.guards()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: machine.guards() == [], "it is gone")
    # As if it had counted for so long.
    beat = machine.guard.read_beat()
    assert beat is not None
    counted = beat.counted._replace(passed_s=100.0, on_s=100.0)
    machine.guard.beat.write_bytes(record.to_bytes(beat._replace(counted=counted)))
    assert machine.answer(Kept, HowKept()).session == "s1"
    wait_until(lambda: len(machine.guards()) == 1, "it is back")
    wait_until(lambda: _passed_s(machine) > 100.0, "it counts on")


def test_it_is_let_go_by_its_own_session_only(machine: Machine) -> None:
    machine.keep_until_off(ends_in_s=500.0)
    no = record.decode(No, machine.let_go("another").head)
    assert no.code == "other-session"
    wait_until(lambda: len(machine.guards()) == 1, "one is left")
    machine.let_go()
    assert machine.guards() == []
    assert machine.answer(Kept, HowKept()) == Kept()
    machine.let_go()


def test_terms_that_are_asked_for_again_count_anew_and_the_session_goes_on(
    machine: Machine,
) -> None:
    machine.keep_until_off(ends_in_s=500.0)
    time.sleep(1.0)
    again = machine.keep_until_off(paid_s=300.0)
    assert again.on_s >= 1.0
    assert again.stops_at_s == pytest.approx(time.time() + 300, abs=60)
    asked_s = time.monotonic()
    assert machine.keep_until_off(session="s2", paid_s=300.0).on_s < time.monotonic() - asked_s


def test_a_machine_that_cannot_stop_itself_says_so_at_once_and_at_the_end(
    machine: Machine,
) -> None:
    kept = machine.keep(ends_in_s=1.0)
    assert kept.trouble == "it has no way to stop itself so that its cost ends"
    assert "after a reboot nobody starts the guard" in kept.fragile
    wait_until(lambda: machine.answer(Kept, HowKept()).stops, "the end")
    (stop,) = machine.answer(Kept, HowKept()).stops
    assert (stop.why, stop.trouble) == (
        "the session's end",
        "no way to stop itself is known for it",
    )
    assert machine.is_up


def test_where_the_machine_stays_on_a_run_that_may_restart_is_ended_for_good(
    machine: Machine,
) -> None:
    run = machine.submit(SLOW_TO_SAVE, outputs=("saved",), grace_s=5.0, restarts=3)
    wait_for_state(run, "running")
    machine.keep(ends_in_s=2.0)
    wait_for_state(run, "failed")
    assert state_of(run).reason == "the session's end: its time on this machine is over"
    assert b'"saved"' in run.artifacts.read_bytes()


def test_a_stop_that_was_accepted_and_does_nothing_is_told(machine: Machine) -> None:
    asked = machine.folder / "asked"
    machine.store.mkdir(exist_ok=True)
    options = (("command", f"echo asked >>'{asked}'; exit 7"),)
    machine.keep(ends_in_s=0.5, how="command", options=options)
    wait_until(lambda: any(s.trouble for s in machine.guard.read_stops()), "the trouble")
    (stop,) = machine.guard.read_stops()
    assert "ends with 7" in stop.trouble
    assert asked.read_text() == "asked\n"


def test_a_reboot_without_cron_or_systemd_is_made_good_by_the_next_connection(
    machine: Machine,
) -> None:
    machine.keep_until_off(ends_in_s=2.0)
    machine.switch_off()
    machine.boot()
    assert machine.guards() == []
    kept = machine.answer(Kept, HowKept())
    assert kept.session == "s1"
    wait_until(lambda: len(machine.guards()) == 1, "it is back")
    # Its end has come while it was off; there is time to ask for more, and to let go.
    time.sleep(3.0)
    assert machine.is_up
    machine.let_go()


def test_the_boots_before_this_one_are_told_to_whoever_connects(machine: Machine) -> None:
    assert hello(machine).boots == ()
    machine.keep_until_off(ends_in_s=500.0)
    assert hello(machine).boots == ()
    machine.switch_off()
    beat = machine.guard.read_beat()
    assert beat is not None
    machine.boot()
    boot = Boot(beat.counted.wall_s, beat.counted.mono_s, id=beat.counted.boot_id)
    # A guard that does not come back after a crash says nothing by its silence.
    fragile = machine.answer(Kept, HowKept()).fragile
    told = () if fragile else (boot,)
    # The first brings the guard back, whose own signs of life do not hide it.
    assert hello(machine).boots == told
    wait_until(lambda: machine.guard.read_beat() != beat, "its first sign of life")
    assert hello(machine).boots == told
    beat = machine.guard.read_beat()
    assert beat is not None
    assert beat.boots == (boot,)
    machine.let_go()
    # Let go, nobody knows how long it was on.
    assert hello(machine).boots == ()


def hello(machine: Machine) -> Hello:
    machine.ask()
    return machine.hello


def test_a_full_disk_does_not_keep_it_up(machine: Machine) -> None:
    folder = shlex.quote(str(machine.guard.path))
    small = machine.start(
        ["sh", "-ec", f"mkdir -p {folder}; mount -t tmpfs -o size=2m none {folder}"]
    )
    assert small.wait(10) == 0
    machine.keep_until_off(ends_in_s=3.0)
    assert machine.start(["sh", "-c", f"cat /dev/zero >{folder}/full"]).wait(10) != 0
    off_within(machine, 60)


def test_a_guard_of_another_version_makes_way_for_the_one_that_came_with_new_terms(
    machine: Machine,
) -> None:
    machine.keep_until_off(ends_in_s=500.0)
    machine.guard.package.write_bytes(machine.guard.package.read_bytes() + b"older")
    kept = machine.keep_until_off(ends_in_s=400.0)
    assert kept.trouble == ""
    assert b"starts anew" in machine.guard.log.read_bytes()
    wait_until(lambda: len(machine.guards()) == 1, "one is left")
    assert kept.stops_at_s == pytest.approx(time.time() + 400, abs=60)


def test_a_spoilt_sign_of_life_does_not_end_the_guarding(machine: Machine) -> None:
    machine.keep_until_off(ends_in_s=2.0)
    (pid,) = machine.guards()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: machine.guards() == [], "it is gone")
    machine.guard.beat.write_bytes(b'{"asked": "')
    machine.ask()
    off_within(machine, 60)


def _passed_s(machine: Machine) -> float:
    beat = machine.guard.read_beat()
    return beat.counted.passed_s if beat is not None else 0.0
