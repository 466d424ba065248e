"""Which host gets which run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from remote.protocol import Room


class Want(NamedTuple):
    """Attributes:
    gpus: on each host.
    hosts: so many different ones, at the same time.
    """

    gpus: int
    hosts: int = 1


def place(wanted: Sequence[Want], rooms: Mapping[str, Room]) -> list[tuple[str, ...]]:
    """For each the hosts on which it would begin first: those where enough is free, else those with
    the least waiting for each slot; of equal ones, those which were given fewer of these runs.

    Args:
        wanted: placed in this order.
        rooms: by the host's name.

    Returns:
        Names; none where fewer hosts are large enough.
    """
    rooms = dict(rooms)
    given = dict.fromkeys(rooms, 0)

    chosen: list[tuple[str, ...]] = []
    for want in wanted:
        loads: list[tuple[float, int, int, str]] = []
        for name, room in rooms.items():
            if fits(want.gpus, room):
                after = taken(want.gpus, room)
                load = (room.slots - room.free + after.waiting) / max(1, room.slots)
                loads.append((load, given[name], len(loads), name))
        if len(loads) < want.hosts:
            chosen.append(())
            continue
        # It begins when the last of its hosts is free.
        best = tuple(name for *_, name in sorted(loads)[: want.hosts])
        for name in best:
            rooms[name] = taken(want.gpus, rooms[name])
            given[name] += 1
        chosen.append(best)
    return chosen


def fits(gpus: int, room: Room) -> bool:
    """Whether a run that wants so many GPUs would begin there one day."""
    return _need(gpus, room) <= room.slots


def begins_at_once(gpus: int, room: Room) -> bool:
    """Whether a run that wants so many GPUs would."""
    return _need(gpus, room) <= room.free - room.waiting


def taken(gpus: int, room: Room) -> Room:
    """The room when one more such run is there."""
    return room._replace(waiting=room.waiting + _need(gpus, room))


def _need(gpus: int, room: Room) -> int:
    # Without GPUs, all train in the one slot there is.
    return gpus if room.has_gpus else min(gpus, 1)
