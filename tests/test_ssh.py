"""The connection, against OpenSSH's sshd and the practice VM's server."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.connection import ssh
from orchestrator.connection.ssh import Channel, Connection, Destination, connect, host_key
from orchestrator.errors import (
    ConnectError,
    ConnectionLost,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    UsageError,
)
from tests.servers import HOST, Relay, SshServer, free_port, make_key

MIB = 2**20


class Answers:
    """An asker with fixed answers; remembers what was asked."""

    def __init__(self, *, trust: bool = False, passphrases: tuple[str | None, ...] = ()) -> None:
        self._trust = trust
        self._passphrases = list(passphrases)
        self.asked: list[str] = []

    def trust(self, host: str, key_type: str, fingerprint: str) -> bool:
        self.asked.append(f"{host} {key_type} {fingerprint}")
        return self._trust

    def passphrase(self, key: str) -> str | None:
        self.asked.append(key)
        return self._passphrases.pop(0)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 30
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.fixture
def connection(server: SshServer, tmp_path: Path) -> Iterator[Connection]:
    with connect(
        server.destination, asker=None, known_hosts=server.trusted(tmp_path)
    ) as connection:
        yield connection


def run(connection: Connection, command: str, stdin: bytes = b"") -> tuple[int | None, bytes]:
    """Exit status and stdout."""
    channel = connection.execute(command)

    def feed() -> None:
        channel.write(stdin)
        channel.close_write()

    feeding = threading.Thread(target=feed)
    feeding.start()
    output = read_all(channel)
    feeding.join()
    return channel.exit_status(), output


def read_all(channel: Channel) -> bytes:
    return b"".join(iter(lambda: channel.read(MIB), b""))


def wait_for_file(file: Path) -> str:
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{file} does not come"
        time.sleep(0.01)
    return file.read_text().strip()


# The contract: every server.


def test_a_command_sees_the_servers_home_as_home_and_working_folder(
    connection: Connection, server: SshServer
) -> None:
    _, output = run(connection, 'echo "$HOME"; pwd')

    assert output.decode().splitlines() == [str(server.home)] * 2


def test_five_megabytes_come_back_as_they_were_sent(connection: Connection) -> None:
    data = os.urandom(5 * MIB)

    assert run(connection, "cat", data) == (0, data)


def test_a_flood_of_stderr_does_not_hold_up_stdout(connection: Connection) -> None:
    channel = connection.execute(f"head -c {10 * MIB} /dev/zero >&2; echo last words >&2; echo out")

    assert channel.read(100) == b"out\n"
    assert channel.read(100) == b""
    assert channel.exit_status() == 0
    assert channel.stderr_tail().endswith(b"\0\0last words\n")
    assert len(channel.stderr_tail()) <= 64 * 1024


def test_stdout_is_whole_when_stderr_ends_first(connection: Connection) -> None:
    _, output = run(connection, f"exec 2>&-; head -c {8 * MIB} /dev/zero")

    assert len(output) == 8 * MIB


@pytest.mark.parametrize("status", [0, 1, 97, 255])
def test_the_exit_status_comes_back(connection: Connection, status: int) -> None:
    assert run(connection, f"exit {status}")[0] == status


def test_a_command_ended_by_a_signal_has_no_exit_status(connection: Connection) -> None:
    assert run(connection, "kill -KILL $$") == (None, b"")


def test_twenty_commands_run_side_by_side(connection: Connection) -> None:
    channels = [connection.execute("cat") for _ in range(20)]
    for number, channel in enumerate(channels):
        channel.write(b"%d" % number)
        channel.close_write()

    assert [channel.read(10) for channel in channels] == [b"%d" % n for n in range(20)]


@pytest.mark.parametrize(
    "word", ["it's", 'a "b" $HOME `c`', "line\nline", "é日本\U0001f600", "x" * 300]
)
def test_a_command_arrives_as_it_was_written(connection: Connection, word: str) -> None:
    quoted = word.replace("'", "'\\''")

    assert run(connection, f"printf %s '{quoted}'") == (0, word.encode())


def test_writing_to_a_command_that_ended_is_a_lost_connection(connection: Connection) -> None:
    channel = connection.execute("exec 0<&-; exit 3")

    with pytest.raises(ConnectionLost, match="takes no more input"):
        channel.write(bytes(50 * MIB))
    assert channel.exit_status() == 3


def test_a_closed_connection_runs_nothing_more(connection: Connection) -> None:
    channel = connection.execute("cat")
    connection.close()

    with pytest.raises(ConnectionLost):
        channel.read(1)
    with pytest.raises(ConnectionLost):
        channel.write(b"x")
    with pytest.raises(ConnectionLost):
        connection.execute("true")


def test_a_commands_input_ends_when_its_connection_drops(
    connection: Connection, server: SshServer
) -> None:
    for name in ("started", "over"):
        (server.home / name).unlink(missing_ok=True)
    connection.execute("trap '' HUP; echo yes > started; cat; echo yes > over")
    wait_for_file(server.home / "started")

    connection.close()

    assert wait_for_file(server.home / "over") == "yes"


def test_a_process_that_detached_itself_outlives_the_connection(
    connection: Connection, server: SshServer
) -> None:
    for name in ("go", "alive"):
        (server.home / name).unlink(missing_ok=True)
    waits = "while [ ! -e go ]; do sleep 0.02; done; echo yes > alive"
    run(connection, f"setsid sh -c '{waits}' < /dev/null > /dev/null 2>&1 &")
    connection.close()
    time.sleep(0.1)

    (server.home / "go").touch()

    assert wait_for_file(server.home / "alive") == "yes"


def test_giving_up_a_command_leaves_the_others_running(connection: Connection) -> None:
    talker, other = connection.execute("yes"), connection.execute("cat")
    talker.read(10)
    talker.close()

    other.write(b"still here")

    assert other.read(100) == b"still here"


# Lost lines.


@pytest.fixture
def relayed(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Connection, Relay]]:
    """A connection through a relay, and two seconds of patience."""
    with Relay(server.port) as relay:
        trusted = tmp_path / "known_hosts"
        trusted.write_text(
            server.known_hosts.read_text().replace(f":{server.port}", f":{relay.port}")
        )
        monkeypatch.setattr(ssh, "SILENCE_LIMIT_S", 2.0)
        destination = replace(server.destination, port=relay.port)
        with connect(destination, asker=None, known_hosts=trusted) as connection:
            yield connection, relay


def test_reading_from_a_dead_line_ends_in_time(relayed: tuple[Connection, Relay]) -> None:
    connection, relay = relayed
    channel = connection.execute("yes")
    channel.read(10)
    relay.freeze()
    started = time.monotonic()

    with pytest.raises(ConnectionLost, match=r"practice \(.*\): nothing came for 2 s"):
        read_all(channel)
    assert time.monotonic() - started < 10


def test_writing_to_a_dead_line_ends_in_time(relayed: tuple[Connection, Relay]) -> None:
    connection, relay = relayed
    channel = connection.execute("cat > /dev/null")
    relay.freeze()
    started = time.monotonic()

    with pytest.raises(ConnectionLost):
        channel.write(bytes(50 * MIB))
    assert time.monotonic() - started < 10


def test_starting_a_command_on_a_dead_line_ends_in_time(relayed: tuple[Connection, Relay]) -> None:
    connection, relay = relayed
    relay.freeze()
    started = time.monotonic()

    with pytest.raises(ConnectionLost):
        connection.execute("true")
    assert time.monotonic() - started < 10


def test_closing_a_dead_line_with_full_buffers_does_not_wait(
    relayed: tuple[Connection, Relay],
) -> None:
    connection, relay = relayed
    channel = connection.execute("cat > /dev/null")
    relay.freeze()
    with pytest.raises(ConnectionLost):
        channel.write(bytes(50 * MIB))
    started = time.monotonic()

    connection.close()

    assert time.monotonic() - started < 5


@pytest.mark.parametrize("size", [1, 1000, MIB])
def test_a_line_cut_in_the_middle_is_lost_and_not_an_end(
    relayed: tuple[Connection, Relay], size: int
) -> None:
    connection, relay = relayed
    channel = connection.execute("yes")
    relay.cut_after(size)

    with pytest.raises(ConnectionLost, match="the line broke"):
        read_all(channel)


def test_a_quiet_command_on_a_living_line_is_waited_for_while_it_is_not_asked(
    relayed: tuple[Connection, Relay],
) -> None:
    connection, _ = relayed
    channel = connection.execute("cat")
    time.sleep(2.5)

    channel.write(b"x")

    assert channel.read(1) == b"x"


# Not reached.


def destination(port: int, **changes: object) -> Destination:
    return replace(Destination("azure-k80", HOST, "ann", port), **changes)  # type: ignore[arg-type]


def refusal(destination: Destination, tmp_path: Path, timeout_s: float = 0.5) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        connect(destination, asker=None, known_hosts=tmp_path / "known_hosts", timeout_s=timeout_s)
    assert caught.value.fix
    return caught.value


@contextlib.contextmanager
def answering(*words: bytes, hang_up: bool = True) -> Iterator[int]:
    """A port where something says these words; not an SSH server."""
    done = threading.Event()
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as line, contextlib.suppress(OSError):
                for word in words:
                    line.sendall(word)
                    line.recv(4096)
                if not hang_up:
                    done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            thread.join()


def test_a_port_nobody_listens_on_is_refused(tmp_path: Path) -> None:
    port = free_port()

    error = refusal(destination(port), tmp_path)

    assert str(error) == f"cannot reach azure-k80 (ann@{HOST}:{port}): connection refused"
    assert type(error) is ConnectError
    assert f"port {port}" in error.fix


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux fills a queue of connections")
def test_a_machine_that_does_not_answer_times_out(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())

        error = refusal(destination(listener.getsockname()[1]), tmp_path)

    assert "no answer for 0.5 s" in str(error)


@pytest.mark.parametrize("host", ["no-such-machine.invalid", "x" * 300, "a..b"])
def test_a_name_nobody_knows_is_said_to_be_unknown(tmp_path: Path, host: str) -> None:
    error = refusal(Destination("azure-k80", host, "ann", 22), tmp_path)

    assert str(error).startswith(f"cannot reach azure-k80 (ann@{host}:22): unknown host name")


def test_a_web_server_is_not_taken_for_an_ssh_server(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1b[31m<html>") as port:
        error = refusal(destination(port), tmp_path)

    assert "is not an SSH server" in str(error)
    assert error.cause == "it said: HTTP/1.1 400 Bad Request [31m<html>"


def test_a_server_that_hangs_up_or_says_nothing_is_told_apart(tmp_path: Path) -> None:
    with answering() as port:
        assert refusal(destination(port), tmp_path).cause == "it hung up at once"
    with answering(hang_up=False) as port:
        assert refusal(destination(port), tmp_path).cause == "it said nothing for 0.5 s"


@pytest.mark.parametrize("hang_up", [True, False])
def test_a_server_that_stops_during_the_handshake_is_no_connection(
    tmp_path: Path, hang_up: bool
) -> None:
    # With more patience than the check for threads that are left has.
    timeout_s = 20 if hang_up else 0.3
    with answering(b"SSH-2.0-broken\r\n", hang_up=hang_up) as port:
        error = refusal(destination(port), tmp_path, timeout_s)

    assert "the SSH handshake broke off" in str(error)
    assert error.cause


@pytest.mark.parametrize(
    "noise", [bytes(range(256)) * 40, b"\0" * 9999, b"\0\0\0\x0c\x0a\x14" * 99]
)
def test_noise_after_the_banner_is_no_connection(tmp_path: Path, noise: bytes) -> None:
    with answering(b"SSH-2.0-noise\r\n" + noise) as port:
        refusal(destination(port), tmp_path)


def test_a_broken_handshake_says_nothing_on_the_terminal(
    tmp_path: Path,
) -> None:
    program = (
        "import logging, sys; from pathlib import Path; from orchestrator.connection.ssh import *\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "from orchestrator.errors import ConnectError\n"
        "d = Destination('vm', '127.0.0.1', 'ann', int(sys.argv[1]))\n"
        "try: connect(d, asker=None, known_hosts=Path(sys.argv[2]))\n"
        "except ConnectError: print('refused')"
    )
    with answering(b"SSH-2.0-broken\r\n") as port:
        done = subprocess.run(
            [sys.executable, "-c", program, str(port), tmp_path / "k"], capture_output=True
        )

    assert (done.stdout, done.stderr) == (b"refused\n", b"")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch hacked", "-x", "", "a b", "a\nb", "a\0b"])
def test_a_host_that_could_be_an_option_is_refused_before_anything_is_run(
    tmp_path: Path, host: str
) -> None:
    with pytest.raises(UsageError, match="cannot be the host"):
        connect(Destination("vm", host), asker=None, known_hosts=tmp_path / "k")
    with pytest.raises(UsageError, match="cannot be the host"):
        connect(Destination("vm", "h", user=host or "-"), asker=None, known_hosts=tmp_path / "k")


# Host keys.


def test_an_unknown_host_key_is_refused_with_its_fingerprint_when_nobody_can_be_asked(
    server: SshServer, tmp_path: Path
) -> None:
    with pytest.raises(HostKeyUnknown) as caught:
        connect(server.destination, asker=None, known_hosts=tmp_path / "known_hosts")

    fingerprint = fingerprint_of(server)
    assert fingerprint in str(caught.value)
    assert f"--accept-host-key {fingerprint}" in caught.value.fix
    assert not (tmp_path / "known_hosts").exists()


def test_a_trusted_host_key_is_recorded_for_the_user_alone_and_not_asked_again(
    server: SshServer, tmp_path: Path
) -> None:
    own, asker = tmp_path / "new folder" / "known_hosts", Answers(trust=True)

    for _ in range(2):
        with connect(server.destination, asker=asker, known_hosts=own) as connection:
            assert connection.host_key_fingerprint == fingerprint_of(server)

    assert asker.asked == [f"[{HOST}]:{server.port} ssh-ed25519 {fingerprint_of(server)}"]
    assert own.stat().st_mode & 0o777 == 0o600


def test_a_host_key_the_user_does_not_trust_is_not_recorded(
    server: SshServer, tmp_path: Path
) -> None:
    with pytest.raises(HostKeyUnknown):
        connect(server.destination, asker=Answers(trust=False), known_hosts=tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_a_fingerprint_accepted_beforehand_is_recorded_without_asking(
    server: SshServer, tmp_path: Path
) -> None:
    found = host_key(
        server.destination, asker=None, known_hosts=tmp_path / "k", accept=fingerprint_of(server)
    )

    assert found == ("ssh-ed25519", fingerprint_of(server))
    connect(server.destination, asker=None, known_hosts=tmp_path / "k").close()


def test_another_fingerprint_than_the_accepted_one_is_refused_without_asking(
    server: SshServer, tmp_path: Path
) -> None:
    asker = Answers(trust=True)
    with pytest.raises(HostKeyUnknown, match="not the accepted SHA256:other"):
        connect(server.destination, asker=asker, known_hosts=tmp_path / "k", accept="SHA256:other")
    assert asker.asked == []


def test_a_changed_host_key_is_refused_with_both_fingerprints_and_the_line(
    server: SshServer, tmp_path: Path
) -> None:
    old = make_key(tmp_path / "old").with_suffix(".pub").read_text().split()
    own = tmp_path / "known_hosts"
    own.write_text(f"# a comment\n[{HOST}]:{server.port} {old[0]} {old[1]}\n")

    with pytest.raises(HostKeyChanged) as caught:
        connect(server.destination, asker=Answers(trust=True), known_hosts=own)

    message = str(caught.value)
    assert fingerprint_of(server) in message
    assert fingerprint(old[1]) in message
    assert f"{own}:2" in message
    assert f"-R '[{HOST}]:{server.port}'" in caught.value.fix


def test_a_known_host_is_found_in_the_users_own_hashed_file(
    server: SshServer, tmp_path: Path, ssh_config: Path
) -> None:
    hashed = server.trusted(tmp_path)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", hashed], check=True, capture_output=True)
    assert HOST not in hashed.read_text()
    ssh_config.write_text(f'UserKnownHostsFile "{hashed}"\n' + ssh_config.read_text())

    connect(server.destination, asker=None, known_hosts=tmp_path / "none").close()


@pytest.mark.sshd
def test_a_host_known_by_its_rsa_key_is_asked_for_that_one(
    openssh_server: SshServer, tmp_path: Path
) -> None:
    own = tmp_path / "known_hosts"
    rsa = (openssh_server.home.parent / "host_rsa.pub").read_text()
    own.write_text(f"[{HOST}]:{openssh_server.port} {rsa}")

    assert host_key(openssh_server.destination, asker=None, known_hosts=own)[0] == "ssh-rsa"


def fingerprint(key: str) -> str:
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"],
        input=f"ssh-ed25519 {key}\n",
        capture_output=True,
        text=True,
    )
    return shown.stdout.split()[1]


def fingerprint_of(server: SshServer) -> str:
    return fingerprint(server.known_hosts.read_text().split()[2])


# Login.


def test_a_wrong_user_or_key_is_refused_with_the_keys_that_were_tried(
    server: SshServer, tmp_path: Path
) -> None:
    trusted, stranger = server.trusted(tmp_path), make_key(tmp_path / "strange key")
    for wrong in (
        replace(server.destination, key=str(stranger)),
        replace(server.destination, user="nobody-here"),
    ):
        with pytest.raises(LoginRefused) as caught:
            connect(wrong, asker=None, known_hosts=trusted)

        assert f"cannot log in to practice ({wrong.user}@" in str(caught.value)
        assert f"no key is accepted for user {wrong.user}" in str(caught.value)
        assert caught.value.cause == f"tried: {wrong.key}"


def test_a_key_file_at_fault_is_named_with_its_fault(server: SshServer, tmp_path: Path) -> None:
    trusted = server.trusted(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "noise").write_bytes(os.urandom(500))
    text = server.key.read_text().splitlines()
    (tmp_path / "cut").write_text("\n".join(text[: len(text) // 2]))
    blob = base64.b64decode("".join(text[1:-1]))[:-40]
    (tmp_path / "short").write_bytes(
        b"%s\n%s%s\n" % (text[0].encode(), base64.encodebytes(blob), text[-1].encode())
    )
    faults = {
        "missing": "no such file",
        "empty": "not an Ed25519",
        "noise": "not an Ed25519",
        "cut": "not an Ed25519",
        "short": "not an Ed25519",
        "": "not a key file",
    }
    for name, fault in faults.items():
        key = str(tmp_path / name)
        with pytest.raises(ConnectError, match="no usable key") as caught:
            connect(replace(server.destination, key=key), asker=None, known_hosts=trusted)
        assert f"{key} ({fault}" in caught.value.cause


def test_a_passphrase_is_asked_for_up_to_three_times(server: SshServer, tmp_path: Path) -> None:
    trusted, locked = server.trusted(tmp_path), tmp_path / "locked"
    locked.write_bytes(server.key.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-a", "1", "-N", "open it", "-f", locked], check=True)
    where = replace(server.destination, key=str(locked))

    asker = Answers(passphrases=("wrong", "", "open it"))
    connect(where, asker=asker, known_hosts=trusted).close()
    assert asker.asked == [str(locked)] * 3

    with pytest.raises(ConnectError) as caught:
        connect(where, asker=Answers(passphrases=("a", "b", "c")), known_hosts=trusted)
    assert caught.value.cause == f"not usable: {locked} (wrong passphrase)"

    with pytest.raises(ConnectError) as caught:
        connect(where, asker=Answers(passphrases=(None,)), known_hosts=trusted)
    assert "passphrase not given" in caught.value.cause

    with pytest.raises(ConnectError) as caught:
        connect(where, asker=None, known_hosts=trusted)
    assert "no terminal to ask" in caught.value.cause


@pytest.mark.sshd
@pytest.mark.parametrize("passphrase", ["", "päss"])
@pytest.mark.parametrize("form", ["OpenSSH", "PEM"])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_each_kind_of_key_lets_in(
    openssh_server: SshServer, tmp_path: Path, kind: str, form: str, passphrase: str
) -> None:
    key = make_key(tmp_path / "key", kind, passphrase)
    if form == "PEM":
        same = ["-P", passphrase, "-N", passphrase]
        subprocess.run(["ssh-keygen", "-q", "-p", "-m", "PEM", *same, "-f", key], check=True)
    with (openssh_server.home.parent / "authorized_keys").open("a") as authorized:
        authorized.write(key.with_suffix(".pub").read_text())

    connect(
        replace(openssh_server.destination, key=str(key)),
        asker=Answers(passphrases=(passphrase,)),
        known_hosts=openssh_server.trusted(tmp_path),
    ).close()


@pytest.mark.sshd
def test_a_certificate_beside_the_key_lets_in(openssh_server: SshServer, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    ca, public = openssh_server.home.parent / "ca", key.with_suffix(".pub")
    names = ["-I", "test", "-n", openssh_server.user]
    subprocess.run(["ssh-keygen", "-q", "-s", str(ca), *names, str(public)], check=True)

    connect(
        replace(openssh_server.destination, key=str(key)),
        asker=None,
        known_hosts=openssh_server.trusted(tmp_path),
    ).close()


@pytest.fixture
def agent(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real ssh-agent that holds the server's client key and a stranger's."""
    # Short, because the path of a Unix socket is limited to about 100 bytes.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
        try:
            while not path.exists():
                time.sleep(0.01)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
            for key in (make_key(Path(folder) / "stranger"), server.key):
                subprocess.run(["ssh-add", "-q", key], check=True)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@pytest.mark.sshd
