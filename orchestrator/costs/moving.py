"""A machine that came up at another address than it had."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from orchestrator.connection.hostkeys import carry_over
from orchestrator.connection.sshconfig import known_as
from orchestrator.errors import UsageError
from orchestrator.screen.tell import Teller
from orchestrator.settings.config import find_remote, workspace_here
from orchestrator.settings.home import config_folder, remotes_file
from orchestrator.settings.remotes import change_remote
from orchestrator.settings.spec import Remote, Workspace

_USERS_KNOWN_HOSTS = (Path("~/.ssh/known_hosts"),)


def follow(remote: Remote, address: str, workspace: Workspace | None, tell: Teller) -> Remote:
    """The remote at the address that it has now, with the host keys it had."""
    if address in ("", remote.host) or not _is_address(remote.host):
        return remote
    own, port = config_folder() / "known_hosts", remote.port
    elsewhere = [file.expanduser() for file in _USERS_KNOWN_HOSTS]
    carry_over(own, known_as(remote.host, port), known_as(address, port), elsewhere)
    moved = replace(remote, host=address)
    with suppress(UsageError):
        change_remote(remotes_file(), remote.name, lambda known: replace(known, host=address))
    tell.step(f"{remote.name} has a new address: {address}")
    if workspace is not None:
        now = find_remote(workspace_here(), remote.name)
        if now.host != address:
            tell.warn(f"train.yaml says that {remote.name} is at {now.host}; it is at {address}")
    return moved


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
