"""The VM's own TensorBoard on the laptop, over a real sshd, with the real TensorBoard."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.settings.spec import EnvSpec
from remote.processes import Process, parse_stat
from tests.boards import OWN, add, board
from tests.laptop import LIMIT_S, Laptop, make_laptop, wait_until
from tests.servers import SshServer

pytestmark = [
    pytest.mark.sshd,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed"
    ),
]

DONE = "open('two/done.txt', 'w')\n"


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, openssh_server: SshServer) -> Laptop:
    """One run has written event files by itself, and is home without them; another was on a machine
    whose Python has no TensorBoard."""
    folder = tmp_path_factory.mktemp("laptop")
    (folder / "tensorboard.py").write_text("raise ImportError('not here')\n")
    (folder / "python").write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    laptop = make_laptop(folder, None)
    laptop.add_remote(openssh_server, env=EnvSpec(sys.executable))
    laptop.add_remote(openssh_server, "bare", env=EnvSpec(str(folder / "python")))
    for remote, name, script in (("vm", "one", OWN), ("bare", "two", DONE)):
        add(laptop, name, script)
        laptop.ok(name, "--remote", remote)
    return laptop


@pytest.fixture(scope="module")
def run_id(laptop: Laptop) -> str:
    """Of the one with event files."""
    return next(run_id for run_id in laptop.states() if run_id.startswith("one-"))


def boards(run_id: str) -> Iterator[tuple[Process, Path]]:
    """The processes there that show a run, and the folder of each."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            folder = Path(os.fsdecode((place / "cmdline").read_bytes().split(b"\0")[-2:][0]))
            if folder.name.startswith("trainshed-board-") and (folder / "events" / run_id).exists():
                yield parse_stat((place / "stat").read_bytes()), folder


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended may wait for somebody to take leave of it."""
    try:
        return not parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).ended
    except OSError:
        return False


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def listeners() -> set[int]:
    """The ports of 127.0.0.1 where somebody listens."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(words[1].partition(":")[2], 16) for words in lines if words[3] == "0A"}


def test_curves_are_shown_from_there_and_by_their_secret_path_only(
    laptop: Laptop, run_id: str, openssh_server: SshServer
) -> None:
    with board(laptop, "--on-remote", "one") as shown:
        wait_until(lambda: shown.steps(f"{run_id}/logs/mine", "loss") == [7], "its curve")
        assert not (laptop.root / ".train" / "runs" / run_id / "events").exists()

        run = openssh_server.home / ".trainshed" / "runs" / run_id
        written = next((run / "tree").glob("logs/mine/*tfevents*"))
        (run / "events" / "fit-1").mkdir(parents=True)
        shutil.copy(written, run / "events" / "fit-1")
        wait_until(lambda: f"{run_id}/fit-1" in shown.runs(), "what has come since")

        secret = urlsplit(shown.address).path
        ((process, folder),) = boards(run_id)
        assert len(secret) > 32
        assert status(shown.address) == 200
        assert status(shown.address.replace(secret, "/")) == 404
        assert status(shown.address.replace(secret, "/" + "0" * 32 + "/data/runs")) == 404
        # What every user of the machine can read.
        assert folder.stat().st_mode & 0o77 == 0
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                assert secret.strip("/").encode() not in place.read_bytes()
        for info in Path(tempfile.gettempdir(), ".tensorboard-info").glob("*"):
            assert secret.strip("/") not in info.read_text()

    wait_until(lambda: not is_alive(process.pid), "it ends with the command")
    assert not folder.exists()


@pytest.mark.parametrize("victim", ["the agent", "TensorBoard"])
def test_it_ends_with_the_agent_however_that_ends_and_the_command_says_so(
    laptop: Laptop, run_id: str, victim: str
) -> None:
    with laptop.start("tensorboard", "--on-remote", "--no-browser", "one") as command:
        assert command.stdout is not None
        address = command.stdout.readline().strip()
        wait_until(lambda: any(boards(run_id)), "it has come up")
        ((process, folder),) = boards(run_id)

        os.kill(process.parent if victim == "the agent" else process.pid, signal.SIGKILL)
        _, said = command.communicate(timeout=LIMIT_S)

    if victim == "the agent":
        assert command.returncode == 4
        assert "the connection to vm" in said
        wait_until(lambda: not is_alive(process.pid), "TensorBoard ends")
        assert not folder.exists()
    else:
        assert command.returncode == 5
        assert "TensorBoard has ended there" in said
    assert "Traceback" not in said
    assert urlsplit(address).port not in listeners()
    shutil.rmtree(folder, ignore_errors=True)


def test_without_tensorboard_there_it_says_how_to_install_it(laptop: Laptop) -> None:
    python = laptop.home.with_name("python")
    before = set(Path(tempfile.gettempdir()).glob("trainshed-board-*"))

    done = laptop.train("tensorboard", "--on-remote", "two")

    assert done.returncode == 5
    assert done.stdout == ""
    assert f"bare: TensorBoard does not start with {python}: ImportError: not here" in done.stderr
    assert f"{python} -m pip install tensorboard" in done.stderr
    assert set(Path(tempfile.gettempdir()).glob("trainshed-board-*")) <= before


def test_runs_of_several_machines_are_not_shown_at_once(laptop: Laptop) -> None:
    done = laptop.train("tensorboard", "--on-remote")

    assert done.returncode == 2
    assert "the runs are on several machines: bare, vm" in done.stderr
    assert done.stdout == ""