@pytest.mark.parametrize("server", ["openssh"], indirect=True)
@pytest.mark.usefixtures("agent")
def test_the_agents_keys_are_offered_one_after_the_other(server: SshServer, tmp_path: Path) -> None:
    where = replace(server.destination, key=None)

    connect(where, asker=None, known_hosts=server.trusted(tmp_path)).close()


@pytest.mark.usefixtures("agent")
def test_a_named_public_key_means_the_agents_key_and_no_other(
    server: SshServer, tmp_path: Path
) -> None:
    trusted, public = server.trusted(tmp_path), tmp_path / "named.pub"
    public.write_text(
        subprocess.run(
            ["ssh-keygen", "-y", "-f", server.key], capture_output=True, text=True
        ).stdout
    )
    connect(replace(server.destination, key=str(public)), asker=None, known_hosts=trusted).close()

    stranger = make_key(tmp_path / "stranger")
    with pytest.raises(LoginRefused) as caught:
        connect(replace(server.destination, key=str(stranger)), asker=None, known_hosts=trusted)
    assert caught.value.cause == f"tried: {stranger}"


def test_no_key_at_all_is_said(server: SshServer, tmp_path: Path) -> None:
    where = replace(server.destination, key=None)

    with pytest.raises(LoginRefused) as caught:
        connect(where, asker=None, known_hosts=server.trusted(tmp_path))
    assert caught.value.cause == "there is no key: no agent, and no key file"


