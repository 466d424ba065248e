"""Machines that the user's own command lines start, and those nothing starts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.clouds.owncommand import Command, Nothing
from orchestrator.clouds.power import Machine, Power
from orchestrator.errors import CloudError, CloudRefused


def command(status: str = "echo running", start: str = "true", stop: str = "true") -> Command:
    return Command("gpu-1", start, stop, status, limits_s=(5.0, 1.0))


@pytest.mark.parametrize("power", list(Power))
def test_a_status_is_a_word_of_ours(power: Power) -> None:
    assert command(f"echo {power}").describe() == Machine(power, reason=str(power))


def test_the_last_line_counts_and_may_tell_an_address() -> None:
    found = command("echo asking...; echo; echo running 203.0.113.7; echo").describe()

    assert (found.power, found.address) == (Power.RUNNING, "203.0.113.7")


@pytest.mark.parametrize("line", ["echo RUNNING", "echo", "echo 'is running'", "echo on >&2"])
def test_anything_else_is_unknown_and_said(line: str) -> None:
    found = command(line).describe()

    assert found.power is Power.UNKNOWN
    assert "expected one of unknown, starting, running" in found.reason


@pytest.mark.parametrize("address", ["-oProxyCommand=x", "a;b", "$(x)", "'a\x07b'"])
def test_an_address_that_ssh_could_misread_is_not_taken(address: str) -> None:
    found = command(f"printf '%s\\n' 'running {address}'").describe()

    assert (found.power, found.address) == (Power.RUNNING, "")
    assert "is no address" in found.reason


def test_lines_are_the_shells_and_know_the_remote(tmp_path: Path) -> None:
    file = tmp_path / "a b"
    command(start=f'printf "it\'s %s" "$TRAINSHED_REMOTE" > "{file}"').start()

    assert file.read_text() == "it's gpu-1"


def test_a_line_that_asks_gets_no_answer_from_our_own_input() -> None:
    code = """
from orchestrator.clouds.owncommand import Command
print(Command("gpu-1", "true", "true", "read word; echo $word").describe().power)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        input="running\n",
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "unknown\n"


def test_a_failure_is_told_with_the_last_line_and_without_the_command() -> None:
    failing = command("exit 3", stop="K=hunter2; echo one >&2; echo no such machine >&2; exit 7")

    with pytest.raises(CloudRefused) as refused:
        failing.stop()

    assert str(refused.value) == "the stop command of gpu-1 ended with exit code 7"
    assert (refused.value.code, refused.value.cause) == ("7", "no such machine")
    assert "hunter2" not in refused.value.render()
    with pytest.raises(CloudRefused, match="the status command of gpu-1 ended with exit code 3"):
        failing.describe()


def test_a_command_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    started = time.monotonic()

    with pytest.raises(CloudError, match="the status command of gpu-1 was stopped") as failed:
        command(
            f"(while :; do date > {alive}; sleep 0.05; done) & sleep 60; echo running"
        ).describe()

    assert not isinstance(failed.value, CloudRefused)
    assert time.monotonic() - started < 30
    alive.unlink()
    time.sleep(0.3)
    assert not alive.exists()


def test_what_goes_on_in_the_background_is_not_waited_for() -> None:
    started = time.monotonic()

    command(start="sleep 20 & echo begun").start()

    assert time.monotonic() - started < 10


def test_endless_output_is_bounded() -> None:
    with pytest.raises(CloudError, match="was stopped") as failed:
        Command("gpu-1", "true", "true", "yes running", limits_s=(60, 60)).describe()

    assert "wrote without end" in failed.value.cause


def test_it_stops_itself_only_by_the_users_own_command() -> None:
    assert command().self_stop.how == ""
    own = Command("gpu-1", "true", "true", "true", "sudo poweroff").self_stop
    assert (own.how, dict(own.options)) == ("command", {"command": "sudo poweroff"})
    assert command().quote() is None


def test_nothing_is_started_where_there_is_no_provider() -> None:
    nothing = Nothing("gpu-1")

    assert nothing.describe().power is Power.UNKNOWN
    assert (nothing.self_stop.how, nothing.quote()) == ("", None)
    for order in (nothing.start, nothing.stop):
        with pytest.raises(CloudRefused, match="provider: none") as refused:
            order()
        assert "by hand" in refused.value.fix
