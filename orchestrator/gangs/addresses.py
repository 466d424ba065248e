"""Where the runs of a gang on a pool listen, so that each can be told before any is sent. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

# Above what services use, and below what Linux gives to programs that ask for any.
_PORTS = range(20_000, 32_768)


def gang_addresses(run_id: str, hosts: Sequence[str]) -> tuple[str, ...]:
    """`host:port` of each. The ports follow one another, since hosts may be one machine after all;
    the first is chosen by the run's id, so that two gangs hardly ever have the same.

    Args:
        run_id: the chief's.
        hosts: as the others reach them, in order; an IPv6 address without brackets.
    """
    chosen = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big")
    first = _PORTS[chosen % (len(_PORTS) - len(hosts))]
    names = (f"[{host}]" if ":" in host else host for host in hosts)
    return tuple(f"{name}:{first + rank}" for rank, name in enumerate(names))
