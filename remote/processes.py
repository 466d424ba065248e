"""The processes of a job, found and ended whole: children, grandchildren, and those that fled."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Tuple

_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")


class Process(NamedTuple):
    """One process of /proc.

    Attributes:
        ticks: CPU time, user and system, in clock ticks.
        started: in clock ticks since boot; tells two processes with one pid apart.
        ended: and nobody has taken leave of it (a zombie).
        name: its program's, cut by the kernel to 15 bytes.
        terminal: the device number of its controlling terminal; 0 for none.

    Source: proc(5), Linux man-pages: /proc/[pid]/stat.
    """

    pid: int
    parent: int
    session: int
    ticks: int
    started: int
    rss_pages: int
    ended: bool = False
    name: str = ""
    terminal: int = 0


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


def parse_stat(stat: bytes) -> Process:
    """A process from its /proc/[pid]/stat."""
    # The program's name stands in parentheses and may hold any byte, parentheses too.
    pid, _, rest = stat.partition(b" ")
    fields = rest[rest.rindex(b")") + 2 :].split()
    return Process(
        pid=int(pid),
        parent=int(fields[1]),
        session=int(fields[3]),
        ticks=int(fields[11]) + int(fields[12]),
        started=int(fields[19]),
        rss_pages=int(fields[21]),
        ended=fields[0] == b"Z",
        name=stat[stat.index(b"(") + 1 : stat.rindex(b")")].decode("utf-8", "replace"),
        terminal=int(fields[4]),
    )


def read_processes(proc: Path) -> List[Process]:
    """Every process that may be seen.

    Raises:
        OSError: there is no /proc.
    """
    processes = []
    for name in os.listdir(proc):  # noqa: PTH208  # Path.iterdir makes an object of each
        if name.isdigit():
            try:
                processes.append(parse_stat(_read(f"{proc}/{name}/stat")))
            except OSError:
                continue  # it ended meanwhile, or is not ours to see
    return processes


def family(processes: Iterable[Process], root_pid: int) -> Tuple[Process, ...]:
    """The processes descended from `root_pid` or in its session, itself included.

    The session holds those whose parent died; what also left the session is not found.
    """
    processes = list(processes)
    children = _children(processes)
    found: Dict[int, Process] = {}
    waiting = [process for process in processes if root_pid in (process.pid, process.session)]
    while waiting:
        process = waiting.pop()
        if process.pid not in found:
            found[process.pid] = process
            waiting.extend(children.get(process.pid, ()))
    return tuple(found.values())


def descendants(root: int) -> List[int]:
    """Process ids below `root`, parents before children; empty where there is no /proc."""
    try:
        children = _children(process for process in read_processes(_PROC) if not process.ended)
    except FileNotFoundError:
        return []
    found, queue = [], [root]
    while queue:
        below = sorted(process.pid for process in children.get(queue.pop(0), ()))
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


def _children(processes: Iterable[Process]) -> Dict[int, List[Process]]:
    """The processes by their parent."""
    children: Dict[int, List[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    return children


def _read(path: str) -> bytes:
    # A third faster than a file object, and this is most of what a look at all processes costs.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
