"""Any process is killed at any step; the same command again finishes the job."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engines import Engine
from tests.faults.points import chosen, tell
from tests.faults.scene import run_module, set_up, set_up_on, train_until_done
from tests.faults.truth import Scene
from tests.faults.vm import processes
from tests.laptop import LIMIT_S, Finished, Laptop, wait_until
from tests.servers import SshServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def struck(laptop: Laptop, step: int, number: int, count: Path) -> Finished:
    """`train --remote far`, sent a signal before its step-th effect."""
    return run_module(laptop, "struck", str(step), str(number), str(count), "--remote", "far")


def effects(laptop: Laptop, _: Scene) -> range:
    """The steps of a command that nobody strikes."""
    count = laptop.home / "count"
    done = struck(laptop, sys.maxsize, signal.SIGKILL, count)
    assert done.returncode == 0, done.stderr
    return range(int(count.read_text()))


def test_a_command_that_is_killed_at_any_step(engine: Engine, tmp_path: Path) -> None:
    steps = chosen(effects(*set_up_on(engine, tmp_path / "whole")), engine.few)
    for step in steps:
        laptop, scene = set_up_on(engine, tmp_path / str(step))
        done = struck(laptop, step, signal.SIGKILL, tmp_path / "count")
        # Progress is told by the clock, so the last steps are not always reached.
        assert done.returncode in (-signal.SIGKILL, 0), step
        assert scene.lies() == [], step
        train_until_done(laptop)
        assert scene.lies_when_done() == [], step
        # Once it has told the result, the same command means another run.
        runs = len(scene.found("runs/*-*"))
        assert runs == 1 or (runs == 2 and "mymodel.h5" in done.stdout), step
    tell("SIGKILL of the command", len(steps), "the same command finishes the one run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_asked_to_end_at_any_step(
    embedded_server: SshServer, tmp_path: Path, number: signal.Signals
) -> None:
    whole = set_up(tmp_path / "whole", embedded_server, embedded_server.port)
    steps = chosen(effects(*whole), few=3)
    for step in steps:
        laptop, scene = set_up(tmp_path / str(step), embedded_server, embedded_server.port)
        done = struck(laptop, step, number, tmp_path / "count")
        assert done.returncode in (0, 130, -number), f"{step}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{step}: {done.stderr}"
        assert scene.lies() == [], step
        train_until_done(laptop)
        assert scene.lies_when_done() == [], step
    tell(f"{number.name} to the command", len(steps), "it ends, and the same command goes on")


# What stands in the command line of each process of ours on the VM.
AGENT, SUPERVISOR, JOB = "exec(zlib", "remote.zip", "a/job.py"


def kill_one(home: Path, word: str, delay_s: float) -> None:
    """So long after the first such process is there, all of them are killed."""
    wait_until(lambda: bool(processes(home, word)), word)
    time.sleep(delay_s)
    for pid in processes(home, word):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


DELAYS_S = [0.02 * n for n in range(25)]


def test_an_agent_that_is_killed_at_any_moment(embedded_server: SshServer, tmp_path: Path) -> None:
    delays = chosen(DELAYS_S, few=3)
    for delay_s in delays:
        folder = tmp_path / f"{delay_s:.2f}"
        laptop, scene = set_up(folder, embedded_server, embedded_server.port)
        with laptop.start("--remote", "far") as process:
            kill_one(scene.home, AGENT, delay_s)
            said = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode in (0, 4), said
        train_until_done(laptop)
        assert scene.lies_when_done() == [], delay_s
    tell("SIGKILL of the agent", len(delays), "the follower comes back, or the command does")


@pytest.mark.parametrize("word", [SUPERVISOR, JOB])
def test_a_run_that_is_killed_at_any_moment_is_told_and_leaves_nobody(
    embedded_server: SshServer, tmp_path: Path, word: str
) -> None:
    delays = chosen([delay_s for delay_s in DELAYS_S if delay_s < 0.2], few=3)
    for delay_s in delays:
        folder = tmp_path / f"{delay_s:.2f}"
        laptop, scene = set_up(folder, embedded_server, embedded_server.port)
        with laptop.start("--remote", "far") as process:
            kill_one(scene.home, word, delay_s)
            said = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode in (0, 1), said
        wait_until(lambda: not processes(scene.home, ".trainshed"), "the end of all of it")  # noqa: B023
        assert scene.lies() == [], delay_s
        train_until_done(laptop)
        assert scene.lies() == [], delay_s
    tell(f"SIGKILL of {word}", len(delays), "told as lost or failed; nobody is left behind")
