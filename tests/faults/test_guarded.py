"""The guard against a machine that reboots and a run that does not listen; slow by nature."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.machine import Machine, off_within, wait_for_state
from tests.faults.points import tell
from tests.test_guard import PYTHON
from tests.vm import wait_until

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        "TRAINSHED_FAULT_POINTS" not in os.environ, reason="takes a minute: `make faults`"
    ),
]


def test_a_run_that_does_not_end_does_not_keep_it_up(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", PYTHON)
    run = machine.submit("trap '' TERM; while :; do sleep 0.1; done", grace_s=600.0)
    wait_for_state(run, "running")
    machine.keep_until_off(paid_s=2.0)
    # Its own 20 s for saving, as the rules say.
    took_s = off_within(machine, 40)
    assert took_s < 30
    (stop,) = machine.guard.read_stops()
    assert stop.why == "the budget's end"


def test_cron_starts_it_after_a_reboot_and_it_still_stops_at_the_end(tmp_path: Path) -> None:
    with Machine(tmp_path / "machine", PYTHON, cron=True) as machine:
        theirs = machine.start(["crontab", "-"])
        theirs.communicate(b"# mine\n0 5 * * * true # with 100%\n")
        kept = machine.keep_until_off(ends_in_s=2.0, idle_s=500.0)
        assert kept.fragile == ""
        crontab = machine.folder / "crontabs" / "root"
        machine.keep_until_off(ends_in_s=2.0, idle_s=500.0)
        # Once, below three lines of crontab's own and the user's two.
        lines = crontab.read_text().splitlines()
        assert lines[3:5] == ["# mine", "0 5 * * * true # with 100%"]
        assert [line.partition(" /")[0] for line in lines[5:]] == ["@reboot", "*/5 * * * *"]
        machine.switch_off()
        machine.boot()
        wait_until(lambda: len(machine.guards()) == 1, "cron has started it")
        # The grace after a boot.
        took_s = off_within(machine, 60)
        assert took_s < 45
        (stop,) = machine.guard.read_stops()
        assert stop.why == "the session's end"
        machine.boot()
        machine.let_go()
        assert crontab.read_text().splitlines()[3:] == lines[3:5]
    tell("reboot of a guarded machine", 1, "cron starts the guard, which stops it at the end")
