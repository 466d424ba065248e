"""A run that was interrupted and goes on: whether it may, how often it did, what it did before.

Interrupted is a run without an end whose lock is free: the machine went down or was taken away, or
the run's supervisor was killed. Nothing of ours starts with the machine, so it is the next agent
that is asked about the run which starts it again.

After a crash at any point: the count is on the disk before a supervisor is started, so that a run
is never restarted more often than it may; one that crashed in between was counted for nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Optional

from remote import clock
from remote.atomic import replace_file
from remote.record import Malformed, from_bytes
from remote.runfolder import Attempt, RunFolder, RunRequest, RunState, State, gang_folders


def may_restart(folder: RunFolder, *, by_cluster: bool = False) -> bool:
    """Whether a run, if nobody holds its lock, is to be started again. Of a gang none goes on
    without the others, so each of them must be one that may.

    Args:
        by_cluster: whether a cluster starts all of its gang again, and the others may have counted
            that already.
    """
    try:
        request = from_bytes(RunRequest, folder.request.read_bytes())
        if not folder.state.exists():
            return False
        gang = gang_folders(folder, request)
        if any((state := read_state(each)) and state.state.final for each in gang):
            return False
        counts = [read_restarts(each) for each in ((folder,) if by_cluster else gang)]
        return max(counts) < request.restarts
    except (FileNotFoundError, Malformed, ValueError):
        return False


def read_state(folder: RunFolder) -> Optional[RunState]:
    """The state its supervisor wrote last; None before the first."""
    try:
        return from_bytes(RunState, folder.state.read_bytes())
    except FileNotFoundError:
        return None


def read_restarts(folder: RunFolder) -> int:
    """How often it was started again."""
    try:
        return int(folder.restarts.read_bytes())
    except FileNotFoundError:
        return 0


def count_restart(folder: RunFolder) -> None:
    """It is about to be started again. Only for the holder of its lock.

    Raises:
        OSError: no space; it is then not counted, and not to be started.
    """
    _write_restarts(folder, read_restarts(folder) + 1)


@contextmanager
def counted_restart(folder: RunFolder) -> Iterator[None]:
    """For the block that starts it again, where an OSError says that it could not be."""
    before = read_restarts(folder)
    count_restart(folder)
    try:
        yield
    except OSError:
        _write_restarts(folder, before)
        raise


def _write_restarts(folder: RunFolder, count: int) -> None:
    replace_file(folder.restarts, b"%d\n" % count)


def first_state(folder: RunFolder) -> RunState:
    """The state in which a supervisor begins: queued, with what was done before it."""
    if folder.job.exists():
        # Another machine than the one that is asked about it later, and it has waited before.
        queued_at = clock.moment(folder.request.stat().st_mtime)
        state = RunState(State.QUEUED, queued_at)
    else:
        state = RunState(State.QUEUED, queued_at=clock.now(), boot_id=clock.boot_id())
    restarts = read_restarts(folder)
    if not restarts:
        return state
    before = from_bytes(RunState, folder.state.read_bytes())
    attempt = Attempt(_last_sign(folder, before), before.setting_up_at, before.running_at)
    return state._replace(
        queued_at=before.queued_at, restarts=restarts, earlier=(*before.earlier, attempt)
    )


def has_run(state: RunState) -> bool:
    """Whether the command was started, in this attempt or an earlier one."""
    begun = [state.running_at, *(attempt.running_at for attempt in state.earlier)]
    return any(at is not None for at in begun)


def ran_before_s(state: RunState) -> float:
    """For how long the command ran in earlier attempts."""
    return sum(
        clock.seconds_between(attempt.running_at, attempt.ended_at)
        for attempt in state.earlier
        if attempt.running_at is not None
    )


def _last_sign(folder: RunFolder, state: RunState) -> str:
    """When it last wrote anything: a running job is sampled every few seconds."""
    times = [
        path.stat().st_mtime
        for path in (folder.state, folder.log, folder.metrics, folder.usage)
        if path.exists()
    ]
    # A clock that was set back must not make it end before it began.
    return max(clock.moment(max(times)), state.running_at or state.setting_up_at or state.queued_at)
