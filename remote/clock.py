"""Points in time as they stand in files: ISO 8601, UTC, `Z`."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """This moment, to the microsecond."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse(text: str) -> datetime:
    """Undo `now`.

    Raises:
        ValueError: not such a text.
    """
    # Python 3.8's fromisoformat does not know the Z.
    if not text.endswith("Z"):
        raise ValueError(f"not a UTC time: {text[:40]!r}")
    return datetime.fromisoformat(text[:-1] + "+00:00")


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
