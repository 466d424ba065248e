"""The delay line: what comes out of one tunnel goes into the other, a fixed time later.

A process of its own, so that its work counts for none of the programs measured:
python delay.py FD FD SECONDS
"""

from __future__ import annotations

import collections
import os
import select
import sys
import time
from typing import NoReturn

# The kernel hands over segments that it has not cut into packets yet: 64 KiB and a header at most.
_LONGEST_BYTES = 2**17
# Packets taken at a time before those that are due go on.
_BATCH = 32


def carry(one: int, other: int, delay_s: float) -> NoReturn:
    """Carry packets both ways, in order, until the process is ended.

    Args:
        one, other: non-blocking files of tunnel devices.
        delay_s: of each way.
    """
    ways = {one: other, other: one}
    held: dict[int, collections.deque[tuple[float, bytes]]] = {
        source: collections.deque() for source in ways
    }
    while True:
        due = [queue[0][0] for queue in held.values() if queue]
        wait_s = max(0.0, min(due) - time.monotonic()) if due else None
        readable, _, _ = select.select(list(ways), [], [], wait_s)
        for source in readable:
            held[source].extend(_take(source, delay_s))
        for source, queue in held.items():
            while queue and queue[0][0] <= time.monotonic():
                os.write(ways[source], queue.popleft()[1])


def _take(source: int, delay_s: float) -> list[tuple[float, bytes]]:
    """Packets that wait in the device, each with the time when it is due."""
    taken = []
    for _ in range(_BATCH):
        try:
            packet = os.read(source, _LONGEST_BYTES)
        except BlockingIOError:
            break
        taken.append((time.monotonic() + delay_s, packet))
    return taken


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
