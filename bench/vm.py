"""The VM: a real OpenSSH server at the far end of a line, with an empty home folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.line import Line
from tests.servers import SSHD, make_key, stop

# Names in the ssh_config: a new connection, and one over the master that is open already.
COLD, WARM = "vm", "warm"
_START_LIMIT_S = 15.0
# Where `train` keeps everything, in the home folder.
STORE = ".trainshed"
# The longest wait is for a run that copies a tree of 100,000 files.
_REST_LIMIT_S = 600.0


@dataclass(frozen=True)
class Vm:
    """A server, and how OpenSSH's client finds it.

    Attributes:
        line: between here and there.
        home: its HOME, as this machine sees it.
        ssh_config: of the hosts `COLD` and `WARM`.
    """

    line: Line
    home: Path
    ssh_config: Path

    def rest(self) -> None:
        """Return when nothing works there any more, and this machine's disk has what it was given:
        what one program left to do would slow the next.

        Raises:
            SystemExit: a run of ours did not succeed, or does not end.
        """
        deadline = time.monotonic() + _REST_LIMIT_S
        while self._is_busy():
            if time.monotonic() > deadline:
                raise SystemExit(f"error: something still works in {self.home}")
            time.sleep(0.02)
        for folder in self.home.glob(f"{STORE}/runs/*"):
            state = (folder / "state.json").read_text()
            if '"succeeded"' not in state:
                raise SystemExit(f"error: {folder.name} did not succeed: {state}")
        os.sync()

    def forget(self, *names: str) -> None:
        """Remove these from the home folder."""
        for name in names:
            shutil.rmtree(self.home / name, ignore_errors=True)

    def _is_busy(self) -> bool:
        mark = b"\0HOME=%s\0" % os.fsencode(self.home)
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in b"\0" + (folder / "environ").read_bytes():
                    return True
        return False


@contextlib.contextmanager
def start_vm(folder: Path, line: Line) -> Iterator[Vm]:
    """Until the block ends, the connection `WARM` goes over included."""
    home = folder / "home"
    home.mkdir(parents=True)
    host_key, user_key = make_key(folder / "host"), make_key(folder / "user")
    with line.far(), socket.create_server((line.host, 0)) as listener:
        port = int(listener.getsockname()[1])
    vm = Vm(line, home, folder / "ssh_config")
    known_hosts = folder / "known_hosts"
    public = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
    known_hosts.write_text(f"[{line.host}]:{port} {public}\n")
    vm.ssh_config.write_text(
        f"""\
Host {COLD} {WARM}
    HostName {line.host}
    Port {port}
    User {getpass.getuser()}
    IdentityFile {user_key}
    IdentitiesOnly yes
    UserKnownHostsFile {known_hosts}
    BatchMode yes
Host {WARM}
    ControlPath {folder}/master
"""
    )
    server_config = folder / "sshd_config"
    server_config.write_text(
        f"""\
ListenAddress {line.host}:{port}
HostKey {host_key}
AuthorizedKeysFile {user_key}.pub
PidFile none
UsePAM no
StrictModes no
MaxStartups 100
Subsystem sftp {_sftp_server()}
SetEnv HOME={home}
# sshd starts commands in the account's real home; on a VM that is HOME.
ForceCommand cd {home} && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""
    )
    if os.geteuid() == 0:
        # sshd refuses to start without the folder a system's init script makes.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with line.far(), (folder / "log").open("wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", server_config], stderr=log)
    try:
        _wait(lambda: _answers(line, port), folder / "log")
        with line.near():
            master = subprocess.Popen(["ssh", "-F", vm.ssh_config, "-M", "-N", WARM])
        try:
            # Without its socket, WARM would silently be as cold as COLD.
            _wait((folder / "master").exists, folder / "log")
            yield vm
        finally:
            stop(master)
    finally:
        stop(server)


def _answers(line: Line, port: int) -> bool:
    try:
        with line.near(), socket.create_connection((line.host, port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _wait(is_true: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while not is_true():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: sshd does not come up\ncause: {log.read_text()}")
        time.sleep(0.02)


def _sftp_server() -> str:
    """What `scp` talks to; systems differ in where it is."""
    places = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec")
    found = shutil.which("sftp-server", path=os.pathsep.join(places))
    if found is None:
        raise SystemExit("error: no sftp-server here\nfix:   apt install openssh-sftp-server")
    return found
