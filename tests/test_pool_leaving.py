"""How a pool's command ends before its work does: what it says, and that it ends at all."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.laptop import wait_until
from tests.pools import HASTY, LabPool, end_of
from tests.test_pool_gangs import add_gang, go
from tests.test_pool_sweep import Lab

pytestmark = [pytest.mark.sshd, pytest.mark.timeout(120)]

# Hosts that are still being sent what the runs need, and one that has no room for it.
SENDING = """\
from concurrent.futures import Future
from orchestrator.pools.sending import Sending
submit = Sending._submit
def begin(sending, host, snapshot, mirrors):
    is_late = any(mirror.run_id.endswith(LATE) for mirror in mirrors)
    return Future() if is_late else submit(sending, host, snapshot, mirrors)
Sending._submit = begin
"""
REFUSING = """\
from orchestrator.errors import Refused
from orchestrator.pools import sending
def submit(link, *_):
    raise Refused(f"{link.name}: no space left in its store", code="disk-full")
sending.submit = submit
"""


def with_hosts(monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    before, run = HASTY.rsplit("\n", 2)[:2]
    words = (sys.executable, "-P", "-c", f"{before}\n{more}{run}\n")
    monkeypatch.setattr("tests.laptop.TRAIN", words)


def test_while_nothing_has_got_there_ctrl_c_does_not_say_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_hosts(monkeypatch, f"LATE = ''\n{SENDING}")
    with LabPool(tmp_path, [1, 1]) as lab:
        sweep = Lab(lab)
        for words in (("a", "-r", "lab"), sweep.words("0.3", "0.4")):
            before = len(lab.mirrors)
            with lab.laptop.start(*words) as process:
                wait_until(lambda: len(lab.mirrors) > before, "a run")  # noqa: B023  # in this turn
                process.send_signal(signal.SIGINT)
                code, said = end_of(process)
            assert code == 130
            assert "interrupted; the same command goes on from there" in said
            assert "detached" not in said


def test_a_gang_that_not_all_hosts_got_is_told_so_and_attached_to_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LabPool(tmp_path, [1, 1]) as lab:
        add_gang(lab)
        with_hosts(monkeypatch, f"LATE = '.w1'\n{SENDING}")
        with lab.train("a", "-p", go(lab)) as process:
            wait_until(lambda: any(m.was_heard_of for m in lab.mirrors.values()), "its chief")
            process.send_signal(signal.SIGINT)
            code, said = end_of(process)
        assert code == 130
        assert "no host is known to have a" in said

        with_hosts(monkeypatch)
        with lab.laptop.start("attach", "a") as process:
            code, said = end_of(process)
        (chief,) = [run for run in lab.mirrors if "." not in run]
        assert code == 5
        assert f"error: {chief} does not go on: not all of its hosts took it" in said
        assert f"train cancel {chief}" in said


def test_where_one_host_refuses_and_the_other_is_away_it_ends_and_says_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_hosts(monkeypatch, REFUSING)
    with LabPool(tmp_path, [1, 1]) as lab:
        lab.add_jobs("a")
        lab.hosts[1].die()
        with lab.train() as process:
            code, said = end_of(process)
        assert code == 5
        assert "no host of lab takes these runs" in said
        assert "gpu0: no space left in its store" in said
        assert "gpu1: " in said


def test_who_closes_the_pipe_that_reads_a_command_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_hosts(monkeypatch)
    with LabPool(tmp_path, [1]) as lab:
        lab.add_jobs("a")
        with lab.train() as process:
            assert process.stderr is not None
            process.stderr.readline()
            process.stderr.close()
            wait_until(lambda: process.poll() is not None, "its end, since nobody reads it")
