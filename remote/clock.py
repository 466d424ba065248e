"""Points in time as they stand in files: ISO 8601, UTC, `Z`."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """This moment, to the microsecond."""
    return _text(datetime.now(timezone.utc))


def moment(seconds: float) -> str:
    """A file's time, in seconds since 1970."""
    return _text(datetime.fromtimestamp(seconds, timezone.utc))


def parse(text: str) -> datetime:
    """Undo `now`.

    Raises:
        ValueError: not such a text.
    """
    # Python 3.8's fromisoformat does not know the Z.
    if not text.endswith("Z"):
        raise ValueError(f"not a UTC time: {text[:40]!r}")
    return datetime.fromisoformat(text[:-1] + "+00:00")


def seconds_between(start: str, end: str) -> float:
    """None below 0: between the two the clock may have been set."""
    return max(0.0, (parse(end) - parse(start)).total_seconds())


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def boot_id() -> str:
    """What tells this boot of the machine from the next; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def up_s() -> float:
    """For how long the machine is on since its last boot; 0 where the system does not say."""
    try:
        with open("/proc/uptime", encoding="ascii") as file:  # noqa: PTH123
            return float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
