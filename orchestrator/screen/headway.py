"""How far something of known size has come, how fast it goes, and how long it still takes."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.costs.cost import format_duration
from orchestrator.size import format_size

# The rate is that of the last seconds: a line is not always as fast as at its beginning.
_WINDOW_S = 10.0
# Where a step of the window begins; less often is too coarse, more often costs without a gain.
_STEP_S = 0.5
# Before that a rate is a guess.
_LEAST_S = 1.0


class Headway:
    """What was done of one thing by when; times are those of one clock, in seconds.

    Args:
        total: in bytes; 0 where it is not known.
    """

    def __init__(self, done: int, total: int, now_s: float) -> None:
        self.total = total
        self._done = done
        # What was there at the beginning was not done now.
        self._seen = [(now_s, done)]

    def see(self, done: int, now_s: float) -> None:
        """From any thread; at worst one of two that come at once is forgotten."""
        # What was lost again, as a part that another process took away, is a new beginning.
        seen = self._seen if done >= self._done else [(now_s, done)]
        self._seen, self._done = seen, done
        if now_s - seen[-1][0] >= _STEP_S:
            # The window begins with the last look that is not younger than it.
            old = [look for look in seen if look[0] <= now_s - _WINDOW_S]
            self._seen = [*old[-1:], *seen[len(old) :], (now_s, done)]

    def forms(self, now_s: float) -> Iterator[str]:
        """The same, ever shorter, for ever narrower screens."""
        done = format_size(self._done)
        if not self.total:
            yield done
            return
        share = f"{100 * self._done // self.total} %"
        rate = self._rate(now_s)
        if rate and self._done < self.total:
            left = f"{format_duration((self.total - self._done) / rate)} left"
            of = f"{done} of {format_size(self.total)} ({share})"
            yield f"{of}, {format_size(rate)}/s, {left}"
            yield f"{share}, {format_size(rate)}/s, {left}"
            yield f"{share}, {left}"
        else:
            yield f"{done} of {format_size(self.total)} ({share})"
        yield share

    def _rate(self, now_s: float) -> float:
        """Bytes a second; 0 as long as nobody can say."""
        then_s, then_done = self._seen[0]
        passed_s = now_s - then_s
        return (self._done - then_done) / passed_s if passed_s >= _LEAST_S else 0.0


def took(size_bytes: int, seconds: float) -> str:
    """What stands behind a thing that was done: nothing if it took less than a second."""
    if seconds < 1:
        return ""
    return f", {format_duration(seconds)}, {format_size(size_bytes / seconds)}/s"
