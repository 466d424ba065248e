"""The first command in one flight: the same answers, fewer waits, and never a second start."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.connection import ssh
from orchestrator.connection.flight import WINDOW_BYTES
from orchestrator.connection.ssh import Channel, Connection, connect
from orchestrator.connection.way import FILE_NAME, LOGIN, PLAIN, WHOLE, Memory, Way
from orchestrator.errors import (
    ConnectError,
    ConnectionLost,
    HostKeyChanged,
    LoginRefused,
    TrainshedError,
)
from tests.servers import HOST, Relay, SshServer, make_key, openssh
from tests.test_ssh import (
    Answers,
    _no_thread_is_left,  # noqa: F401  # a fixture for all tests here
    agent,  # noqa: F401  # a fixture
    read_all,
    run,
    stanza,
)

MIB = 2**20
FIRST = os.urandom(100_000)


@dataclass(frozen=True)
class Guest:
    """One who has been let in before, the plain way.

    Attributes:
        known_hosts: beside it is what is remembered.
        ran: on the server; each run of `leave_a_line` adds a line to it.
    """

    server: SshServer
    known_hosts: Path

    def connect(self, **changes: object) -> Connection:
        destination = replace(self.server.destination, **changes)  # type: ignore[arg-type]
        return connect(destination, asker=None, known_hosts=self.known_hosts)

    @property
    def memory(self) -> Memory:
        destination = f"{self.server.user}@{HOST}:{self.server.port}"
        return Memory(self.known_hosts.with_name(FILE_NAME), destination)

    @property
    def way(self) -> Way:
        way = self.memory.recall()
        assert way is not None
        return way

    def expect(self, **changes: object) -> None:
        """Make the memory a wrong one."""
        self.memory.keep(self.way._replace(**changes))  # type: ignore[arg-type]

    @property
    def ran(self) -> Path:
        # Its own for each test: what a lost line leaves behind may still be starting.
        return self.server.home / f"ran-{self.known_hosts.parent.name}"

    @property
    def leave_a_line(self) -> str:
        return f"echo x >> {self.ran.name}"

    def starts(self) -> int:
        """How often the command was started; only a lost connection may leave that open."""
        return len(self.ran.read_text().splitlines()) if self.ran.exists() else 0

    def runs_once(self, **changes: object) -> None:
        """A command is run once, takes all its input and answers."""
        self.ran.unlink(missing_ok=True)
        with self.connect(**changes) as connection:
            channel = connection.execute(f"{self.leave_a_line}; cat", FIRST)
            channel.close_write()
            assert read_all(channel) == FIRST
            assert channel.exit_status() == 0
            assert run(connection, "cat", FIRST) == (0, FIRST)
        assert self.ran.read_text() == "x\n"


@contextmanager
def returning(server: SshServer, folder: Path) -> Iterator[Guest]:
    """A guest who comes again, for whom flights have found their length."""
    guest = Guest(server, server.trusted(folder))
    guest.runs_once()
    guest.runs_once()
    yield guest


@pytest.fixture
def guest(server: SshServer, tmp_path: Path) -> Iterator[Guest]:
    with returning(server, tmp_path) as guest:
        yield guest


@pytest.fixture
def sshd_guest(openssh_server: SshServer, tmp_path: Path) -> Iterator[Guest]:
    with returning(openssh_server, tmp_path) as guest:
        yield guest


def send(channel: Channel, data: bytes) -> None:
    channel.write(data)
    channel.close_write()


def flew(connection: Connection) -> bool:
    """Whether the connection's first command goes the remembered way to its end."""
    before = connection._transports[-1]
    assert not before.is_authenticated()
    connection.execute("true")
    return connection._transports[-1] is before


# Servers that grant it.


def test_one_who_returns_is_logged_in_with_the_first_command(guest: Guest) -> None:
    for _ in range(2):
        with guest.connect() as connection:
            assert flew(connection)
        guest.runs_once()


@pytest.mark.parametrize("size", [0, 1, 40_000, 5 * MIB])
def test_the_start_of_the_input_arrives_whole_and_in_order(guest: Guest, size: int) -> None:
    first, rest = os.urandom(size), os.urandom(70_000)
    with guest.connect() as connection:
        channel = connection.execute("cat", first)
        writing = threading.Thread(target=send, args=(channel, rest))
        writing.start()
        assert read_all(channel) == first + rest
        writing.join()


def test_a_command_that_takes_no_input_says_how_it_ended(guest: Guest) -> None:
    with guest.connect() as connection:
        channel = connection.execute("no-such-python -c x", bytes(3 * MIB))

        assert channel.read(1) == b""
        assert channel.exit_status() == 127


