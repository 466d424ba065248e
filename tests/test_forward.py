"""A port of the VM's on the laptop: bytes through SSH, whatever either end and the line do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator.connection.forward import forwarded
from orchestrator.connection.ssh import Connection, connect
from orchestrator.errors import ConnectError
from tests.servers import HOST, Relay, SshServer, free_port, openssh

LARGE = bytes(range(256)) * 4096


@contextmanager
def logged_in(server: SshServer, folder: Path, port: int = 0) -> Iterator[Connection]:
    destination = replace(server.destination, port=port or server.port)
    known_hosts = server.trusted(folder)
    text = known_hosts.read_text()
    known_hosts.write_text(text.replace(f":{server.port} ", f":{destination.port} "))
    with connect(destination, asker=None, known_hosts=known_hosts) as connection:
        connection.execute("true").close()
        yield connection


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where each that connects is answered, in a thread of its own."""
    threads: list[threading.Thread] = []

    def accept(listener: socket.socket) -> None:
        while True:
            line, _ = listener.accept()
            if not threads:
                line.close()
                return
            threads.append(threading.Thread(target=serve, args=(line,)))
            threads[-1].start()

    def serve(line: socket.socket) -> None:
        with line:
            answer(line)

    with socket.create_server((HOST, 0)) as listener:
        threads.append(threading.Thread(target=accept, args=(listener,)))
        threads[0].start()
        port = int(listener.getsockname()[1])
        try:
            yield port
        finally:
            accepting, *serving = threads
            threads.clear()
            socket.create_connection((HOST, port)).close()
            for thread in (accepting, *serving):
                thread.join(10)
                assert not thread.is_alive()


def read_all(line: socket.socket) -> bytes:
    return b"".join(iter(partial(line.recv, 2**16), b""))


def turn_round(line: socket.socket) -> None:
    """All that came, backwards, when the other end has said that it is all."""
    line.sendall(read_all(line)[::-1])


def greet(line: socket.socket) -> None:
    line.sendall(b"hello")
    read_all(line)


def test_many_at_once_and_each_end_may_be_done_first(server: SshServer, tmp_path: Path) -> None:
    came: dict[int, bytes] = {}

    def ask(port: int, number: int) -> None:
        with socket.create_connection((HOST, port)) as line:
            line.sendall(bytes([number]) + LARGE)
            line.shutdown(socket.SHUT_WR)
            came[number] = read_all(line)

    with (
        listening(turn_round) as there,
        logged_in(server, tmp_path) as connection,
        forwarded(partial(connection.open_port, there)) as here,
    ):
        asking = [threading.Thread(target=ask, args=(here, number)) for number in range(12)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()

    assert came == {number: LARGE[::-1] + bytes([number]) for number in range(12)}
    assert not [thread for thread in threading.enumerate() if "forward" in thread.name]


def test_what_the_vm_has_said_comes_whole_when_it_hangs_up(
    server: SshServer, tmp_path: Path
) -> None:
    with (
        listening(lambda line: line.sendall(LARGE)) as there,
        logged_in(server, tmp_path) as connection,
        forwarded(partial(connection.open_port, there)) as here,
        socket.create_connection((HOST, here)) as line,
    ):
        assert read_all(line) == LARGE


def test_where_nobody_listens_it_is_told_and_others_are_not_disturbed(
    server: SshServer, tmp_path: Path
) -> None:
    with logged_in(server, tmp_path) as connection:
        nobody = free_port()
        with pytest.raises(ConnectError, match=f"opens no way to its port {nobody}"):
            connection.open_port(nobody)
        with (
            forwarded(partial(connection.open_port, nobody)) as here,
            socket.create_connection((HOST, here)) as line,
        ):
            assert read_all(line) == b""
        assert connection.execute("echo still here").read(100) == b"still here\n"


@pytest.mark.parametrize("lose", [Relay.cut, Relay.freeze], ids=["cut", "frozen"])
def test_the_end_leaves_no_connection_open_whatever_the_line_does(
    server: SshServer, tmp_path: Path, lose: Callable[[Relay], None]
) -> None:
    with (
        listening(greet) as there,
        Relay(server.port) as relay,
        logged_in(server, tmp_path, relay.port) as connection,
    ):
        with forwarded(partial(connection.open_port, there)) as here:
            line = socket.create_connection((HOST, here))
            assert line.recv(5) == b"hello"
            lose(relay)
        with line:
            assert read_all(line) == b""
        assert not [thread for thread in threading.enumerate() if "forward" in thread.name]
        relay.cut()


@pytest.mark.sshd
def test_a_server_that_forwards_nothing_says_what_to_allow(tmp_path: Path) -> None:
    with (
        openssh(tmp_path / "sshd", "AllowTcpForwarding no") as server,
        listening(turn_round) as there,
        logged_in(server, tmp_path) as connection,
        pytest.raises(ConnectError) as raised,
    ):
        connection.open_port(there)

    assert "AllowTcpForwarding" in raised.value.fix
