"""The programs that are compared, as a user types them."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.taken import Taken, run
from bench.vm import COLD, Vm

TRAIN = Path(sys.executable).with_name("train")
# What an SSH user types to start something that outlives the connection.
_LAUNCH = "(setsid nohup true </dev/null >/dev/null 2>&1 &)"
# What `train` itself keeps in the workspace, and does not send either.
_NOT_OURS = "--exclude=./.train"
# Where the others keep what they are sent, in the VM's home folder.
PEERS_FOLDER = "peer"


@dataclass(frozen=True)
class Train:
    """Our program in one workspace, with a home folder of its own.

    Attributes:
        workspace: holds a `train.yaml` when commands are run.
    """

    vm: Vm
    workspace: Path
    home: Path

    def add_remote(self) -> None:
        # The agent runs with the interpreter that runs us: one that is there.
        add = ["remote", "add", "vm", "--host", COLD, "--gpus", "0", "--python", sys.executable]
        self.run(*add)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "TRAINSHED_HOME": str(self.home),
            "TRAINSHED_SSH_CONFIG": str(self.vm.ssh_config),
        }

    def run(self, *words: str) -> Taken:
        """Any command."""
        return run([TRAIN, *words], self.workspace, self.environment)

    def launch(self) -> Taken:
        """Sync, and start a run that no earlier one can stand for."""
        new = f"n={time.time_ns()}"
        return self.run("run", "--detach", "--remote", "vm", "--param", new)


@dataclass(frozen=True)
class Peers:
    """OpenSSH and those who use it.

    Attributes:
        folder: what they send.
    """

    vm: Vm
    folder: Path

    def rsync(self, host: str, how: str = "-az") -> Taken:
        """`rsync`, then `ssh` to launch."""
        shell = f"ssh -F {self.vm.ssh_config}"
        there = f"{host}:{PEERS_FOLDER}/"
        sync = ["rsync", how, "--delete", _NOT_OURS, "-e", shell, "./", there]
        return self._shell(f"{shlex.join(sync)} && {self._ssh(host, _LAUNCH)}")

    def tar(self, host: str) -> Taken:
        """`tar cz | ssh tar xz`, launching over the same connection."""
        unpack = f"mkdir -p {PEERS_FOLDER} && tar xz -C {PEERS_FOLDER} && {_LAUNCH}"
        return self._shell(f"tar cz {_NOT_OURS} . | {self._ssh(host, unpack)}")

    def scp(self, host: str) -> Taken:
        """`scp -r`, then `ssh` to launch."""
        copy = ["scp", "-q", "-r", "-F", str(self.vm.ssh_config), ".", f"{host}:{PEERS_FOLDER}"]
        return self._shell(f"{shlex.join(copy)} && {self._ssh(host, _LAUNCH)}")

    def pull_by_rsync(self, name: str) -> Taken:
        """Uncompressed, which is faster: models do not compress."""
        shell = f"ssh -F {self.vm.ssh_config}"
        return run(["rsync", "-a", "-e", shell, f"{COLD}:{PEERS_FOLDER}/{name}", "."], self.folder)

    def pull_by_scp(self, name: str) -> Taken:
        remote = f"{COLD}:{PEERS_FOLDER}/{name}"
        return run(["scp", "-q", "-F", self.vm.ssh_config, remote, "."], self.folder)

    def _ssh(self, host: str, command: str) -> str:
        return shlex.join(["ssh", "-F", str(self.vm.ssh_config), host, command])

    def _shell(self, line: str) -> Taken:
        return run(["/bin/sh", "-c", line], self.folder)