def test_commands_started_at_once_wait_for_the_first(guest: Guest) -> None:
    answers: list[bytes] = []
    with guest.connect() as connection:

        def ask(number: int) -> None:
            answers.append(connection.execute(f"echo {number}").read(10))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [b"%d\n" % number for number in range(5)]


def turns(server: SshServer, known_hosts: Path) -> int:
    """How often the client spoke and then waited, until its first command answered.

    A relay lets the client speak until it falls silent, and only then the server.
    """
    quiet_s = 0.25
    count, done = 0, threading.Event()

    def relay() -> None:
        nonlocal count
        near = listener.accept()[0]
        far = socket.create_connection((HOST, server.port))
        with near, far, suppress(OSError):
            while not done.is_set():
                readable = select.select([near, far], [], [], 0.05)[0]
                if near in readable:
                    while select.select([near], [], [], quiet_s)[0]:
                        far.sendall(near.recv(MIB) or b"")
                        if done.is_set():
                            return
                    count += 1
                elif far in readable:
                    near.sendall(far.recv(MIB))

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=relay)
        thread.start()
        port = listener.getsockname()[1]
        known_hosts.write_text(server.known_hosts.read_text().replace(str(server.port), str(port)))
        ways = known_hosts.with_name(FILE_NAME)
        if ways.exists():
            (way,) = json.loads(ways.read_text()).values()
            ways.write_text(json.dumps({f"{server.user}@{HOST}:{port}": way}))
        with connect(
            replace(server.destination, port=port), asker=None, known_hosts=known_hosts
        ) as connection:
            assert len(connection.execute("cat", b"hello").read(5)) == 5
            result = count
        done.set()
        thread.join()
    return result


def test_a_known_openssh_server_is_waited_for_twice(
    openssh_server: SshServer, tmp_path: Path
) -> None:
    first = turns(openssh_server, tmp_path / "known_hosts")
    known = turns(openssh_server, tmp_path / "known_hosts")

    # Once for the host key, and once for the answer.
    assert (first > 5, known) == (True, 2)


def test_a_server_that_grants_less_is_still_waited_for_less_often(
    embedded_server: SshServer, tmp_path: Path
) -> None:
    first = turns(embedded_server, tmp_path / "known_hosts")
    known = turns(embedded_server, tmp_path / "known_hosts")

    # For the host key, the login, the channel and the command.
    assert (first > 5, known) == (True, 4)


@pytest.mark.usefixtures("agent")
def test_a_key_of_the_agent_flies(guest: Guest) -> None:
    with guest.connect(key=None) as connection:
        assert flew(connection)


def test_much_may_come_before_it_is_read(guest: Guest) -> None:
    with guest.connect() as connection:
        over = guest.server.home / "over"
        over.unlink(missing_ok=True)
        channel = connection.execute(f"head -c {WINDOW_BYTES} /dev/zero; echo over > over")
        deadline = time.monotonic() + 60
        while not over.exists():
            assert time.monotonic() < deadline, "the server waits for us to read"
            time.sleep(0.01)
        assert len(read_all(channel)) == WINDOW_BYTES
        over.unlink()


@pytest.mark.parametrize("size", [0, 100, 1_000_000])
def test_a_server_that_dismisses_a_flight_is_asked_for_less_and_runs_the_command_once(
    embedded_server: SshServer, tmp_path: Path, size: int
) -> None:
    with returning(embedded_server, tmp_path) as guest:
        assert guest.way.ahead == LOGIN
        guest.expect(ahead=WHOLE)
        guest.ran.unlink(missing_ok=True)
        first = bytes(size)
        with guest.connect() as connection:
            try:
                channel = connection.execute(f"{guest.leave_a_line}; wc -c", first)
            except ConnectionLost:
                # Its last words may be lost when it hangs up on what it has not read.
                assert not guest.ran.exists()
            else:
                channel.close_write()
                assert int(read_all(channel)) == size
                assert guest.ran.read_text() == "x\n"
        assert guest.way.ahead == LOGIN
        guest.runs_once()


# Memories that are wrong.


@pytest.mark.parametrize(
    "wrong",
    [
        {"kex": "ecdh-sha2-nistp521"},
        {"kex": "diffie-hellman-group16-sha512"},
        {"kex": "diffie-hellman-group-exchange-sha256"},
        {"kex": "no such thing"},
        {"identity": "SHA256:nobody"},
        {"channel": 7},
        {"channel": 2**32 - 1},
        {"window": 0},
        {"window": 1000},
        {"packet": 4096},
        {"packet": 64},
        {"packet": 2**40},
        {"channel": -1},
        {"channel": 2**40},
        {"window": -1},
        {"ahead": PLAIN},
        {"ahead": LOGIN},
        {"ahead": 99},
    ],
    ids=str,
)
def test_a_wrong_memory_costs_the_plain_way_and_is_put_right(
    guest: Guest, wrong: dict[str, object]
) -> None:
    right = guest.way
    guest.expect(**wrong)

    try:
        guest.runs_once()
    except ConnectionLost:
        # A server says why it hangs up on a channel it does not know; a reset may lose its words.
        assert "channel" in wrong
        guest.runs_once()

    if "identity" not in wrong and "ahead" not in wrong:
        assert guest.way.kex == right.kex
    guest.runs_once()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe", b"[" * 100_000, b'{"%s": {"kex": 3}}', b"null"],
)
def test_a_damaged_memory_is_none(guest: Guest, content: bytes) -> None:
    guest.memory.file.write_bytes(content.replace(b"%s", guest.memory.route.encode()))

    assert guest.memory.recall() is None
    guest.runs_once()
    assert guest.memory.recall() is not None


