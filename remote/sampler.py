"""What a run uses of its machine: one line in `usage.jsonl` every few seconds.

Source: proc(5), Linux man-pages: /proc/meminfo.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

from remote.clock import now
from remote.gpu import GpuTrouble, Query, parse_usage, usage_query
from remote.processes import family, read_processes
from remote.record import to_bytes
from remote.runfolder import RunFolder
from remote.usage import GpuUsage, Usage

# Twice what `read_gpus` allows: nobody waits for this one.
QUERY_LIMIT_S = 10.0
# Of one core, for the samples, and as much again for nvidia-smi. A look at 2,000 processes takes
# 30 ms of processor, an nvidia-smi with many GPUs more: what is dear is then done less often.
SHARE = 0.004
# But the first answer is no measure: without persistence mode it wakes every GPU.
LONGEST_REST_S = 60.0


class Sampler:
    """Called from the supervisor's loop; never waits.

    Args:
        root_pid: the command's; the leader of its session.
        interval_s: between two lines, at least.
        clock: monotonic seconds.
        spent: seconds of processor, of this process.
        proc: where the kernel shows its processes.
    """

    def __init__(
        self,
        run_folder: Path,
        root_pid: int,
        interval_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.process_time,
        proc: Path = Path("/proc"),
    ) -> None:
        self._folder = RunFolder(run_folder)
        self._root_pid = root_pid
        self._interval_s = interval_s
        self._clock = clock
        self._spent = spent
        self._proc = proc
        self._due_s = clock()
        self._ticks: Dict[Tuple[int, int], int] = {}
        self._ticks_at_s: Optional[float] = None
        self._query: Optional[Query] = None
        self._query_at_s = 0.0
        self._ask_at_s = clock()
        self._gpus: Optional[Tuple[GpuUsage, ...]] = None

    def tick(self) -> None:
        """Add a line if the interval is over.

        A line that cannot be written is left out: a full disk must not end the run. A crash can
        leave the last line cut.
        """
        if self._clock() < self._due_s:
            return
        began_s, before_s = self._clock(), self._spent()
        line = to_bytes(self.sample())
        rest_s = min((self._spent() - before_s) / SHARE, LONGEST_REST_S)
        self._due_s = began_s + max(self._interval_s, rest_s)
        try:
            with self._folder.usage.open("a+b", buffering=0) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                # A full disk, or a crash, has cut the line before.
                file.write(line if file.read(1) in (b"", b"\n") else b"\n" + line)
        except OSError:
            pass

    def sample(self) -> Usage:
        """The machine now; the GPUs as nvidia-smi saw them after the sample before, or earlier."""
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
            mine = family(read_processes(self._proc), self._root_pid)
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
        """Take the answer that has come, if one has, and ask again when it is time."""
        try:
            if self._query is not None and not self._take_answer(self._query):
                return
            if self._clock() >= self._ask_at_s:
                self._query = usage_query()
                self._query_at_s = self._clock()
        except FileNotFoundError:
            self._gpus = ()
            self._ask_at_s = float("inf")  # no driver is installed under a run
        except GpuTrouble:
            self._gpus = None

    def _take_answer(self, query: Query) -> bool:
        """Whether it is done; one that takes too long is killed.

        Raises:
            GpuTrouble: it is, and has no answer.
        """
        before_s = _children_cpu_s()
        if not query.done:
            if self._clock() - self._query_at_s > QUERY_LIMIT_S:
                self._gpus = None
                query.kill()
            return False
        rest_s = (_children_cpu_s() - before_s) / SHARE
        self._ask_at_s = self._query_at_s + min(rest_s, LONGEST_REST_S)
        self._query = None
        self._gpus = parse_usage(query.answer())
        return True


def _children_cpu_s() -> float:
    """Seconds of processor of the children that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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
