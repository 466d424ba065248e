"""The processes of a job, found and ended whole: children, grandchildren, and those that fled."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Dict, List

_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own parent dies, so that none is lost.

    Returns:
        Whether the system can do that. Elsewhere only the process group can be ended.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4.
    """
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def descendants(root: int) -> List[int]:
    """Process ids below `root`, parents before children; empty where there is no /proc."""
    children: Dict[int, List[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            # The name stands in parentheses and may itself hold any of these characters.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if len(fields) > 1 and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, queue = [], [root]
    while queue:
        below = sorted(children.get(queue.pop(0), []))
        found += below
        queue += below
    return found


def send_signal(pids: List[int], number: int) -> None:
    """Signal each; one that has just ended is not an error, nor one that is another user's."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def kill_below(root: int, group: int, deadline_s: float = 10.0) -> None:
    """End every descendant of `root` and the whole process group, whatever they do about it.

    Repeated until none is left, because a process may fork while it is being looked for. The ended
    are not reaped: whoever waits for one of them is to learn how it ended.
    """
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        left = descendants(root)
        send_signal(left, signal.SIGKILL)
        if not left:
            return
        time.sleep(0.02)


def reap_orphans(job: int) -> None:
    """Take leave of ended children that a job left to us (`adopt_orphans`), but not of the job.

    A job is a session of its own, so who ended in ours is somebody's who waits for it.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == job or os.getsid(ended.si_pid) == os.getsid(0):
            return  # its turn comes first; the others' comes next time
        os.waitpid(ended.si_pid, os.WNOHANG)


def reap() -> None:
    """Take leave of ended children that nobody waits for."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
