"""How a run begins in a cluster's job: by taking the run's lock, unless there is nothing to do."""

from __future__ import annotations

import os
import time

from remote.lock import take
from remote.restart import count_restart, may_restart, read_restarts, read_state
from remote.runfolder import RunFolder, State

# So long may a server of files keep the lock of a node that has failed: NFS, a lease of 90 s.
_DEAD_HOLDER_S = 180.0


def take_over(run: RunFolder) -> int:
    """The run's lock, as a file descriptor.

    A run that was given to the cluster twice is so executed once. One that has begun goes on only
    if the agent has counted a restart, or the cluster itself starts the job again after its node
    failed; that is counted here.

    Raises:
        SystemExit: another job has the run, or it has ended, or may not begin again.
    """
    is_again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    end = time.monotonic() + (_DEAD_HOLDER_S if is_again else 0.0)
    while (lock := take(run.lock)) is None:
        if time.monotonic() >= end:
            raise SystemExit("another job has this run")
        time.sleep(1.0)
    state = read_state(run)
    if state is None or state.state is State.QUEUED:
        return lock
    if state.state.final:
        raise SystemExit(0)  # cancelled while it waited, or handed in twice
    if read_restarts(run) <= state.restarts:
        if not is_again or not may_restart(run, by_cluster=True):
            raise SystemExit("it has begun before, and may not begin again")
        count_restart(run)
    return lock
