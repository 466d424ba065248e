"""The user's command, with what it said and what it took."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from tests.laptop import Laptop
from tests.vm import REPOSITORY

# What it takes for an honest VM is 50 MiB.
MEMORY_LIMIT_BYTES = 400 * 2**20


@dataclass(frozen=True)
class Done:
    """How a command ended, all it said, and what it took."""

    code: int
    said: str
    memory_bytes: int
    time_s: float


def train(laptop: Laptop, *words: str, limit_s: float = 100) -> Done:
    """Run it to its end, without a terminal."""
    file = laptop.home / "memory"
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.measured", file, *words],
        cwd=laptop.root,
        env=laptop.environment({"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=limit_s,
        check=False,
    )
    time_s = time.monotonic() - begun
    return Done(done.returncode, done.stdout, int(file.read_text()), time_s)
