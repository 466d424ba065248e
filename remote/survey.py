"""What a cluster would say to a run, for `train doctor`: asked on its login node, and in a job."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator, List, Tuple

from remote import slurm
from remote.atomic import replace_file
from remote.lock import holding, take
from remote.protocol import Partition, Sighting, Survey, Surveyed
from remote.record import from_bytes, to_bytes
from remote.runfolder import RunRequest
from remote.store import Store
from remote.terms import job_options, job_script
from remote.trouble import SlurmTrouble

# Of a job that should start at once: longer than a server of files takes to tell of a new file.
_JOB_LIMIT_S = 120.0
_POLL_S = 0.5


def survey(store: Store, call: Survey, package: bytes) -> Surveyed:
    """Look at the cluster; every trouble is told, none is raised."""
    try:
        version = slurm.ask(["sbatch", "--version"], store.tick).strip()
        partitions = tuple(_partitions(store))
    except SlurmTrouble as trouble:
        return Surveyed(trouble=str(trouble))
    wanted = list(job_options(RunRequest("", "", "", "", gpus=call.gpus, slurm=call.terms)))
    try:
        slurm.ask(["sbatch", "--test-only", *wanted], store.tick, job_script("true\n", call.terms))
    except SlurmTrouble as trouble:
        return Surveyed(version, partitions, refusal=str(trouble))
    if not call.with_job:
        return Surveyed(version, partitions)
    try:
        return Surveyed(version, partitions, seen=_try_job(store, wanted, call, package))
    except (SlurmTrouble, TimeoutError) as trouble:
        return Surveyed(version, partitions, job_trouble=str(trouble))


def _partitions(store: Store) -> Iterator[Partition]:
    lines = slurm.ask(["sinfo", "-h", "-o", "%R|%a|%D|%l|%G"], store.tick).splitlines()
    for line in lines:
        name, state, nodes, limit, gres = (*line.split("|", 4), "", "", "", "")[:5]
        yield Partition(name, state, nodes, limit, gres)


def _try_job(store: Store, wanted: List[str], call: Survey, package: bytes) -> Sighting:
    """What a job sees of this store.

    Raises:
        SlurmTrouble: it was refused.
        TimeoutError: it has not spoken in time; it is withdrawn.
    """
    with tempfile.TemporaryDirectory(prefix="try-", dir=str(store.root)) as name:
        folder = Path(name)
        (folder / "remote.zip").write_bytes(package)
        words = [sys.executable, str(folder / "remote.zip"), "look", name]
        script = job_script(f"exec {' '.join(map(shlex.quote, words))}\n", call.terms)
        with holding(folder / "lock"):
            named = [*wanted, "--job-name=trainshed-doctor", "--time=2"]
            number = slurm.hand_in(named, script, store.tick)
            end = time.monotonic() + _JOB_LIMIT_S
            while time.monotonic() < end:
                # A listing asks the server of files anew, where a name alone may be remembered.
                if folder / "seen" in folder.iterdir():
                    return from_bytes(Sighting, (folder / "seen").read_bytes())
                store.tick()
                time.sleep(_POLL_S)
            slurm.withdraw(number, store.tick)
    raise TimeoutError(f"job {number} wrote nothing into {store.root} within {_JOB_LIMIT_S:g} s")


def main(arguments: Tuple[str, ...]) -> None:
    """In the job: write into folder `arguments[0]` what is seen of it."""
    folder = Path(arguments[0])
    lock = take(folder / "lock")
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    replace_file(folder / "seen", to_bytes(Sighting(socket.gethostname(), gpus, lock is None)))
