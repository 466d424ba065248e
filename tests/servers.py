"""Real SSH servers on loopback, and a relay that can lose the line to one."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.connection.ssh import Destination

SSHD = Path("/usr/sbin/sshd")
HOST = "127.0.0.1"
START_LIMIT_S = 60.0


@dataclass(frozen=True)
class SshServer:
    """A server that lets this user in with `key`, and whose commands see HOME=`home`.

    Attributes:
        known_hosts: a file that names the server's host key; for reading, see `trusted`.
    """

    host: str
    port: int
    user: str
    key: Path
    home: Path
    known_hosts: Path

    @property
    def destination(self) -> Destination:
        return Destination("practice", self.host, self.user, self.port, str(self.key))

    def trusted(self, folder: Path) -> Path:
        """A copy of `known_hosts` that a test may write to."""
        return Path(shutil.copy(self.known_hosts, folder / "known_hosts"))


@contextlib.contextmanager
def openssh(folder: Path, settings: str = "") -> Iterator[SshServer]:
    """OpenSSH's sshd as the user who runs the tests, root or not.

    `settings` are lines of sshd_config that go before ours: of most options, the first one counts.

    Beside its home are `authorized_keys`, `ca` (it lets in what that key signed) and a second host
    key, `host_rsa`.
    """
    folder.mkdir(parents=True)
    home = folder / "home"
    home.mkdir()
    for name in ("host", "client", "ca"):
        make_key(folder / name)
    make_key(folder / "host_rsa", "rsa")
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        # sshd refuses to start without the folder a system's init script makes.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    log = folder / "log"
    config = folder / "sshd_config"
    config.write_text(
        f"""\
{settings}
ListenAddress {HOST}:{port}
HostKey "{folder}/host_rsa"
HostKey "{folder}/host"
AuthorizedKeysFile "{folder}/authorized_keys"
TrustedUserCAKeys "{folder}/ca.pub"
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxSessions 50
{"" if "MaxStartups" in settings else "MaxStartups 100"}
SetEnv HOME="{home}"
# sshd starts commands in the account's real home; on a VM that is HOME.
ForceCommand cd "$HOME" && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""
    )
    with log.open("wb") as stream:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=stream)
    try:
        wait_for(lambda: answers(port), process, log)
        yield _server(folder, port, folder / "client", home, (folder / "host.pub").read_text())
    finally:
        stop(process)


@contextlib.contextmanager
def embedded(folder: Path, before: Sequence[str] = ()) -> Iterator[SshServer]:
    """The practice VM's server.

    Args:
        before: what its command line begins with, such as a program that puts it in a namespace.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    ready = home / ".practice" / "ready.json"
    ready.unlink(missing_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "orchestrator.connection.practicevm", home],
            stderr=stream,
        )
    try:
        wait_for(ready.exists, process, log)
        facts = json.loads(ready.read_text())
        host_key = facts["host_key"].partition(" ")[2]
        yield _server(folder, facts["port"], Path(facts["key"]), home, host_key)
    finally:
        stop(process)


def _server(folder: Path, port: int, key: Path, home: Path, host_key: str) -> SshServer:
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[{HOST}]:{port} {' '.join(host_key.split()[:2])}\n")
    return SshServer(HOST, port, getpass.getuser(), key, home, known_hosts)


def make_key(file: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair: `file` and the .pub beside it."""
    subprocess.run(
        # One round of the slow hash of passphrases is enough for a test.
        ["ssh-keygen", "-q", "-a", "1", "-t", kind, "-N", passphrase, "-C", file.name, "-f", file],
        check=True,
    )
    return file


def free_port() -> int:
    """A port at which nobody listens, and that nobody else is given while this process lives.

    A server may listen there, again and again, if it sets SO_REUSEADDR, as ours, sshd and Slurm do.
    Source: inet_csk_get_port() of Linux: a port that is bound is not chosen for port 0; who names
    it gets it, as long as both have set that, and no one listens.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((HOST, 0))
    port = int(reserved.getsockname()[1])
    # It stays bound until this process ends.
    reserved.detach()
    return port


def answers(port: int) -> bool:
    """Whether an SSH server says its banner on that port."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as line:
            return line.recv(4) == b"SSH-"
    except OSError:
        return False


def wait_for(is_true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it is; AssertionError with the process's log when it ends or takes too long."""
    deadline = time.monotonic() + START_LIMIT_S
    while not is_true():
        ended = process.poll() is not None
        assert not ended, f"it ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"it does not come up: {log.read_text()}"
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Relay:
    """A port on loopback whose bytes go to another port, until the line is lost.

    Attributes:
        port: where to connect.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._left: int | None = None
        self._lock = threading.Lock()
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def freeze(self) -> None:
        """Forward nothing any more, and close nothing: what a closed lid or a dead router does."""
        self._flowing.clear()

    def cut(self) -> None:
        """Close all lines through here at once."""
        with self._lock:
            for line in self._sockets:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def cut_after(self, size: int) -> None:
        """`cut` when that many more bytes went through, both ways together."""
        with self._lock:
            self._left = size

    def close(self) -> None:
        self._flowing.set()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for line in self._sockets:
            line.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True, name="relay")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        # close() of a socket does not wake an accept() in another thread; a short wait does.
        self._listener.settimeout(0.05)
        while True:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            far = socket.create_connection((HOST, self._target))
            # What is cut is lost with what lies in here.
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 2**10)
            near.settimeout(None)
            with self._lock:
                self._sockets += [near, far]
            self._start(self._forward, near, far)
            self._start(self._forward, far, near)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(64 * 2**10):
                self._flowing.wait()
                target.sendall(data)
                if self._is_spent(len(data)):
                    self.cut()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _is_spent(self, size: int) -> bool:
        with self._lock:
            if self._left is None:
                return False
            self._left -= size
            return self._left <= 0
