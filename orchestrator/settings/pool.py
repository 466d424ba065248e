"""A pool: a remote that lists hosts, each of which is a remote of its own. Pure.

An entry that is the name of another remote means that one, or all of its hosts where it lists some
itself. Any other is an address, and takes what the pool says of user, port, key, GPUs, price and
environment; it is named `<pool>.<address>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from orchestrator.errors import ConfigError, UsageError
from orchestrator.settings.spec import Remote

# An IPv6 address with a port is in brackets; without brackets its colons begin no port.
_ADDRESS = re.compile(
    r"((?P<user>[^@]+)@)?(\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:@\[\]]+|[0-9A-Fa-f:.]*:[^@]*:[^@]*))"
    r"(:(?P<port>[1-9][0-9]{0,4}))?"
)

# Of SSH, where nobody says another.
_PORT = 22


@dataclass(frozen=True)
class Pool:
    """Attributes:
    members: all machines, also those that take no runs; no two are the same.
    drained: names of those that take none.
    """

    name: str
    members: tuple[Remote, ...]
    drained: frozenset[str] = frozenset()

    @property
    def names(self) -> str:
        """Of its members, for people."""
        return ", ".join(member.name for member in self.members)


def resolve(pool: Remote, known: Mapping[str, Remote]) -> Pool:
    """The machines that a remote with `hosts` means.

    Raises:
        ConfigError: it lists itself, a machine twice, two of one name, a cluster, or drains what it
            does not list.
    """
    members = tuple(_members(pool, known, (pool.name,)))
    places: dict[tuple[str, int], str] = {}
    for member in members:
        place = (member.host, member.port or _PORT)
        if place in places:
            twice = " and ".join(dict.fromkeys((places[place], member.name)))
            raise _wrong(pool, f"lists one machine twice: {twice}")
        if member.name in places.values() or known.get(member.name, member) != member:
            raise _wrong(pool, f"lists another machine that would be named {member.name}, too")
        places[place] = member.name
        if member.slurm is not None:
            raise _wrong(pool, f"lists {member.name}, a cluster, which has a queue of its own")
    return Pool(pool.name, members, frozenset(_drained(pool, known, (pool.name,))))


def find_member(name: str, known: Mapping[str, Remote]) -> Remote | None:
    """The machine of some pool that is named `<pool>.<address>`."""
    for pool in known.values():
        if pool.hosts and name.startswith(f"{pool.name}."):
            for member in resolve(pool, known).members:
                if member.name == name:
                    return member
    return None


def _members(pool: Remote, known: Mapping[str, Remote], above: tuple[str, ...]) -> Iterator[Remote]:
    for entry in pool.hosts:
        if entry in above:
            raise _wrong(pool, f"leads back to {entry}: {' > '.join((*above, entry))}")
        other = known.get(entry)
        if other is None:
            yield _at(entry, pool)
        elif other.hosts:
            yield from _members(other, known, (*above, entry))
        else:
            yield other


def _drained(pool: Remote, known: Mapping[str, Remote], above: tuple[str, ...]) -> Iterator[str]:
    for entry in pool.drained:
        if entry not in pool.hosts:
            raise _wrong(pool, f"drains {entry}, which is none of its hosts")
    for entry in pool.hosts:
        other = known.get(entry)
        is_drained = entry in pool.drained
        if other is None:
            yield from (_at(entry, pool).name,) if is_drained else ()
        elif other.hosts and is_drained:
            yield from (member.name for member in _members(other, known, (*above, entry)))
        elif other.hosts:
            yield from _drained(other, known, (*above, entry))
        elif is_drained:
            yield entry


def _at(entry: str, pool: Remote) -> Remote:
    """The machine at an address: `[user@]host[:port]`."""
    found = _ADDRESS.fullmatch(entry)
    if found is None or int(found["port"] or 1) > 65535:
        raise _wrong(pool, f"lists {entry!r}, which is neither a remote nor [user@]address[:port]")
    port = int(found["port"]) if found["port"] else pool.port
    return replace(
        pool,
        name=named(pool.name, entry),
        host=found["six"] or found["host"],
        user=found["user"] or pool.user,
        port=port,
        hosts=(),
        drained=(),
    )


def named(pool: str, entry: str) -> str:
    """What the machine at an address of a pool's list is called; names become files."""
    place = entry.rpartition("@")[2]
    return f"{pool}.{re.sub('[^A-Za-z0-9._-]', '-', place.replace('[', '').replace(']', ''))}"


def _wrong(pool: Remote, what: str) -> ConfigError:
    return ConfigError(
        f"the pool {pool.name} {what}", fix=f"mend its list under {pool.name}: hosts:"
    )


def no_machine(pool: Pool) -> UsageError:
    """What to say where one machine is meant and a pool was named."""
    return UsageError(
        f"{pool.name} is a pool of {len(pool.members)} hosts, and this is for one machine",
        cause=f"they are {pool.names}",
        fix=f"name one of them, such as {pool.members[0].name}",
    )