# ~/.ssh/config.


def stanza(alias: str, server: SshServer, more: str = "") -> str:
    return (
        f"Host {alias}\n HostName {server.host}\n Port {server.port}\n User {server.user}\n"
        f' IdentityFile "{server.key}"\n {more}\n'
    )


@pytest.mark.parametrize("path", ["", os.environ["PATH"]], ids=["without ssh", "with ssh"])
def test_an_alias_of_ssh_config_is_a_destination(
    server: SshServer, tmp_path: Path, ssh_config: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    ssh_config.write_text(stanza("my-vm", server) + ssh_config.read_text())
    trusted = server.trusted(tmp_path)
    monkeypatch.setenv("PATH", path)

    with connect(Destination("vm", "my-vm"), asker=None, known_hosts=trusted) as connection:
        assert connection.where == f"vm ({server.user}@{server.host}:{server.port})"


def test_host_key_alias_is_the_name_in_known_hosts(
    server: SshServer, tmp_path: Path, ssh_config: Path
) -> None:
    ssh_config.write_text(
        stanza("my-vm", server, "HostKeyAlias Rented,VM") + ssh_config.read_text()
    )
    own, asker = tmp_path / "own", Answers(trust=True)
    for _ in range(2):
        connect(Destination("vm", "my-vm"), asker=asker, known_hosts=own).close()

    assert asker.asked == [f"rented,vm ssh-ed25519 {fingerprint_of(server)}"]


@pytest.fixture
def both(openssh_server: SshServer, embedded_server: SshServer, tmp_path: Path) -> Path:
    """A known_hosts file that names both servers."""
    own = tmp_path / "both"
    own.write_text(openssh_server.known_hosts.read_text() + embedded_server.known_hosts.read_text())
    return own


@pytest.mark.sshd
@pytest.mark.parametrize("jumps", ["one", "two", "one,two", "two,one,two"])
def test_a_machine_behind_jump_hosts_is_reached_through_them(
    openssh_server: SshServer, embedded_server: SshServer, both: Path, ssh_config: Path, jumps: str
) -> None:
    target = embedded_server if jumps.endswith("one") else openssh_server
    ssh_config.write_text(
        stanza("one", openssh_server)
        + stanza("two", embedded_server)
        + stanza("behind", target, f"ProxyJump {jumps}")
        + ssh_config.read_text()
    )
    data = os.urandom(3 * MIB)
    with connect(Destination("vm", "behind"), asker=None, known_hosts=both) as connection:
        assert run(connection, "cat", data) == (0, data)


@pytest.mark.sshd
def test_a_jump_hosts_key_and_refusals_are_checked_and_named(
    openssh_server: SshServer, embedded_server: SshServer, both: Path, ssh_config: Path
) -> None:
    nobody = replace(embedded_server, port=free_port())
    ssh_config.write_text(
        stanza("jump", openssh_server)
        + stanza("behind", embedded_server, "ProxyJump jump")
        + stanza("dead", nobody, "ProxyJump jump")
        + stanza("circle", nobody, "ProxyJump circle")
        + ssh_config.read_text()
    )
    own = both.with_name("own")
    own.write_text(embedded_server.known_hosts.read_text())
    with pytest.raises(HostKeyUnknown, match="vm's jump host") as unknown:
        connect(Destination("vm", "behind"), asker=None, known_hosts=own)
    assert fingerprint_of(openssh_server) in str(unknown.value)

    with pytest.raises(ConnectError, match=r"cannot reach vm \(.*: its jump host says"):
        connect(Destination("vm", "dead"), asker=None, known_hosts=both)
    with pytest.raises(ConnectError, match="more than 8 jump hosts"):
        connect(Destination("vm", "circle"), asker=None, known_hosts=both)


PROXY = """\
import os, socket, sys, threading
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def upward():
    while data := os.read(0, 65536):
        line.sendall(data)
    line.shutdown(socket.SHUT_WR)
threading.Thread(target=upward, daemon=True).start()
while data := line.recv(65536):
    os.write(1, data)
"""


def test_a_proxy_command_is_the_line(server: SshServer, tmp_path: Path, ssh_config: Path) -> None:
    (tmp_path / "proxy.py").write_text(PROXY)
    command = f'ProxyCommand {sys.executable} "{tmp_path}/proxy.py" %h %p'
    ssh_config.write_text(stanza("behind", server, command) + ssh_config.read_text())

    with connect(
        Destination("vm", "behind"), asker=None, known_hosts=server.trusted(tmp_path)
    ) as connection:
        assert run(connection, "cat", b"x" * MIB) == (0, b"x" * MIB)


def test_what_a_failing_proxy_command_complains_of_is_the_cause(
    tmp_path: Path, ssh_config: Path
) -> None:
    ssh_config.write_text(
        "Host behind\n ProxyCommand sh -c 'echo no way to %h >&2; exit 1'\n"
        + ssh_config.read_text()
    )

    assert refusal(Destination("vm", "behind"), tmp_path).cause == "it said: no way to behind"


def test_an_ssh_config_ssh_cannot_read_is_the_cause(tmp_path: Path, ssh_config: Path) -> None:
    ssh_config.write_text("Host x\n  NoSuchWord yes\n")

    assert "nosuchword" in refusal(Destination("vm", "x"), tmp_path).cause.lower()
