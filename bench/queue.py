"""The agent's side of `train status`, on a login node with that many run folders, all of them jobs
that wait; squeue is a program that prints them. `first`: seconds when nothing is known; `again`:
when nothing has changed. `squeue`: how often it was asked by both.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.race import say
from remote.jobs import Job
from remote.protocol import Offsets, Watch
from remote.record import to_bytes
from remote.runfolder import RunFolder, RunRequest
from remote.runs import watch
from remote.store import Store

COUNTS = (10, 100, 1000, 10_000)
COLUMNS = ("first, s", "again, s", "squeue")
DRAWN = ("first, s", "again, s")
_ASKED_AT_MOST = 2


def measure() -> Iterator[tuple[float, ...]]:
    """Raises:
    AssertionError: squeue was asked more than twice for one answer.
    """
    before = os.environ["PATH"]
    for count in COUNTS:
        say(f"{count} run folders")
        with tempfile.TemporaryDirectory() as folder:
            os.environ["PATH"] = f"{folder}:{before}"
            try:
                yield _asked(Path(folder), count)
            finally:
                os.environ["PATH"] = before


def _asked(folder: Path, count: int) -> tuple[float, ...]:
    names = [f"job-{number:05}" for number in range(count)]
    squeue = folder / "squeue"
    squeue.write_text(f"#!/bin/sh\ncd {folder}\necho >>asked\ncat listing\n")
    squeue.chmod(0o755)
    lines = (f"12|{task}|PENDING|N/A|Priority|{names[0]}\n" for task in range(count))
    (folder / "listing").write_text("".join(lines))
    store = Store(folder / "store", lambda: None)
    store.cluster.mkdir()
    for task, name in enumerate(names):
        run = RunFolder(store.runs / name)
        run.path.mkdir()
        run.request.write_bytes(to_bytes(RunRequest(name, "job", "0" * 64, "true")))
        run.job.write_bytes(to_bytes(Job(names[0], str(task), f"12_{task}")))

    begun = time.monotonic()
    news, _ = watch(store, Watch(tuple(Offsets(name) for name in names)))
    first_s = time.monotonic() - begun
    assert all(report.alive for report in news.reports), "a run that waits was told otherwise"
    assert len(news.reports) == count, f"{len(news.reports)} of {count} runs were told of"
    begun = time.monotonic()
    seen = tuple(Offsets(report.run_id, seen=report.stamp) for report in news.reports)
    again, _ = watch(store, Watch(seen))
    again_s = time.monotonic() - begun
    assert not again.reports, "what has not changed was told again"
    asked = len((folder / "asked").read_text().splitlines())
    assert asked <= 2 * _ASKED_AT_MOST, f"squeue was asked {asked} times"
    return count, round(first_s, 3), round(again_s, 3), asked
