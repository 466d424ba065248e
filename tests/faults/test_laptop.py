"""The user's end: a lid that is shut, Ctrl-C once and twice, a terminal that is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from orchestrator.connection.ssh import SILENCE_LIMIT_S
from tests.faults.line import DOWN, UP, Fault, FaultyLine, Kind, Way
from tests.faults.points import chosen, only_in_faults, tell
from tests.faults.scene import run_module, set_up, train_until_done
from tests.faults.truth import Scene
from tests.laptop import LIMIT_S, SCRIPT, TRAIN, Finished, Laptop, is_awaited, wait_until
from tests.servers import SshServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

TWICE = f"{signal.SIGINT.value},{signal.SIGINT.value}"
INTERRUPTED = 130


def struck(
    laptop: Laptop, step: int, signals: str, count: Path, words: Sequence[str] = ("--remote", "far")
) -> Finished:
    """A command that is sent these signals before its step-th effect."""
    return run_module(laptop, "struck", str(step), signals, str(count), *words)


def test_ctrl_c_twice_at_any_step_ends_without_a_traceback_and_without_harm(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    laptop, _ = set_up(tmp_path / "whole", embedded_server, embedded_server.port)
    count = tmp_path / "count"
    assert struck(laptop, sys.maxsize, TWICE, count).returncode == 0
    steps = chosen(range(int(count.read_text())), few=5)
    for step in steps:
        laptop, scene = set_up(tmp_path / str(step), embedded_server, embedded_server.port)
        done = struck(laptop, step, TWICE, count)
        assert done.returncode in (0, INTERRUPTED), f"{step}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{step}: {done.stderr}"
        assert scene.lies() == [], step
        train_until_done(laptop)
        assert scene.lies_when_done() == [], step
    tell("Ctrl-C twice", len(steps), "it ends at once, and the same command goes on")


def test_ctrl_c_that_is_held_down_ends_without_a_traceback(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    laptop, _ = set_up(tmp_path, embedded_server, embedded_server.port)
    laptop.add_job("b", script=SCRIPT)
    with laptop.start("b", "--remote", "far", "-p", f"until={go}") as process:
        wait_until(lambda: is_awaited(go), "the script")
        while process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
        said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in said
    go.touch()
    assert "succeeded" in laptop.ok("attach", "b").stderr


def ended(laptop: Laptop, scene: Scene) -> None:
    """A run has ended on the VM, and the laptop has not heard of it."""
    laptop.ok("--remote", "far", "--detach")
    wait_until(
        lambda: bool(list(scene.store.glob("runs/*-*/artifacts.json"))), "the end of the run"
    )


def endless(laptop: Laptop, scene: Scene) -> None:
    """A run goes on."""
    never = laptop.home / "never"
    laptop.add_job("b", script=SCRIPT)
    laptop.ok("b", "--remote", "far", "--detach", "-p", f"until={never}")
    wait_until(lambda: is_awaited(never), "the script")


@pytest.mark.parametrize(
    "signals",
    [str(signal.SIGKILL.value), pytest.param(TWICE, marks=only_in_faults)],
    ids=["SIGKILL", "twice"],
)
@pytest.mark.parametrize(("before", "words"), [(ended, ("pull",)), (endless, ("cancel", "b"))])
def test_other_commands_that_write_are_killed_at_any_step(
    embedded_server: SshServer,
    tmp_path: Path,
    before: Callable[[Laptop, Scene], None],
    words: tuple[str, ...],
    signals: str,
) -> None:
    count = tmp_path / "count"
    laptop, scene = set_up(tmp_path / "whole", embedded_server, embedded_server.port)
    before(laptop, scene)
    assert struck(laptop, sys.maxsize, signals, count, words).returncode == 0
    steps = chosen(range(int(count.read_text())), few=2)
    for step in steps:
        laptop, scene = set_up(tmp_path / str(step), embedded_server, embedded_server.port)
        before(laptop, scene)
        done = struck(laptop, step, signals, count, words)
        assert done.returncode in (0, INTERRUPTED, -signal.SIGKILL), f"{step}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{step}: {done.stderr}"
        assert scene.lies() == [], step
        laptop.ok(*words)
        assert set(laptop.states().values()) <= {"succeeded", "cancelled"}
        assert scene.lies_when_done() == [], step
    name = "Ctrl-C twice" if signals == TWICE else "SIGKILL"
    tell(f"{name} in train {words[0]}", len(steps), "the same command goes on")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_follower_that_is_told_to_end_leaves_the_run_alone(
    embedded_server: SshServer, tmp_path: Path, number: signal.Signals
) -> None:
    go = tmp_path / "go"
    laptop, scene = set_up(tmp_path, embedded_server, embedded_server.port)
    laptop.add_job("b", script=SCRIPT)
    with laptop.start("b", "--remote", "far", "-p", f"until={go}") as process:
        wait_until(lambda: is_awaited(go), "the script")
        os.kill(process.pid, number)
        said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == -number
    assert "Traceback" not in said
    go.touch()
    assert "succeeded" in laptop.ok("attach", "b").stderr
    assert scene.lies() == []


def test_ctrl_c_while_a_run_is_cancelled_does_not_say_that_it_goes_on(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    stubborn = f"""
import pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path({str(asked)!r}).touch())
pathlib.Path({str(asked)!r} + ".ready").touch()
while True:
    time.sleep(0.01)
