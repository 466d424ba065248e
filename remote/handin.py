"""Runs given to a cluster by the agent on its login node, and taken back.

After a crash at any point: a run's note is written before its job is handed in, and the job bears
the name in it; so whoever hands it in again finds it. Should a run be in Slurm twice all the same,
the second finds its lock held, or its state past the queue, and ends at once.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import ExitStack
from typing import Dict, List, Sequence, Tuple

from remote import clock, slurm
from remote.atomic import replace_file
from remote.jobs import Job, note, note_alive, read_job
from remote.listing import by_name, changing
from remote.lock import take
from remote.record import from_bytes, to_bytes
from remote.restart import counted_restart, first_state, read_state
from remote.runfolder import (
    Artifacts,
    RunFolder,
    RunRequest,
    Slurm,
    State,
    gang_folders,
    why_cancelled,
)
from remote.store import Store
from remote.terms import job_options, job_script
from remote.trouble import SlurmTrouble

# Slurm's default for MaxArraySize is 1001.
_ARRAY_LIMIT = 1000


def hand_in(store: Store, runs: Sequence[RunFolder]) -> None:
    """Give Slurm each of these runs that it does not have: those on like terms as one array.

    Raises:
        SlurmTrouble: it was refused. Asking again hands in what was not.
    """
    with changing(store):
        alike: Dict[Tuple[str, ...], List[RunFolder]] = {}
        for run in _lacking(store, runs):
            request = from_bytes(RunRequest, run.request.read_bytes())
            options = tuple(job_options(request))
            if request.gang is None:
                alike.setdefault(options, []).append(run)
            else:
                # All of it, whichever of them is lacking, in a job of its own.
                gang = gang_folders(run, request)
                alike[(f"--job-name={gang[0].path.name}", *options)] = list(gang)
        for options, group in alike.items():
            for first in range(0, len(group), _ARRAY_LIMIT):
                _hand_in(store, options, group[first : first + _ARRAY_LIMIT])


def hand_in_again(store: Store, run: RunFolder) -> None:
    """Give Slurm a run that was interrupted, with all of its gang, and count that; only for the
    holder of its lock.

    Nothing is done where Slurm has it after all: it queued it again by itself, or another agent
    found it interrupted at the same time and was quicker.

    Raises:
        SlurmTrouble: it was refused; it is not counted then.
        OSError: another of its gang has not ended yet.
    """
    request = from_bytes(RunRequest, run.request.read_bytes())
    gang = gang_folders(run, request)
    with changing(store), ExitStack() as stack:
        if not _lacking(store, [run]):
            return
        for other in gang:
            if other != run:
                lock = take(other.lock)
                if lock is None:
                    raise OSError("another of its gang has not ended")
                stack.callback(os.close, lock)
        for each in gang:
            if each.state.exists():  # one that never began, begins
                stack.enter_context(counted_restart(each))
        _hand_in(store, tuple(job_options(request)), gang)


def _lacking(store: Store, runs: Sequence[RunFolder]) -> List[RunFolder]:
    """Those that Slurm does not have. It is asked only where one may have been handed in before."""
    if not any(run.job.exists() for run in runs):
        return list(runs)
    known = by_name(slurm.places(store.tick))
    lacking = []
    for run in runs:
        job = read_job(run)
        place = known.get((job.name, job.task)) if job else None
        if job is None or place is None or place.ended:
            lacking.append(run)
        else:
            note_alive(run, job, place)
    return lacking


def _hand_in(store: Store, options: Sequence[str], runs: Sequence[RunFolder]) -> None:
    name = runs[0].path.name
    request = from_bytes(RunRequest, runs[0].request.read_bytes())
    is_array = len(runs) > 1 and request.gang is None
    jobs = [Job(name, str(task) if is_array else "") for task in range(len(runs))]
    for run, job in zip(runs, jobs):
        note(run, job)
    array = [f"--array=0-{len(runs) - 1}"] if is_array else []
    script = _script(store, [run.path.name for run in runs], request)
    try:
        if request.gang is not None:
            # Most clusters would let it wait for ever for more nodes than they have.
            slurm.ask(["sbatch", "--test-only", *options], store.tick, script)
        number = slurm.hand_in([f"--job-name={name}", *array, *options], script, store.tick)
    except SlurmTrouble as trouble:
        for run, job in zip(runs, jobs):
            note(run, job._replace(refusal=str(trouble)))
        raise
    for run, job in zip(runs, jobs):
        note(run, job._replace(number=f"{number}_{job.task}" if is_array else number))


def _script(store: Store, run_ids: Sequence[str], request: RunRequest) -> str:
    """What a compute node does: become the supervisor of the run, or of the array's next one; of a
    gang, each node of its own.
    """
    # On sbatch's command line, the names of a thousand runs would be too long for some systems.
    which = "SLURM_PROCID" if request.gang else "SLURM_ARRAY_TASK_ID"
    body = f"""\
set -- {" ".join(run_ids)}
shift "${{{which}:-0}}"
run={shlex.quote(os.fspath(store.runs))}/$1
cd "$run" || exit
exec >>supervisor.log 2>&1
exec {shlex.quote(sys.executable)} -X utf8 "$run/remote.zip" "$run"
"""
    if request.gang is not None:
        # When one has failed, srun warns the others, and kills what is left some time later
        # (Slurm's KillWait, 30 s). It does not see --cpus-per-task, since Slurm 22.05.
        cores = "${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}"
        body = f"""\
exec >>{shlex.quote(os.fspath(store.runs / run_ids[0] / "supervisor.log"))} 2>&1
exec srun --ntasks-per-node=1 --kill-on-bad-exit=1 {cores} sh -c {shlex.quote(body)}
"""
    return job_script(body, request.slurm or Slurm())


def withdraw(store: Store, run: RunFolder) -> None:
    """End a cancelled run that has no supervisor; one that has sees the file `cancel`.

    Raises:
        SlurmTrouble: the run has ended, but its job waits, and will end as soon as it starts.
    """
    lock = take(run.lock)
    if lock is None:
        return
    try:
        state = read_state(run) or first_state(run)
        if not state.state.final:
            replace_file(run.artifacts, to_bytes(Artifacts(())))
            end = state._replace(
                state=State.CANCELLED, reason=why_cancelled(run), ended_at=clock.now()
            )
            replace_file(run.state, to_bytes(end))
    finally:
        os.close(lock)
    job = read_job(run)
    if job is not None and job.number:
        with changing(store):
            slurm.withdraw(job.number, store.tick)
