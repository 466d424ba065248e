"""A laptop with a cluster as its remote `hpc`: fixtures for the tests that have one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.settings.spec import EnvSpec
from remote.jobs import Job, read_job
from remote.lock import is_held
from remote.runfolder import RunFolder, Slurm
from tests.clusters import Cluster, login_node
from tests.laptop import Laptop, make_laptop, wait_until
from tests.servers import SshServer


@pytest.fixture
def login(cluster: Cluster, tmp_path: Path, programs: Path) -> Iterator[SshServer]:
    path = f"{programs}:{os.environ['PATH']}"
    with login_node(cluster, tmp_path / "a login node", path) as server:
        yield server


@pytest.fixture
def laptop(login: SshServer, tmp_path: Path) -> Laptop:
    made = make_laptop(tmp_path, None)
    made.add_remote(login, "hpc", gpus=None, slurm=Slurm(), env=EnvSpec(sys.executable))
    return made


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder before all others in the PATH of `login`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


def put(programs: Path, name: str, script: str) -> Path:
    """A program of our own in the place of Slurm's, which is `$real` in it."""
    file = programs / name
    file.write_text(f"#!/bin/sh\nreal={shutil.which(name)}\ncd {programs}\n{script}")
    file.chmod(0o755)
    return file


def runs(login: SshServer) -> list[RunFolder]:
    """In the order of their ids."""
    return [RunFolder(path) for path in sorted((login.home / ".trainshed/runs").iterdir())]


def job_of(run: RunFolder) -> Job:
    found = read_job(run)
    assert found is not None
    return found


def kill_supervisor(run: RunFolder) -> None:
    """As the kernel does where memory is short; its guard then ends the job."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            guarded = (Path("/proc") / parent / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(run.package) in words and words == guarded:
                os.kill(int(folder.name), signal.SIGKILL)
    wait_until(lambda: not is_held(run.lock), "it is dead")


@contextlib.contextmanager
def failed_node(cluster: Cluster, run: RunFolder) -> Iterator[None]:
    """The run's node is gone as by a power cut, and Slurm has noticed; after the block it is back.

    Not before: what Slurm sends to a dead node to end its jobs reaches it when it is up again, and
    ends what has been started anew since. So Slurm lets two minutes pass; the tests do not.
    """
    node = cluster.ask("squeue", "-h", "-j", job_of(run).number, "-o", "%N").strip()
    cluster.kill_node(node)
    cluster.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=a test")
    try:
        yield
    finally:
        cluster.start(f"slurmd.{node}")
        wait_until(lambda: "down" not in cluster.ask("sinfo", "-h", "-o", "%T"), "it is back")


def start_now(cluster: Cluster, number: str) -> None:
    """A job that Slurm has queued again, without the two minutes that it lets pass."""
    cluster.ask("scontrol", "update", f"JobId={number}", "StartTime=now")