"""
    laptop, scene = set_up(tmp_path, embedded_server, embedded_server.port)
    laptop.add_job("b", script=stubborn)
    laptop.ok("b", "--remote", "far", "--detach")
    wait_until(asked.with_name("asked.ready").exists, "the script")
    with laptop.start("cancel", "b") as process:
        wait_until(asked.exists, "the warning")
        time.sleep(0.2)  # until the answer is there
        os.kill(process.pid, signal.SIGINT)
        said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == INTERRUPTED
    assert "detached" not in said
    assert "goes on" not in said
    assert "was asked to end, and may save before it does\n  train status" in said
    assert "cancelled" in laptop.ok("cancel", "b").stdout
    assert scene.lies() == []


def test_a_terminal_that_is_closed_leaves_the_run_alone_and_no_process_behind(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    laptop, scene = set_up(tmp_path, embedded_server, embedded_server.port)
    laptop.add_job("b", script=SCRIPT)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(laptop.root)
        words = ("b", "--remote", "far", "-p", f"until={go}")
        os.execve(TRAIN[0], [*TRAIN, *words], laptop.environment({"TERM": "xterm"}))
    wait_until(lambda: is_awaited(go), "the script")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGHUP
    wait_until(lambda: not of(laptop), "the end of all processes of the laptop")
    go.touch()
    assert "succeeded" in laptop.ok("attach", "b").stderr
    assert scene.lies() == []
    tell("the terminal is closed", 1, "the run goes on; train attach")


def of(laptop: Laptop) -> list[int]:
    """The processes that have this laptop's home."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"TRAINSHED_HOME={laptop.home}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def asleep(process: subprocess.Popen[str], rest_s: float) -> Callable[[], Callable[[], object]]:
    """The lid is shut; it is opened after a while."""

    def stop() -> Callable[[], object]:
        os.kill(process.pid, signal.SIGSTOP)

        def wake() -> None:
            time.sleep(rest_s)
            os.kill(process.pid, signal.SIGCONT)

        return wake

    return stop


@pytest.mark.parametrize("way", [pytest.param(UP, marks=only_in_faults), DOWN])
def test_a_laptop_that_sleeps_while_its_line_is_given_up_goes_on(
    embedded_server: SshServer, tmp_path: Path, way: Way
) -> None:
    with FaultyLine(embedded_server.port) as line:
        laptop, _ = set_up(tmp_path / "whole", embedded_server, line.port)
        train_until_done(laptop)
        offsets = chosen(range(line.passed[way]), few=3)
        for offset in offsets:
            laptop, scene = set_up(tmp_path / str(offset), embedded_server, line.port)
            with laptop.start("--remote", "far") as process:
                line.arm(Fault("cut", way, offset, asleep(process, 0.5)))
                said = process.communicate(timeout=LIMIT_S)[1]
            line.arm(None)
            assert process.returncode in (0, 3, 4), said
            assert "Traceback" not in said, said
            assert scene.lies() == [], offset
            if process.returncode:
                train_until_done(laptop)
            assert scene.lies_when_done() == [], offset
            assert len(list(scene.store.glob("runs/*-*"))) == 1, offset
    tell(f"asleep while the line is cut, {way}wards", len(offsets), "it goes on, or exit code 4")


@only_in_faults
@pytest.mark.parametrize("meanwhile", ["kept", "cut", "stall"])
def test_a_follower_that_slept_longer_than_a_line_may_be_silent_follows_on(
    embedded_server: SshServer, tmp_path: Path, meanwhile: Kind | Literal["kept"]
) -> None:
    go = tmp_path / "go"
    with FaultyLine(embedded_server.port) as line:
        laptop, scene = set_up(tmp_path, embedded_server, line.port)
        laptop.add_job("b", script=SCRIPT)
        with laptop.start("b", "--remote", "far", "-p", f"until={go}") as process:
            wait_until(lambda: is_awaited(go), "the script")
            os.kill(process.pid, signal.SIGSTOP)
            if meanwhile != "kept":
                line.arm(Fault(meanwhile, DOWN, 0))
                wait_until(lambda: line.has_struck, "the fault")
            time.sleep(SILENCE_LIMIT_S + 2.0)
            os.kill(process.pid, signal.SIGCONT)
            # Only when it is awake can it take part in the end.
            time.sleep(SILENCE_LIMIT_S + 2.0 if meanwhile == "stall" else 2.0)
            go.touch()
            said = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 0, said
    assert ("connected to far again" in said) == (meanwhile != "kept"), said
    assert "succeeded" in said
    assert said.count("told") == 1
    assert scene.lies_when_done() == []
    tell(f"asleep for {SILENCE_LIMIT_S + 2:g} s, the line {meanwhile}", 1, "it follows on")
