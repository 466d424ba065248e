"""Fixtures for all tests: nobody's own ~/.ssh, and servers to connect to."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings

from orchestrator.settings.spec import EnvSpec
from remote.runfolder import Slurm
from tests.clusters import GPUS, NODES, Cluster, login_node, missing, open_cluster
from tests.engines import Engine, kinds
from tests.servers import SSHD, SshServer, embedded, openssh

# Who starts the tests in the background (`nohup make test &`) has these ignored, and so would every
# program of a test; but some of them are sent one to see what it does.
for ignored in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler)

# Time is measured in benchmarks; a machine that is busy must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# The developer's keys and known hosts must not decide a test, nor be touched by one.
ISOLATED_SSH_CONFIG = """\
Host *
  IdentityFile none
  UserKnownHostsFile none
  GlobalKnownHostsFile none
"""


@pytest.fixture(autouse=True)
def ssh_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ssh_config in use; a test puts its own stanzas before what is in it."""
    file = tmp_path_factory.mktemp("ssh") / "config"
    file.write_text(ISOLATED_SSH_CONFIG)
    monkeypatch.setenv("TRAINSHED_SSH_CONFIG", str(file))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return file


@pytest.fixture(scope="session")
def openssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A real sshd, for the whole session."""
    if not SSHD.exists() and os.environ.get("TRAINSHED_REQUIRE_SSHD") != "1":
        pytest.skip(f"{SSHD} is not installed")
    with openssh(tmp_path_factory.mktemp("sshd") / "it's a VM") as server:
        yield server


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """The practice VM's server, for the whole session."""
    with embedded(tmp_path_factory.mktemp("practicevm") / "it's a VM") as server:
        yield server


@pytest.fixture(params=[pytest.param("openssh", marks=pytest.mark.sshd), "embedded"])
def server(request: pytest.FixtureRequest) -> SshServer:
    """Each of them; a test that takes this fixture is the contract."""
    found = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(found, SshServer)
    return found


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm of two nodes, for the whole session."""
    lacking = missing() or ("" if SSHD.exists() else f"{SSHD} is not installed")
    if lacking and os.environ.get("TRAINSHED_REQUIRE_SLURM") != "1":
        pytest.skip(lacking)
    # The name of a socket has to be short.
    with TemporaryDirectory(prefix="slurm-") as folder:
        found = open_cluster(Path(folder))
        try:
            yield found
        finally:
            found.close()


@pytest.fixture(scope="session")
def ssh_engine(embedded_server: SshServer) -> Engine:
    return Engine((embedded_server,), {"gpus": 1}, fillers=(1,), few=6)


@pytest.fixture(scope="session")
def pool_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("pool")
    with ExitStack() as stack:
        hosts = [stack.enter_context(openssh(folder / f"host {n}")) for n in range(2)]
        yield Engine(tuple(hosts), {"gpus": 1}, fillers=(1, 1), few=2)


@pytest.fixture(scope="session")
def slurm_engine(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    keys = {"gpus": None, "slurm": Slurm(), "env": EnvSpec(sys.executable)}
    with login_node(cluster, tmp_path_factory.mktemp("cluster") / "a login node") as server:
        yield Engine((server,), keys, fillers=(GPUS,) * len(NODES), few=3)


@pytest.fixture(params=kinds())
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of them; a test that takes this fixture is what all of them promise."""
    found = request.getfixturevalue(f"{request.param}_engine")
    assert isinstance(found, Engine)
    return found
