"""What worked the last time at a destination, kept so that the next connection need not ask.

Nothing here is trusted: a memory that is wrong, lost or forged costs the plain way once, and the
host key is judged without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from remote import record
from remote.atomic import replace_file

FILE_NAME = "ways.json"

# How far ahead of the server's answers a connection's first command is sent.
PLAIN, LOGIN, WHOLE = 0, 1, 2

_SMALLEST_PACKET = 4096


def reach(version: str) -> int:
    """How far ahead to try with a server of that version string, where nothing is remembered.

    Servers that dismiss a client for it may do so with a reset that takes their last words along;
    so only one that is known to bear it is tried.
    """
    return WHOLE if version.startswith("SSH-2.0-OpenSSH_") else LOGIN


class Way(NamedTuple):
    """How a server was last logged in to, and how it numbered and bounded the first channel.

    Attributes:
        kex: the key exchange agreed on; "" where the server does not bear being told of it early.
        identity: the key that was let in, as a fingerprint.
        ahead: PLAIN, LOGIN (with its service) or WHOLE (the command and its input, too).
        channel: the server's number for the first channel.
        window: bytes it took for the command when that was started.
        packet: bytes, the largest packet it takes.
    """

    kex: str
    identity: str
    ahead: int
    channel: int
    window: int
    packet: int


@dataclass(frozen=True)
class Memory:
    """Of one destination, in a file shared by all; lost updates do no harm.

    Attributes:
        route: the servers on the way.
    """

    file: Path
    route: str

    def recall(self) -> Way | None:
        try:
            way = record.decode(Way, self._load()[self.route])
        except (KeyError, record.Malformed):
            return None
        # RFC 4253, section 6.1: no server may take less. RFC 4251, section 5: what a uint32 holds.
        fits = way.packet >= _SMALLEST_PACKET and min(way.channel, way.window) >= 0
        return way if fits and max(way.channel, way.window, way.packet) < 2**32 else None

    def keep(self, way: Way) -> None:
        """Remember, if it is news; without a place to write to, the plain way is always taken."""
        ways = self._load()
        news = record.encode(way)
        if ways.get(self.route) == news:
            return
        ways[self.route] = news
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.file, json.dumps(ways, indent=1).encode("ascii"))
        except OSError:
            pass

    def _load(self) -> dict[str, object]:
        try:
            ways = json.loads(self.file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return ways if isinstance(ways, dict) else {}
