"""Two hundred short runs over a pool of eight hosts, of which two are killed in the middle."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.points import only_in_faults, tell
from tests.laptop import wait_until
from tests.pools import LabPool, PoolHost, end_of

pytestmark = [pytest.mark.faults, pytest.mark.sshd, pytest.mark.timeout(1200)]

JOBS = tuple(f"job{number:03}" for number in range(200))
GPUS = [1, 2, 1, 2, 1, 2, 1, 2]
KILLED = (1, 4)
# Of runs that are home when the two are killed.
MIDDLE = 60


@only_in_faults
def test_all_work_ends_exactly_once_though_two_of_eight_hosts_die(tmp_path: Path) -> None:
    with LabPool(tmp_path, GPUS) as lab:
        lab.add_jobs(*JOBS, restart="on-interruption")
        lab.open(*JOBS)
        killed = [lab.hosts[number] for number in KILLED]
        begun_s = time.monotonic()
        with lab.train() as process:
            wait_until(lambda: lab.heard("queued") > len(JOBS) / 2, "all are accepted")
            accepted_s = time.monotonic() - begun_s
            wait_until(lambda: lab.heard("succeeded") >= MIDDLE, "the middle")
            for host in killed:
                host.die()
            killed_s = time.monotonic() - begun_s
            # What had ended there and was not home is fetched when they are back.
            while len(lab.models) < len(JOBS) - len(away(killed, lab)):
                assert process.poll() is None, end_of(process)
                time.sleep(1)
            rest_s, waited = time.monotonic() - begun_s, len(JOBS) - len(lab.models)
            for host in killed:
                host.boot()
            code, said = end_of(process, limit_s=300)
        all_s = time.monotonic() - begun_s
        assert code == 0, said[-5000:]
        assert list(lies(lab, killed)) == []
        moved = [line for line in said.splitlines() if " goes on as " in line]
        whys = Counter(line.rpartition(": ")[2] for line in moved)
        sys.stdout.write(f"accepted after {accepted_s:.0f} s, two killed after {killed_s:.0f} s, ")
        sys.stdout.write(f"all but {waited} home after {rest_s:.0f} s, all after {all_s:.0f} s; ")
        sys.stdout.write(f"moved: {whys}\n")
        tell("2 of 8 hosts killed under 200 runs", len(JOBS), "all work ends once, none is lost")


def away(killed: list[PoolHost], lab: LabPool) -> set[str]:
    """Jobs that had ended on the killed hosts, as these say, and are not home."""
    home = {m.read_text().removeprefix("made by ") for m in lab.models}
    ended = {run for host in killed for run, state in host.states().items() if state == "succeeded"}
    return ended - home


def lies(lab: LabPool, killed: list[PoolHost]) -> Iterator[str]:
    """What does not fit, by the hosts' folders, the laptop's, and its ledger, each read alone.

    What a killed host had begun was begun again elsewhere. It may even have ended there, in the
    second before, and nobody could know.
    """
    states = [host.states() for host in lab.hosts]
    places = Counter(run for found in states for run in found)
    yield from (f"{run} is on {count} hosts" for run, count in places.items() if count > 1)
    lost = {run for host in killed for run in host.starts if lab.mirrors[run].successor}
    by_run = {run: state for found in states for run, state in found.items()}
    done = Counter(job_of(run) for run in by_run.keys() - lost if by_run[run] == "succeeded")
    yield from (f"{job} ended {done[job]} times on the hosts" for job in JOBS if done[job] != 1)
    for host in lab.hosts:
        for run, state in host.states().items():
            if state not in ("succeeded", "cancelled") and host not in killed:
                yield f"{run} is {state} on a host that lived"
    starts = Counter(run for host in lab.hosts for run in host.starts)
    yield from (f"{run} was begun {count} times" for run, count in starts.items() if count > 1)
    begun, again = Counter(map(job_of, starts)), Counter(map(job_of, lost))
    yield from (
        f"{job} was begun {begun[job]} times" for job in JOBS if begun[job] != 1 + again[job]
    )
    for job in JOBS:
        made = (lab.laptop.root / job / "mymodel.h5").read_text().removeprefix("made by ")
        if by_run.get(made) != "succeeded" or job_of(made) != job:
            yield f"the model of {job} is by {made}"
    ends = Counter(
        m.request.job for m in lab.mirrors.values() if m.verdict == "succeeded" and not m.successor
    )
    yield from (f"{job} ended {ends[job]} times here" for job in JOBS if ends[job] != 1)
    told = Counter(job_of(run) for run in recorded(lab) - lost)
    yield from (f"{job} ended {told[job]} times by the ledger" for job in JOBS if told[job] != 1)


def recorded(lab: LabPool) -> set[str]:
    """Runs that succeeded, as the ledger has it."""
    with closing(sqlite3.connect(lab.laptop.home / "ledger.sqlite3")) as ledger:
        rows = ledger.execute("SELECT run_id FROM run_event WHERE state = 'succeeded'")
        return {run for (run,) in rows}


def job_of(run: str) -> str:
    return run.rsplit("-", 3)[0]
