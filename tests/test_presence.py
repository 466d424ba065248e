"""Who is there: real logins over a real sshd, on a machine where nobody else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote.presence import Login, read_logins
from remote.processes import Process
from tests.faults.machine import Machine
from tests.servers import SSHD, make_key
from tests.test_guard import PYTHON
from tests.vm import WAIT_LIMIT_S, wait_until

pytestmark = pytest.mark.sshd
# Each line that comes is a look; what it saw goes back.
LOOKS = """
import sys
from pathlib import Path
from remote.presence import Presence
presence = Presence(Path(sys.argv[1]))
for line in sys.stdin:
    print(int(presence.moved(float(line))), presence.sign.count("\\n"), flush=True)
"""
# The kernel notes only each eighth second in which a terminal was read.
TYPED_LIMIT_S = 9.5


class Watched(Machine):
    """With an sshd, and somebody who looks."""

    def __init__(self, folder: Path) -> None:
        if not SSHD.exists() or shutil.which("ssh") is None:
            pytest.skip("there is no OpenSSH here")
        super().__init__(folder, PYTHON)
        for name in ("host", "client"):
            make_key(folder / name)
        shutil.copy(folder / "client.pub", folder / "keys")
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:2222\nHostKey {folder}/host\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/keys\nPidFile none\nSubsystem sftp internal-sftp\n"
            # What this user's shell begins with at a login may be slow, or wait for a lock.
            f'SetEnv HOME="{folder}"\n'
        )
        serve = f'mkdir -p /run/sshd; exec {SSHD} -D -f "{folder}/sshd_config"'
        self.sshd = self.start(["sh", "-c", serve])
        self.looker = self.start([self.python, "-c", LOOKS, str(folder / "laptop")])
        wait_until(lambda: self.ssh("true").wait(WAIT_LIMIT_S) == 0, "sshd answers")
        self.settle()

    def ssh(self, *words: str) -> subprocess.Popen[bytes]:
        options = ["-F", "none", "-i", f"{self.folder}/client", "-p", "2222"]
        options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        return self.start(["ssh", *options, *words[:-1], "127.0.0.1", *words[-1:]])

    def look(self, passed_s: float = 15.0) -> tuple[bool, int]:
        """Whether anything moved, and how many logins there are."""
        assert self.looker.stdin is not None
        assert self.looker.stdout is not None
        self.looker.stdin.write(b"%f\n" % passed_s)
        self.looker.stdin.flush()
        moved, logins = self.looker.stdout.readline().split()
        return bool(int(moved)), int(logins)

    def settle(self) -> int:
        """Look until nothing moves; how many logins there are."""
        while self.look()[0]:
            time.sleep(0.2)
        return self.look()[1]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched(tmp_path_factory.mktemp("presence") / "machine") as machine:
        yield machine


@contextmanager
def login(machine: Watched, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who has just been seen to come."""
    before = machine.settle()
    process = machine.ssh(*words)
    seen: list[bool] = []

    def is_in() -> bool:
        moved, logins = machine.look()
        seen.append(moved)
        return logins == before + 1

    wait_until(is_in, "the login is seen")
    assert seen[-1]
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        wait_until(lambda: machine.look()[1] == before, "the login is gone")


def until_moved(machine: Watched, does: Callable[[], object], passed_s: float = 0.2) -> bool:
    end = time.monotonic() + TYPED_LIMIT_S
    while time.monotonic() < end:
        does()
        time.sleep(0.2)
        if machine.look(passed_s)[0]:
            return True
    return False


def test_who_types_at_a_terminal_is_there_and_who_only_has_it_open_is_not(
    machine: Watched,
) -> None:
    with login(machine, "-tt", "cat") as terminal:
        assert machine.settle() == 1
        time.sleep(1.0)
        assert machine.look() == (False, 1)
        assert terminal.stdin is not None
        assert until_moved(machine, lambda: _type(terminal))


def test_a_command_without_a_terminal_is_there_while_it_works(machine: Watched) -> None:
    with login(machine, "sleep 600"):
        machine.settle()
        assert machine.look() == (False, 1)
    with login(machine, "while :; do :; done"):
        assert until_moved(machine, lambda: None)


def test_what_a_login_left_behind_is_nobody(machine: Watched) -> None:
    busy = "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null & echo $!"
    left = machine.ssh(busy)
    said, _ = left.communicate(timeout=WAIT_LIMIT_S)
    try:
        machine.settle()
        assert machine.look() == (False, 0)
    finally:
        machine.start(["pkill", "-P", said.decode().strip()]).wait()
        machine.start(["kill", "-9", said.decode().strip()]).wait()


def test_an_upload_is_somebody(machine: Watched) -> None:
    with login(machine, "cat >/dev/null") as upload:
        assert upload.stdin is not None
        machine.settle()

        def send() -> None:
            assert upload.stdin is not None
            upload.stdin.write(bytes(1_000_000))
            upload.stdin.flush()

        # Looks of a second, so many that they are less than a minute.
        assert until_moved(machine, send, passed_s=1.0)


def test_a_laptop_that_gives_its_sign_is_there(machine: Watched) -> None:
    machine.settle()
    (machine.folder / "laptop").touch()
    assert machine.look()[0]
    assert not machine.look()[0]
    os.utime(machine.folder / "laptop", (0, 0))
    assert machine.look()[0]


def test_what_runs_in_an_attached_tmux_belongs_to_the_login() -> None:
    def process(pid: int, parent: int, name: str, ticks: int = 0) -> Process:
        return Process(pid, parent, 0, ticks, 0, 0, name=name)

    held = [process(10, 1, "tmux: server"), process(11, 10, "python", ticks=500)]
    ssh = [process(2, 1, "sshd"), process(3, 2, "sshd", ticks=1), process(4, 3, "bash")]
    assert read_logins([*ssh, *held]) == (Login("4.0", 0, 1),)
    attached = process(5, 4, "tmux: client")
    assert read_logins([*ssh, *held, attached]) == (Login("4.0", 0, 501),)
    assert read_logins(held) == ()


def _type(terminal: subprocess.Popen[bytes]) -> None:
    assert terminal.stdin is not None
    terminal.stdin.write(b"x\n")
    terminal.stdin.flush()
