"""Fixtures for all tests: nobody's own ~/.ssh, and servers to connect to."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import SSHD, SshServer, embedded, openssh

# Who starts the tests in the background (`nohup make test &`) has these ignored, and so would every
# program of a test; but some of them are sent one to see what it does.
for ignored in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler)

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