def test_a_memory_that_cannot_be_written_is_done_without(server: SshServer, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    guest = Guest(server, server.trusted(tmp_path))

    guest.runs_once()
    guest.runs_once()

    assert guest.memory.recall() is None


def test_a_server_that_takes_less_than_it_did_is_a_lost_connection_and_no_second_start(
    sshd_guest: Guest,
) -> None:
    sshd_guest.ran.unlink(missing_ok=True)
    sshd_guest.expect(window=100 * MIB)
    with sshd_guest.connect() as connection, pytest.raises(ConnectionLost):
        connection.execute(f"{sshd_guest.leave_a_line}; exec sleep 1", bytes(3 * MIB))

    assert sshd_guest.starts() <= 1
    assert sshd_guest.way.ahead == LOGIN


# Servers that refuse it.


def test_a_key_that_is_no_longer_let_in_is_refused_by_the_first_command(guest: Guest) -> None:
    stranger = make_key(guest.known_hosts.with_name("stranger"))
    guest.expect(identity=fingerprint(stranger), ahead=WHOLE)
    guest.ran.unlink(missing_ok=True)

    with guest.connect(key=str(stranger)) as connection:
        with pytest.raises(LoginRefused, match="no key is accepted") as caught:
            connection.execute(guest.leave_a_line)
        assert caught.value.cause == f"tried: {stranger}"
        with pytest.raises(ConnectionLost):
            connection.execute(guest.leave_a_line)
    assert not guest.ran.exists()


def test_another_key_is_found_when_the_remembered_one_is_refused(
    guest: Guest, ssh_config: Path
) -> None:
    stranger = make_key(guest.known_hosts.with_name("stranger"))
    right = guest.way.identity
    guest.expect(identity=fingerprint(stranger))
    ssh_config.write_text(
        stanza(HOST, guest.server, f'IdentityFile "{stranger}"') + ssh_config.read_text()
    )

    guest.runs_once(key=None)

    assert guest.way.identity == right


def test_a_locked_key_is_asked_for_by_the_first_command_and_once(guest: Guest) -> None:
    locked = guest.known_hosts.with_name("locked")
    locked.write_bytes(guest.server.key.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-a", "1", "-N", "open", "-f", locked], check=True)
    destination, asker = (
        replace(guest.server.destination, key=str(locked)),
        Answers(passphrases=("open",)),
    )

    with connect(destination, asker=asker, known_hosts=guest.known_hosts) as connection:
        assert asker.asked == []
        assert run(connection, "cat", b"x") == (0, b"x")
    assert asker.asked == [str(locked)]

    with (
        guest.connect(key=str(locked)) as connection,
        pytest.raises(ConnectError, match="no usable key"),
    ):
        connection.execute("true")


def test_a_changed_host_key_is_refused_before_the_login(guest: Guest) -> None:
    other = make_key(guest.known_hosts.with_name("other")).with_suffix(".pub").read_text()
    kind, key, _ = other.split()
    guest.known_hosts.write_text(f"[{HOST}]:{guest.server.port} {kind} {key}\n")

    with pytest.raises(HostKeyChanged):
        guest.connect()


@contextmanager
def strict(guest: Guest, folder: Path, settings: str) -> Iterator[Guest]:
    """Another sshd, where `guest` expects what he knows of his own."""
    with openssh(folder / "strict", settings) as server:
        other = Guest(server, server.trusted(folder))
        identity = fingerprint(server.key)
        other.memory.keep(guest.way._replace(identity=identity, ahead=WHOLE))
        yield other


@pytest.mark.sshd
@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ("MaxSessions 0", ConnectError, "opens no further channel"),
        ("AuthenticationMethods publickey,publickey", LoginRefused, "wants more than a key"),
        ("PubkeyAuthentication no\nPasswordAuthentication yes", LoginRefused, "takes no keys"),
        ("MaxAuthTries 1\nAuthorizedKeysFile none", LoginRefused, "cannot log in"),
    ],
)
def test_a_server_with_less_to_give_says_so_as_on_the_plain_way(
    sshd_guest: Guest, tmp_path: Path, settings: str, error: type[ConnectError], words: str
) -> None:
    def refusal(other: Guest) -> TrainshedError:
        with other.connect() as connection, pytest.raises(TrainshedError) as raised:
            connection.execute(other.leave_a_line, FIRST)
        return raised.value

    with strict(sshd_guest, tmp_path, settings) as other:
        # A server that closes with our words unread may take back its own that were on their way.
        told = (refusal(other) for _ in range(5))
        found = next(each for each in told if not isinstance(each, ConnectionLost))
    assert isinstance(found, error)
    assert words in str(found)
    assert not other.ran.exists()


