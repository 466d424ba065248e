"""What one command took: time, processor and memory, its children's included."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Taken:
    """Attributes:
    seconds: from the start of the process to its end.
    cpu_s: user and system, of the process and of the children it waited for. A connection that
        was open before (ControlMaster) does its work elsewhere and is not counted.
    peak_mib: of the largest process. Never below this process's own, which it is forked from.
    """

    seconds: float
    cpu_s: float
    peak_mib: float


def run(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> Taken:
    """Run to the end.

    Args:
        environment: added to this process's.

    Raises:
        SystemExit: it failed; with what it said.
    """
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        # Not a pipe: what a command leaves in the background would hold it open.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            text = said.read().decode(errors="replace")
            line = " ".join(map(str, command))
            raise SystemExit(f"error: this ended with {process.returncode}: {line}\n{text}")
    # Source: getrusage(2): on Linux ru_maxrss is in KiB.
    return Taken(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
