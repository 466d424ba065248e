"""A private Slurm cluster on this machine, and the login node of it; also for trying by hand.

Two nodes with two GPUs each, unless others are asked for; what stands for GPUs are devices like
/dev/null. It has its own munge, its own ports on loopback, and no service of the system is touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.accounts import close_accounts, open_accounts
from tests.servers import HOST, SshServer, free_port, openssh
from tests.waiting import wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NODES = ("n1", "n2")
GPUS = 2
NAME = "practice"
NO_ACCOUNTS = "AccountingStorageType=accounting_storage/none\n"


def missing() -> str:
    """What of it is not installed here, or not allowed; empty for nothing."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f"no {', '.join(absent)} here (slurm-wlm, munge)"
    # Of the devices that stand for GPUs.
    return "" if os.geteuid() == 0 else "only root may make devices"


@dataclass(frozen=True)
class Cluster:
    """A cluster that goes on until it is stopped.

    Attributes:
        folder: its settings, logs and state.
        nodes: their names.
    """

    folder: Path
    nodes: Sequence[str] = NODES

    @property
    def settings(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        return {**os.environ, "SLURM_CONF": str(self.settings), "PATH": path}

    def ask(self, *words: str) -> str:
        """What one of Slurm's commands says."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def start(self, daemon: str) -> None:
        """One of `munged`, `slurmctld`, and `slurmd.n1` for the one of a node.

        Raises:
            AssertionError: it does not start.
        """
        name, _, node = daemon.partition(".")
        words = [name, "-N", node] if node else [name]
        if name == "munged":
            words += ["--force", *(f"--{key}={file}" for key, file in _munge(self.folder).items())]
        log = self.folder / f"{daemon}.start"
        with log.open("wb") as stream:
            done = subprocess.run(
                words, env=self.environment, stdout=stream, stderr=stream, check=False, timeout=60
            )
        assert done.returncode == 0, log.read_text()

    def kill(self, daemon: str) -> None:
        """It alone; what it has started goes on."""
        os.kill(int((self.folder / f"{daemon}.pid").read_text()), signal.SIGKILL)

    def kill_node(self, name: str) -> None:
        """As a power cut does: the node's daemon, and all that it has started."""
        self.kill(f"slurmd.{name}")
        for process in self._processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _processes(self, node: str) -> list[int]:
        """Those of its jobs, and of Slurm's that watch over them."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "environ").read_bytes().split(b"\0")
                mine = f"SLURM_CONF={self.settings}".encode() in words
                if mine and f"SLURMD_NODENAME={node}".encode() in words:
                    found.append(int(process.name))
                    # It writes its title over its environment.
                    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                    if Path("/proc", parent, "comm").read_text() == "slurmstepd\n":
                        # First: it would yet tell Slurm how its job has ended.
                        found.insert(0, int(parent))
        return found

    def close(self) -> None:
        """End all that `open_cluster` started, and every job."""
        close_accounts(self.folder)
        for daemon in ("slurmctld", "munged"):
            with contextlib.suppress(OSError, ValueError):
                self.kill(daemon)
        for name in self.nodes:
            with contextlib.suppress(OSError, ValueError):
                self.kill_node(name)


def open_cluster(
    folder: Path, nodes: Sequence[str] = NODES, gpus: int = GPUS, *, accounting: bool = False
) -> Cluster:
    """Start one; its logs and state go below `folder`, whose path has to be short.

    Args:
        gpus: of each node; from 1.
        accounting: whether it keeps accounts, with this user in them.

    Raises:
        AssertionError: it did not come up.
    """
    cluster = Cluster(folder, nodes)
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o700, parents=True)
    folder.chmod(0o755)  # munge refuses a socket that others cannot reach
    for index in range(gpus):
        # Slurm takes devices only, and what is read of these is nothing.
        os.mknod(folder / f"gpu{index}", 0o20600, os.makedev(1, 3))
    (folder / "munge" / "key").write_bytes(secrets.token_bytes(128))
    (folder / "munge" / "key").chmod(0o400)
    (folder / "gres.conf").write_text(
        f"NodeName={','.join(nodes)} Name=gpu File={folder}/gpu[0-{gpus - 1}]\n"
    )
    try:
        cluster.start("munged")
        accounts = open_accounts(folder) if accounting else NO_ACCOUNTS
        cluster.settings.write_text(_settings(folder, nodes, gpus) + accounts)
        if accounting:
            # It answers once it has made its tables.
            add = ("sacctmgr", "-i", "add")
            wait_for(lambda: cluster.ask(*add, "cluster", NAME) != "", "the cluster's accounts")
            cluster.ask(*add, "account", "lab")
            cluster.ask(*add, "user", getuser(), "account=lab")
        for daemon in ("slurmctld", *(f"slurmd.{name}" for name in nodes)):
            cluster.start(daemon)
        ready = f"idle {len(nodes)}\n"
        wait_for(lambda: cluster.ask("sinfo", "-h", "-o", "%T %D") == ready, "idle nodes")
    except BaseException:
        cluster.close()
        raise
    return cluster


def _munge(folder: Path) -> dict[str, Path]:
    return {
        "key-file": folder / "munge" / "key",
        "socket": folder / "munge.socket",
        "pid-file": folder / "munged.pid",
        "log-file": folder / "munged.log",
        "seed-file": folder / "munge" / "seed",
    }


def _settings(folder: Path, names: Sequence[str], gpus: int) -> str:
    ports = [free_port() for _ in range(1 + len(names))]
    nodes = "".join(
        f"NodeName={name} NodeHostname=localhost NodeAddr={HOST} Port={port}\n"
        for name, port in zip(names, ports[1:], strict=True)
    )
    return f"""\
ClusterName={NAME}
SlurmctldHost=localhost({HOST})
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=15
SlurmdTimeout=60
SlurmctldTimeout=5
SlurmdParameters=config_overrides
MailProg=/bin/true
GresTypes=gpu
NodeName=DEFAULT CPUs=4 RealMemory=2000 Gres=gpu:{gpus} State=UNKNOWN
{nodes}PartitionName=gpu Nodes={",".join(names)} Default=YES MaxTime=60 State=UP
"""


@contextlib.contextmanager
def login_node(cluster: Cluster, folder: Path, path: str = "") -> Iterator[SshServer]:
    """A real sshd whose commands find the cluster; it and the nodes see the same files.

    Args:
        path: where its programs are.
    """
    path = path or os.environ["PATH"]
    found = f'SetEnv HOME="{folder}/home" SLURM_CONF="{cluster.settings}" PATH="{path}"'
    with openssh(folder, found) as server:
        yield server


def main() -> None:
    """A cluster for trying by hand, until Ctrl-C."""
    if lacking := missing():
        sys.exit(f"error: {lacking}")
    # In the background Ctrl-C is ignored, and a SIGTERM must leave nothing behind either.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with TemporaryDirectory(prefix="slurm-") as folder, ExitStack() as stack:
        cluster = open_cluster(Path(folder) / "cluster")
        stack.callback(cluster.close)
        login = stack.enter_context(login_node(cluster, Path(folder) / "login"))
        add = ["train", "remote", "add", "hpc", "--engine", "slurm", "--host", login.host]
        add += ["--port", str(login.port), "--user", login.user, "--key", str(login.key)]
        add += ["--python", sys.executable, "--price", "1.20"]
        sys.stdout.write(
            f"""\
a Slurm cluster is up: two nodes, two GPUs each that are none; its login node answers. To add it:
  {shlex.join(add)}
what its jobs ask for, for a train.yaml, where each key may be left out:
  remotes:
    hpc:
      slurm: {{partition: gpu, gres: gpu, cpus: 1, memory: 500M, time: 30m}}
its queue:
  SLURM_CONF={cluster.settings} squeue
Ctrl-C ends it, and forgets all that was there
"""
        )
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
