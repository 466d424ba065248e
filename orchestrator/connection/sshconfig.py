"""Who to connect to, and through whom: a remote's host resolved by ~/.ssh/config."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import ConnectError, UsageError

# A path of an ssh_config to use in place of the user's and the system's.
CONFIG_VARIABLE = "TRAINSHED_SSH_CONFIG"

# More jumps than anyone has; a ProxyJump that leads back to itself reaches it.
HOP_LIMIT = 8

DEFAULT_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
DEFAULT_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
DEFAULT_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"

Settings = Mapping[str, Sequence[str]]
"""ssh_config as it applies to one host: lower-case keyword to its values, in order."""

Lookup = Callable[[str, str | None, int | None], Settings]
"""From host or alias, and user and port where they are given, to the settings."""


@dataclass(frozen=True)
class Destination:
    """Where a remote is, as the user wrote it.

    Attributes:
        name: the remote's name, for messages.
        host: an address, or an alias of ssh_config.
        user, port, key: None leaves it to ssh_config; a key is then the only one offered.
    """

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    key: str | None = None


@dataclass(frozen=True)
class Hop:
    """One SSH server on the way.

    Attributes:
        known_as: its name in known_hosts files.
        known_hosts: the user's and the system's files, in order; they need not exist.
        identities: key files to offer, in order; they need not exist.
        identities_only: whether the agent's other keys are kept back.
        proxy_command: what to run instead of a TCP connection, tokens expanded.
    """

    host: str
    port: int
    user: str
    known_as: str
    known_hosts: tuple[Path, ...]
    identities: tuple[Path, ...]
    identities_only: bool
    proxy_command: str | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"


def route(destination: Destination, lookup: Lookup) -> tuple[Hop, ...]:
    """The servers on the way, the destination last.

    Raises:
        UsageError: a host or user that could be taken for an option of ssh.
        ConnectError: ssh_config cannot be read, or its jumps go in a circle.
    """
    hops = _hops(destination.host, destination.user, destination.port, lookup, HOP_LIMIT)
    if destination.key is None:
        return hops
    key = Path(destination.key).expanduser()
    return (*hops[:-1], replace(hops[-1], identities=(key,), identities_only=True))


def _hops(
    host: str, user: str | None, port: int | None, lookup: Lookup, limit: int
) -> tuple[Hop, ...]:
    if limit == 0:
        raise ConnectError(
            f"cannot reach {host}: more than {HOP_LIMIT} jump hosts",
            cause="a ProxyJump in ssh_config probably leads back to itself",
            fix=f"see where it goes: ssh -G {host} | grep proxyjump",
        )
    for word in (host, user or "user"):
        if not word or word.startswith("-") or re.search(r"[\s\x00-\x1f\x7f]", word):
            raise UsageError(
                f"{word!r} cannot be the host or user of a remote",
                fix="name an address, or an alias of ssh_config; neither starts with '-'",
            )
    settings = lookup(host, user, port)
    jumps = _jumps(_last(settings, "proxyjump"))
    before: tuple[Hop, ...] = ()
    # As in OpenSSH: only the first of several jumps is reached by its own ProxyJump.
    for jump_user, jump_host, jump_port in jumps:
        found = _hops(jump_host, jump_user, jump_port, lookup, limit - 1)
        before = (*before, found[-1]) if before else found
    return (*before, _hop(settings, host, user, port))


def _hop(settings: Settings, alias: str, user: str | None, port: int | None) -> Hop:
    host = _last(settings, "hostname") or alias
    user = user or _last(settings, "user") or getpass.getuser()
    port = port or int(_last(settings, "port") or 22)
    tokens = {"%": "%", "h": host, "n": alias, "p": str(port), "r": user}
    tokens |= {"u": getpass.getuser(), "d": str(Path.home())}
    command = _last(settings, "proxycommand")
    return Hop(
        host=host,
        port=port,
        user=user,
        known_as=(_last(settings, "hostkeyalias") or known_as(host, port)).lower(),
        known_hosts=tuple(
            _path(file, tokens)
            for key, default in (
                ("userknownhostsfile", DEFAULT_KNOWN_HOSTS),
                ("globalknownhostsfile", DEFAULT_SYSTEM_KNOWN_HOSTS),
            )
            for file in _paths(_last(settings, key) or default)
        ),
        identities=tuple(
            _path(file, tokens)
            for file in settings.get("identityfile", DEFAULT_IDENTITIES)
            if file.lower() != "none"
        ),
        identities_only=_last(settings, "identitiesonly") == "yes",
        proxy_command=_expand(command, tokens) if command else None,
    )


def known_as(host: str, port: int | None) -> str:
    """A server's name in known_hosts files; None is the default port."""
    return host if port in (None, 22) else f"[{host}]:{port}"


def _last(settings: Settings, key: str) -> str:
    """A keyword's value, "" where it is not set or set to `none`."""
    value = settings.get(key, ("",))[-1].strip()
    return "" if value.lower() == "none" else value


def _jumps(value: str) -> list[tuple[str | None, str, int | None]]:
    """From `[ssh://][user@]host[:port],...` to user, host and port of each."""
    jumps = []
    for word in filter(None, value.split(",")):
        found = re.fullmatch(
            r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<host>\[[^]]+\]|[^:]+|[^:]*:.*:[^:]*)(?::(?P<port>\d+))?/?",
            word.strip(),
        )
        if found is None:
            raise ConnectError(f"ssh_config has a ProxyJump that cannot be read: {word!r}")
        port = found["port"]
        jumps.append((found["user"], found["host"].strip("[]"), int(port) if port else None))
    return jumps


def _paths(value: str) -> list[str]:
    # `ssh -G` prints several paths on one line without quotes, so a blank is an end only where a
    # new absolute path starts.
    return [
        path.strip('"')
        for path in re.split(r"\s+(?=\"?(?:[/~%]|[A-Za-z]:[\\/]))", value.strip())
        if path
    ]


def _path(value: str, tokens: Mapping[str, str]) -> Path:
    return Path(_expand(value, tokens)).expanduser()


def _expand(value: str, tokens: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), value)


def config_file() -> str | None:
    """The ssh_config to use in place of the usual ones, where the environment names one."""
    return os.environ.get(CONFIG_VARIABLE) or None


def has_ssh() -> bool:
    """Whether `ask_ssh` can answer."""
    return shutil.which("ssh") is not None


def ask_ssh(host: str, user: str | None, port: int | None) -> Settings:
    """What `ssh -G` says, so that Match, Include and canonical names work as they do for ssh.

    Raises:
        ConnectError: ssh does not accept the configuration or the name.
    """
    command = ["ssh", "-G"]
    for option, value in (("-F", config_file()), ("-l", user), ("-p", port)):
        if value is not None:
            command += [option, str(value)]
    try:
        answer = subprocess.run(
            [*command, "--", host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise ConnectError(
            f"ssh cannot say how to reach {host}",
            cause=error.stderr.decode("utf-8", "replace").strip(),
            fix=f"try it by hand: {' '.join(command)} {host}",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConnectError(f"ssh cannot say how to reach {host}") from error
    settings: dict[str, list[str]] = {}
    for line in os.fsdecode(answer.stdout).splitlines():
        key, _, value = line.partition(" ")
        settings.setdefault(key, []).append(value)
    return settings
