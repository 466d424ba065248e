"""Whether sending waits for the processor or for the line."""

from __future__ import annotations

import time

# Judged over so long, so that a reading of the disk or a full window does not decide.
_SPAN_S = 0.25
# Above this share of a processor's time the processor is what limits us; below the other it is the
# line. Between them what was so stays so, since compressing less makes the processor less busy.
_BUSY, _IDLE = 0.6, 0.25


class Pace:
    """Of one transfer, over all its lines.

    Args:
        is_bound: what is assumed until it is known.
    """

    def __init__(self, *, is_bound: bool) -> None:
        self._is_bound = is_bound
        self._wall_s = time.monotonic()
        self._cpu_s = time.process_time()

    def is_processor_bound(self) -> bool:
        """As it was lately. Asked often."""
        wall_s, cpu_s = time.monotonic(), time.process_time()
        passed_s = wall_s - self._wall_s
        if passed_s >= _SPAN_S:
            share = (cpu_s - self._cpu_s) / passed_s
            self._is_bound = share > _BUSY or (self._is_bound and share > _IDLE)
            self._wall_s, self._cpu_s = wall_s, cpu_s
        return self._is_bound
