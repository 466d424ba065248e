"""The practice VM's own promises; what it shares with sshd is in test_ssh.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.connection.practicevm import _last_port
from orchestrator.connection.ssh import Destination, connect
from orchestrator.errors import LoginRefused
from tests.servers import START_LIMIT_S, SshServer, embedded, free_port, make_key

START = [sys.executable, "-m", "orchestrator.connection.practicevm"]


def test_uploads_are_whole_however_the_pipe_fills(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    known = embedded_server.trusted(tmp_path)
    with connect(embedded_server.destination, asker=None, known_hosts=known) as connection:
        for size in range(3_000_000, 3_030_000, 1_000):
            channel = connection.execute("wc -c")
            channel.write(bytes(size))
            channel.close_write()

            assert int(channel.read(100)) == size


def test_a_command_is_hung_up_when_its_connection_drops(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    known = embedded_server.trusted(tmp_path)
    with connect(embedded_server.destination, asker=None, known_hosts=known) as connection:
        pid = int(connection.execute("echo $$; exec sleep 1000").read(100))

    deadline = time.monotonic() + START_LIMIT_S
    while _runs(pid):
        assert time.monotonic() < deadline, "it is still running"
        time.sleep(0.01)


def test_the_host_key_and_the_client_key_outlive_a_restart(tmp_path: Path) -> None:
    with embedded(tmp_path / "vm") as first:
        before = first.known_hosts.read_text().split()[2], first.key.read_text()
    assert not (first.home / ".practice" / "ready.json").exists()

    process = subprocess.Popen([*START, first.home])
    try:
        facts = _ready(first.home, process)
        assert (str(facts["host_key"]).split()[2], Path(str(facts["key"])).read_text()) == before
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_LIMIT_S) == 0


def test_what_it_says_when_ready_is_enough_to_log_in(tmp_path: Path) -> None:
    home = tmp_path / 'it\'s\n"home"'
    process = subprocess.Popen([*START, home])
    try:
        facts = _ready(home, process)
        known = tmp_path / "known_hosts"
        known.write_text(f"{facts['host_key']}\n")
        where = Destination(
            "vm", "127.0.0.1", str(facts["user"]), int(str(facts["port"])), str(facts["key"])
        )
        with connect(where, asker=None, known_hosts=known) as connection:
            assert connection.execute("pwd").read(1000).decode() == f"{home}\n"
        assert facts["pid"] == process.pid
        for name in ("host_key", "client_key"):
            assert (home / ".practice" / name).stat().st_mode & 0o777 == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_LIMIT_S)


def test_a_second_one_on_the_same_home_is_refused(embedded_server: SshServer) -> None:
    ready = embedded_server.home / ".practice" / "ready.json"
    before = ready.read_text()

    second = subprocess.run([*START, embedded_server.home], capture_output=True, text=True)

    assert second.returncode != 0
    assert second.stderr == f"a practice VM already runs in {embedded_server.home}\n"
    assert ready.read_text() == before


def test_one_that_was_killed_leaves_no_lock_behind(tmp_path: Path) -> None:
    first = subprocess.Popen([*START, tmp_path])
    _ready(tmp_path, first)
    first.kill()
    first.wait()

    second = subprocess.Popen([*START, tmp_path])
    try:
        assert _ready(tmp_path, second)["pid"] == second.pid
    finally:
        second.send_signal(signal.SIGTERM)
        assert second.wait(START_LIMIT_S) == 0


def test_a_port_that_is_taken_ends_it_with_the_reason(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*START, tmp_path, "--port", str(embedded_server.port)], capture_output=True, text=True
    )

    assert done.returncode == 1
    assert done.stderr.startswith("the practice VM cannot listen: ")
    assert len(done.stderr.splitlines()) == 1


def test_it_has_the_port_and_the_key_of_the_last_time_again(tmp_path: Path) -> None:
    facts, said = _start_and_stop(tmp_path)
    assert said.startswith("it listens; in another terminal:\n  train remote add practice ")

    again, said = _start_and_stop(tmp_path)
    assert {**again, "pid": 0} == {**facts, "pid": 0}
    assert said.startswith(f"it listens at port {facts['port']} as before")
    assert "train remote add practice " in said


def test_its_remote_is_called_what_was_asked(tmp_path: Path) -> None:
    facts, said = _start_and_stop(tmp_path, "--name", "gpu2")
    assert said.startswith("it listens; in another terminal:\n  train remote add gpu2 ")

    with socket.create_server(("127.0.0.1", int(str(facts["port"])))):
        _, said = _start_and_stop(tmp_path, "--name", "gpu2")
    assert "\n  train remote set gpu2 --port " in said


def test_where_its_port_is_taken_it_takes_another_says_so_and_keeps_that(tmp_path: Path) -> None:
    port = int(str(_start_and_stop(tmp_path)[0]["port"]))
    with socket.create_server(("127.0.0.1", port)):
        other, said = _start_and_stop(tmp_path)
    assert other["port"] != port
    assert said.startswith(f"it listens at port {other['port']} now, not at {port} as before")
    assert f"\n  train remote set practice --port {other['port']} --accept-host-key SHA256:" in said

    assert _start_and_stop(tmp_path)[0]["port"] == other["port"]


def test_a_port_that_is_asked_for_is_taken_before_the_one_of_last_time(tmp_path: Path) -> None:
    _start_and_stop(tmp_path)
    asked = free_port()

    assert _start_and_stop(tmp_path, "--port", str(asked))[0]["port"] == asked
    assert _start_and_stop(tmp_path)[0]["port"] == asked


@pytest.mark.parametrize("kept", [b"", b"no number", b"\xff", b"0", b"-1", b"99999"])
def test_a_kept_port_that_makes_no_sense_is_forgotten(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / ".practice").mkdir()
    (tmp_path / ".practice" / "port").write_bytes(kept)

    assert _last_port(tmp_path / ".practice" / "port") == 0


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_what_is_no_port_is_refused_in_words(tmp_path: Path, port: str) -> None:
    done = subprocess.run([*START, tmp_path, "--port", port], capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr.endswith(f"--port takes a port from 1 to 65535, not {port}\n")


def test_stopping_it_ends_its_commands(tmp_path: Path) -> None:
    with embedded(tmp_path / "vm") as server:
        known = server.trusted(tmp_path)
        connection = connect(server.destination, asker=None, known_hosts=known)
        pid = int(connection.execute("echo $$; exec sleep 1000").read(100))
    connection.close()

    deadline = time.monotonic() + START_LIMIT_S
    while _runs(pid):
        assert time.monotonic() < deadline, "it is still running"
        time.sleep(0.01)


def test_no_other_key_and_no_other_user_is_let_in(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    known = embedded_server.trusted(tmp_path)
    stranger = make_key(tmp_path / "stranger")
    for user, key in (
        (embedded_server.user, stranger),
        ("root2", embedded_server.key),
    ):
        where = Destination("vm", embedded_server.host, user, embedded_server.port, str(key))
        with pytest.raises(LoginRefused):
            connect(where, asker=None, known_hosts=known)


def _start_and_stop(home: Path, *more: str) -> tuple[dict[str, object], str]:
    """Its ready.json and what it said."""
    process = subprocess.Popen([*START, home, *more], stderr=subprocess.PIPE)
    try:
        facts = _ready(home, process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=START_LIMIT_S)
    return facts, said.decode()


def _ready(home: Path, process: subprocess.Popen[bytes]) -> dict[str, object]:
    """What ready.json says once this process wrote it."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            facts: dict[str, object] = json.loads((home / ".practice" / "ready.json").read_text())
        except FileNotFoundError:
            facts = {}
        if facts.get("pid") == process.pid:
            return facts
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    """Whether a process is there and not only waiting for its parent to ask how it ended."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
