"""What a run uses of its machine: one line in `usage.jsonl` every few seconds.

Source: proc(5), Linux man-pages: /proc/[pid]/stat and /proc/meminfo.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Tuple

from remote.clock import now
from remote.gpu import GpuTrouble, GpuUsage, Query, parse_usage, usage_query
from remote.record import to_bytes
from remote.runfolder import RunFolder

# Twice what `read_gpus` allows: nobody waits for this one.
QUERY_LIMIT_S = 10.0


@dataclass(frozen=True)
class Usage:
    """One sample; None is what this system does not tell, or not yet.

    Attributes:
        at: ISO 8601 UTC, of the VM's clock.
        cpu_percent: of the run's processes since the sample before; 100 is one core.
        memory_bytes: their resident memory; pages they share are counted for each.
        available_bytes: memory the machine could still give without swapping.
        load1: load average over one minute.
        disk_free_bytes: for this user, where the run's folder is.
        gpus: empty on a machine without nvidia-smi; None while its driver fails.
    """

    at: str
    cpu_percent: Optional[float]
    memory_bytes: Optional[int]
    available_bytes: Optional[int]
    load1: Optional[float]
    disk_free_bytes: Optional[int]
    gpus: Optional[Tuple[GpuUsage, ...]]


@dataclass(frozen=True)
class Process:
    """One process of /proc.

    Attributes:
        ticks: CPU time, user and system, in clock ticks.
        started: in clock ticks since boot; tells two processes with one pid apart.
    """

    pid: int
    parent: int
    session: int
    ticks: int
    started: int
    rss_pages: int


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
    )


def family(processes: Iterable[Process], root_pid: int) -> Tuple[Process, ...]:
    """The processes descended from `root_pid` or in its session, itself included.

    The session holds those whose parent died; what also left the session is not found.
    """
    children: Dict[int, List[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: Dict[int, Process] = {}
    waiting = [p for group in children.values() for p in group if root_pid in (p.pid, p.session)]
    while waiting:
        process = waiting.pop()
        if process.pid not in found:
            found[process.pid] = process
            waiting.extend(children.get(process.pid, ()))
    return tuple(found.values())


class Sampler:
    """Called from the supervisor's loop; never waits.

    Args:
        root_pid: the command's; the leader of its session.
        interval_s: between two lines.
        clock: monotonic seconds.
        proc: where the kernel shows its processes.
    """

    def __init__(
        self,
        run_folder: Path,
        root_pid: int,
        interval_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        proc: Path = Path("/proc"),
    ) -> None:
        self._folder = RunFolder(run_folder)
        self._root_pid = root_pid
        self._interval_s = interval_s
        self._clock = clock
        self._proc = proc
        self._due_s = clock()
        self._ticks: Dict[Tuple[int, int], int] = {}
        self._ticks_at_s: Optional[float] = None
        self._query: Optional[Query] = None
        self._query_at_s = 0.0
        self._gpus: Optional[Tuple[GpuUsage, ...]] = None

    def tick(self) -> None:
        """Add a line if the interval is over.

        A line that cannot be written is left out: a full disk must not end the run. A crash can
        leave the last line cut.
        """
        if self._clock() < self._due_s:
            return
        self._due_s = self._clock() + self._interval_s
        line = to_bytes(self.sample())
        try:
            with self._folder.usage.open("ab", buffering=0) as file:
                file.write(line)
        except OSError:
            pass

    def sample(self) -> Usage:
        """The machine now; the GPUs as nvidia-smi saw them after the sample before."""
        cpu_percent, memory_bytes = self._processes()
        self._ask_gpus()
        return Usage(
            at=now(),
            cpu_percent=cpu_percent,
            memory_bytes=memory_bytes,
            available_bytes=_available_bytes(self._proc),
            load1=_load1(),
            disk_free_bytes=_disk_free_bytes(self._folder.path),
            gpus=self._gpus,
        )

    def close(self) -> None:
        """End a question to the driver that is still open."""
        if self._query is not None:
            self._query.stop()
            self._query = None

    def _processes(self) -> Tuple[Optional[float], Optional[int]]:
        """CPU percent and resident bytes of the run's processes."""
        try:
            mine = family(_read_processes(self._proc), self._root_pid)
        except OSError:
            return None, None
        now_s = self._clock()
        ticks = {(process.pid, process.started): process.ticks for process in mine}
        # A process that ended since takes its last ticks with it: at most one interval's.
        spent = sum(after - self._ticks.get(key, 0) for key, after in ticks.items())
        before_s, self._ticks, self._ticks_at_s = self._ticks_at_s, ticks, now_s
        memory_bytes = sum(process.rss_pages for process in mine) * os.sysconf("SC_PAGE_SIZE")
        if before_s is None or now_s <= before_s:
            return None, memory_bytes
        cpu_s = spent / os.sysconf("SC_CLK_TCK")
        return round(100 * cpu_s / (now_s - before_s), 1), memory_bytes

    def _ask_gpus(self) -> None:
        """Take the answer that has come, if one has, and ask again."""
        if self._query is not None and not self._query.done:
            if self._clock() - self._query_at_s > QUERY_LIMIT_S:
                self._gpus = None
                self._query.kill()
            return
        try:
            if self._query is not None:
                query, self._query = self._query, None
                self._gpus = parse_usage(query.answer())
            self._query = usage_query()
            self._query_at_s = self._clock()
        except FileNotFoundError:
            self._gpus = ()
        except GpuTrouble:
            self._gpus = None


def _read_processes(proc: Path) -> List[Process]:
    """Every process that may be seen.

    Raises:
        OSError: there is no /proc.
    """
    processes = []
    with os.scandir(proc) as entries:
        for entry in entries:
            if entry.name.isdigit():
                try:
                    processes.append(parse_stat(_read(f"{entry.path}/stat")))
                except OSError:
                    continue  # it ended meanwhile, or is not ours to see
    return processes


def _read(path: str) -> bytes:
    # A third faster than a file object, and this is most of what a sample costs.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _available_bytes(proc: Path) -> Optional[int]:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _load1() -> Optional[float]:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _disk_free_bytes(folder: Path) -> Optional[int]:
    try:
        stat = os.statvfs(folder)
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize
