"""The guard's folder on the VM: the records in it, the names of its files, and who may write each.

The agent writes what is asked for, the guard what it has seen and done; each by rename.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple, Optional, Tuple, Type

from remote import clock
from remote.atomic import replace_file
from remote.guardrules import Count, Limits, Look
from remote.protocol import Boot, Keep, Stop
from remote.record import Malformed, Record, from_bytes, to_bytes

_STOPS_KEPT = 50
# Each connection brings them.
_BOOTS_KEPT = 20


class Terms(NamedTuple):
    """What the laptop asked for last.

    Attributes:
        asked: tells this time of asking from every other.
        at: when, by both clocks.
        before_s: how long the machine had been on in this session before.
        trouble, fragile: as in `protocol.Kept`, found when it was asked for.
    """

    asked: str
    keep: Keep
    at: Look
    before_s: float = 0.0
    trouble: str = ""
    fragile: str = ""

    @property
    def limits(self) -> Limits:
        return Limits(self.keep.ends_in_s, self.keep.paid_s, self.keep.idle_s)


class Beat(NamedTuple):
    """The guard's last sign of life, and from where it goes on after a crash or a reboot.

    Attributes:
        asked: the terms it went by.
        sign: what was seen of logins and the laptop (`presence.Presence`).
        stops_in_s: from then on, as things stood; None for never.
        boots: those before this one in which it was guarded, oldest first.
    """

    asked: str
    counted: Count
    sign: str = ""
    why: str = ""
    stops_in_s: Optional[float] = None
    boots: Tuple[Boot, ...] = ()


class Stops(NamedTuple):
    """What was done, oldest first."""

    stops: Tuple[Stop, ...] = ()


class GuardFolder(NamedTuple):
    """The files; `path` is `guard` in the store."""

    path: Path

    @property
    def terms(self) -> Path:
        """There for as long as the machine is guarded."""
        return self.path / "terms.json"

    @property
    def beat(self) -> Path:
        return self.path / "beat.json"

    @property
    def stops(self) -> Path:
        return self.path / "stops.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def lock(self) -> Path:
        """Held by the guard for as long as it lives."""
        return self.path / "lock"

    @property
    def laptop(self) -> Path:
        """Its time of change moves while a laptop is connected."""
        return self.path / "laptop"

    @property
    def package(self) -> Path:
        """The `remote` package the guard is made of."""
        return self.path / "remote.zip"

    def read_terms(self) -> Optional[Terms]:
        return _read(Terms, self.terms)

    def read_beat(self) -> Optional[Beat]:
        return _read(Beat, self.beat)

    def read_boots(self) -> Tuple[Boot, ...]:
        """Those before this one, oldest first: until its last sign at least each was on."""
        beat = self.read_beat()
        if beat is None:
            return ()
        counted = beat.counted
        if counted.boot_id == clock.boot_id():
            return beat.boots
        booted_s = counted.wall_s - counted.mono_s
        stopped = any(s.at_s >= booted_s and not s.trouble for s in self.read_stops())
        gone = Boot(counted.wall_s, counted.mono_s, stopped, counted.boot_id)
        return (*beat.boots, gone)[-_BOOTS_KEPT:]

    def read_stops(self) -> Tuple[Stop, ...]:
        try:
            lines = self.stops.read_bytes().splitlines()
        except FileNotFoundError:
            return ()
        return tuple(from_bytes(Stop, line) for line in lines)

    def write_stops(self, stops: Tuple[Stop, ...]) -> None:
        """As a whole, so that a crash leaves no half of a line.

        Raises:
            OSError: no space.
        """
        replace_file(self.stops, b"".join(map(to_bytes, stops[-_STOPS_KEPT:])))

    def say(self, text: str) -> None:
        """A line in the log, unless the disk is full."""

        try:
            with self.log.open("ab") as file:
                file.write(f"{clock.now()} {text}\n".encode("utf-8", "replace"))
        except OSError:
            pass


def was_stopped(boots: Tuple[Boot, ...], counted: Count) -> bool:
    """Whether the guard turned the machine off in the boot of the count; one before this one."""
    return any(boot.stopped and boot.id == counted.boot_id for boot in boots)


def guard_folder(root: Path) -> GuardFolder:
    """That of the store `root`."""
    return GuardFolder(root / "guard")


def this_moment() -> Look:
    """Now, by this machine's clocks."""
    return Look(clock.boot_id(), time.monotonic(), time.time())


def _read(cls: Type[Record], path: Path) -> Optional[Record]:
    """None where it is not there, or was spoilt on the disk."""
    try:
        return from_bytes(cls, path.read_bytes())
    except (FileNotFoundError, Malformed):
        return None
