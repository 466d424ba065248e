"""When a guarded machine is to stop, as pure rules over what was seen of it.

A `Look` is one moment with its two clocks; `advance` counts from look to look; `decide` compares
the counts with the terms. No rule subtracts two wall clocks within a boot, so a clock that is set
changes nothing:

- Within a boot only the monotonic clock counts. It stands still while a machine is suspended, and
  such a machine is not paid for by the hour.
- From one boot to the next the wall clock counts for the session's end. For what is paid, the time
  since the boot counts and of the time before it REBOOT_S at most: so long a reboot may take, and
  of more the machine was off. Where the guard itself had turned it off, that is GOES_DOWN_S. A wall
  clock that went back says nothing: the time since the boot counts for both.
- Idle is what passed between looks that saw nothing, LOOK_LIMIT_S of each at most, so that a long
  sleep of the guard is not taken for one of the machine's users. A boot is a sign of life.
- A look that could not see counts as one that saw something, for BLIND_LIMIT_S on end.
- The hard end and the paid end are extended by nothing, but by BOOT_GRACE_S after a boot, so that a
  laptop that has just started the machine can ask for something new, and by SAVING_S while runs
  are still writing down what they have.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Optional, Tuple

TICK_S = 15.0
LOOK_LIMIT_S = 4 * TICK_S
REBOOT_S = 600.0
# A system's shutdown, and the cloud's word that it is off.
GOES_DOWN_S = 60.0
BLIND_LIMIT_S = 6 * 3600.0
# Together less than a minute, should the one come in the middle of the other.
BOOT_GRACE_S = 38.0
SAVING_S = 20.0
# Of a short session no more than this part goes into the warning before its end.
_WARNING_PART = 0.25
_SHORTEST_TICK_S = 0.1


class Look(NamedTuple):
    """What was seen at one moment.

    Attributes:
        mono_s: the monotonic clock, seconds since the boot.
        wall_s: seconds since 1970.
        active: whether anything extends the lease: a run, a login, the laptop; None where it could
            not be seen.
        needs_s: how long the living runs take to save when they are warned; 0 where none lives.
    """

    boot_id: str
    mono_s: float
    wall_s: float
    active: Optional[bool] = False
    needs_s: float = 0.0


class Count(NamedTuple):
    """What has been counted since the terms were given, up to the last look.

    Attributes:
        passed_s: of the time to the session's end.
        on_s: of the time that is paid for.
        idle_s: since the last sign of life.
        blind_s: since the last look that could see.
        here_s: since the first look in this boot; None in the boot the terms were given in.
    """

    boot_id: str
    mono_s: float
    wall_s: float
    passed_s: float = 0.0
    on_s: float = 0.0
    idle_s: float = 0.0
    blind_s: float = 0.0
    here_s: Optional[float] = None


class Limits(NamedTuple):
    """Seconds from the moment the terms were given; None for no limit."""

    ends_in_s: Optional[float] = None
    paid_s: Optional[float] = None
    idle_s: Optional[float] = None


class Act(enum.Enum):
    WAIT = "wait"
    WARN = "warn"
    STOP = "stop"


class Decision(NamedTuple):
    """Attributes:
    why: what it stops for, as things stand; empty where it never does.
    left_s: until then; None for never.
    look_in_s: when to look again at the latest.
    """

    act: Act
    why: str = ""
    left_s: Optional[float] = None
    look_in_s: float = TICK_S


def begin(look: Look) -> Count:
    """The count at the moment the terms are given."""
    return Count(look.boot_id, look.mono_s, look.wall_s)


def advance(count: Count, look: Look, stopped: bool = False) -> Count:
    """The count at this look.

    Args:
        stopped: whether the guard turned the machine off in the boot of `count`.
    """
    if look.boot_id == count.boot_id:
        spent_s = on_s = max(0.0, look.mono_s - count.mono_s)
        here_s = None if count.here_s is None else count.here_s + spent_s
        active = look.active
    else:
        gap_s = look.wall_s - count.wall_s
        up_s = max(0.0, look.mono_s)
        if gap_s >= 0:
            # What has a longer uptime than it was away is a container, whose clock is its host's.
            up_s = min(up_s, gap_s)
        spent_s = max(gap_s, up_s)
        on_s = up_s + min(spent_s - up_s, GOES_DOWN_S if stopped else REBOOT_S)
        here_s = 0.0
        active = True
    blind_s = count.blind_s + spent_s if active is None else 0.0
    if active is None:
        active = blind_s <= BLIND_LIMIT_S
    return Count(
        look.boot_id,
        look.mono_s,
        look.wall_s,
        passed_s=count.passed_s + spent_s,
        on_s=count.on_s + on_s,
        idle_s=0.0 if active else count.idle_s + min(spent_s, LOOK_LIMIT_S),
        blind_s=blind_s,
        here_s=here_s,
    )


def decide(limits: Limits, count: Count, look: Look) -> Decision:
    """What is to be done now. `count` is that of `look`."""
    end_s, why = _hard_end(limits, count)
    needs_s = min(look.needs_s, _longest_warning(limits))
    if end_s is not None:
        # After a boot there is this much, whatever passed while the machine was off.
        stop_s = end_s
        if count.here_s is not None:
            stop_s = max(end_s, BOOT_GRACE_S - count.here_s)
        is_saved = look.needs_s == 0 or end_s <= -SAVING_S
        if stop_s <= 0 and is_saved:
            return Decision(Act.STOP, why, 0.0)
        if end_s <= needs_s:
            look_in_s = _until(stop_s if stop_s > 0 else end_s + SAVING_S)
            # Those that have saved meanwhile are not to be waited for.
            return Decision(Act.WARN, why, max(0.0, stop_s), min(look_in_s, 1.0))
        end_s = stop_s
    if limits.idle_s is not None:
        left_s = limits.idle_s - count.idle_s
        if left_s <= 0:
            return Decision(Act.STOP, f"idle for {_said(count.idle_s)}", 0.0)
        if end_s is None or left_s < end_s:
            why = f"idle for {_said(limits.idle_s)}"
            return Decision(Act.WAIT, why, left_s, _until(left_s))
    if end_s is None:
        return Decision(Act.WAIT)
    return Decision(Act.WAIT, why, end_s, _until(end_s - needs_s))


def _hard_end(limits: Limits, count: Count) -> Tuple[Optional[float], str]:
    """How long until what nothing extends, and what that is."""
    ends = []
    if limits.ends_in_s is not None:
        ends.append((limits.ends_in_s - count.passed_s, "the session's end"))
    if limits.paid_s is not None:
        ends.append((limits.paid_s - count.on_s, "the budget's end"))
    return min(ends) if ends else (None, "")


def _longest_warning(limits: Limits) -> float:
    given = [s for s in (limits.ends_in_s, limits.paid_s) if s is not None]
    return _WARNING_PART * max(0.0, min(given, default=0.0))


def _until(left_s: float) -> float:
    return min(TICK_S, max(_SHORTEST_TICK_S, left_s))


def _said(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