@pytest.mark.sshd
def test_a_forced_command_is_run_once(sshd_guest: Guest, tmp_path: Path) -> None:
    forced = 'ForceCommand echo x >> "$HOME/forced"; cat'
    with strict(sshd_guest, tmp_path, forced) as other, other.connect() as connection:
        channel = connection.execute("anything", FIRST)
        channel.close_write()

        assert read_all(channel) == FIRST
        assert (other.server.home / "forced").read_text() == "x\n"


@pytest.mark.sshd
def test_a_server_with_other_key_exchanges_than_last_time_is_reached(
    sshd_guest: Guest, tmp_path: Path
) -> None:
    with strict(sshd_guest, tmp_path, "KexAlgorithms ecdh-sha2-nistp384") as other:
        other.runs_once()
        assert other.way.kex == "ecdh-sha2-nistp384"
        other.runs_once()


@pytest.mark.sshd
def test_a_server_that_wants_to_speak_first_is_remembered_as_one(sshd_guest: Guest) -> None:
    with speaking_first(sshd_guest.server.port) as (port, offended):
        server = replace(sshd_guest.server, port=port)
        other = Guest(server, sshd_guest.known_hosts)
        text = sshd_guest.server.known_hosts.read_text()
        other.known_hosts.write_text(text.replace(str(sshd_guest.server.port), str(port)))
        other.memory.keep(sshd_guest.way)

        other.runs_once()
        assert (other.way.kex, len(offended)) == ("", 1)
        other.runs_once()
        assert len(offended) == 1


@contextmanager
def speaking_first(target: int) -> Iterator[tuple[int, list[bytes]]]:
    """A port whose server hangs up on a client that says more than its version at first."""
    offended: list[bytes] = []
    with Relay(target) as relay, socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    near = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=guard, args=(near,)).start()

        def guard(near: socket.socket) -> None:
            with near, closing(socket.create_connection((HOST, relay.port))) as far:
                time.sleep(0.1)
                words = near.recv(MIB)
                if not words.endswith(b"\r\n"):
                    offended.append(words)
                    near.sendall(b"SSH-2.0-offended\r\n")
                    return
                far.sendall(words)
                while True:
                    for source in select.select([near, far], [], [])[0]:
                        try:
                            if not (data := source.recv(MIB)):
                                return
                            (far if source is near else near).sendall(data)
                        except OSError:
                            return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], offended
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# Lost lines.


@contextmanager
def behind(guest: Guest, relay: Relay) -> Iterator[Guest]:
    """The guest at the other end of a relay."""
    other = Guest(replace(guest.server, port=relay.port), guest.known_hosts.with_name("relayed"))
    text = guest.server.known_hosts.read_text()
    other.known_hosts.write_text(text.replace(str(guest.server.port), str(relay.port)))
    other.memory.keep(guest.way)
    yield other


@pytest.mark.parametrize("size", [1, 500, 5_000, 50_000, 101_000])
def test_a_line_cut_in_the_flight_is_lost_and_nothing_is_started_twice(
    guest: Guest, size: int
) -> None:
    with Relay(guest.server.port) as relay, behind(guest, relay) as other:
        other.ran.unlink(missing_ok=True)
        with other.connect() as connection:
            relay.cut_after(size)
            with pytest.raises(ConnectionLost):  # noqa: PT012  # by the one or the other
                channel = connection.execute(f"{other.leave_a_line}; cat", FIRST)
                read_all(channel)
        assert other.starts() <= 1
    guest.memory.keep(other.way)
    guest.runs_once()


def test_a_flight_into_a_dead_line_ends_in_time_and_is_not_repeated(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "LOGIN_LIMIT_S", 0.5)
    with Relay(guest.server.port) as relay, behind(guest, relay) as other:
        with other.connect() as connection:
            relay.freeze()
            started = time.monotonic()
            with pytest.raises(ConnectionLost):
                connection.execute("true", FIRST)
            assert time.monotonic() - started < 10
        assert other.way.ahead == max(guest.way.ahead - 1, PLAIN)


def fingerprint(key: Path) -> str:
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key], capture_output=True, text=True)
    return shown.stdout.split()[1]
