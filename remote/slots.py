"""The queue without a daemon: supervisors wait for slots in the order of their tickets.

A slot is a held lock (`locks/gpu0`), so that a dead holder frees it by itself. A ticket is an
empty file `queue/<number>-<run id>`; it counts only while its run's supervisor lives.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple, Union

from remote.gpu import Gpu, GpuProcess, GpuTrouble, read_gpu_processes, read_gpus
from remote.lock import holding, is_held, take
from remote.protocol import Room
from remote.record import Malformed, from_bytes
from remote.restart import may_restart
from remote.runfolder import RunFolder, RunRequest, is_run_id
from remote.store import Store


class Slots(NamedTuple):
    """What a run may use from now on.

    Attributes:
        names: of the slots held.
        gpus: indexes for CUDA_VISIBLE_DEVICES; None leaves the job to see what there is.
        descriptors: of the held locks; the slots are free when they are closed.
    """

    names: Tuple[str, ...]
    gpus: Optional[Tuple[int, ...]]
    descriptors: Tuple[int, ...]


class Waiting(NamedTuple):
    """Attributes:
    reason: who or what is in front, for the user.
    """

    reason: str


def take_ticket(store: Store, run_id: str) -> None:
    """Put the run at the end of the queue, once; a run that has a ticket keeps its place. Those of
    the dead go, since nobody comes for them.

    Only for the holder of the run's lock: so no ticket seems dead that somebody is about to use.
    """
    queue = store.root / "queue"
    with holding(store.lock_path("queue"), meanwhile=store.tick):
        tickets = _tickets(store)
        if all(_run_of(ticket) != run_id for ticket in tickets):
            last = max((int(ticket.name.partition("-")[0]) for ticket in tickets), default=0)
            (queue / f"{last + 1:012d}-{run_id}").touch()
        for ticket in tickets:
            folder = RunFolder(store.runs / _run_of(ticket))
            if not is_held(folder.lock) and not may_restart(folder):
                # Its supervisor may just have left the queue, and died.
                ticket.unlink(missing_ok=True)


def drop_ticket(store: Store, run_id: str) -> None:
    """Leave the queue."""
    for ticket in _tickets(store):
        if _run_of(ticket) == run_id:
            ticket.unlink(missing_ok=True)


def try_slots(store: Store, request: RunRequest) -> Union[Slots, Waiting]:
    """The run's slots, if it is its turn and enough are free; else what it waits for.

    On a machine without GPUs (declared, or seen) the one slot is `cpu0`. A job that wants no GPU
    waits for nothing and sees none.
    """
    if request.gpus == 0:
        return Slots((), (), ())
    if request.slurm is not None:
        return Slots((), None, ())  # given by the cluster, which says so in the environment
    with holding(store.lock_path("dispatch"), meanwhile=store.tick):
        ahead = _ahead(store, request.run_id)
        if ahead:
            more = f" and {len(ahead) - 1} more" if len(ahead) > 1 else ""
            return Waiting(f"behind {ahead[0]}{more}")
        # Asked only at the head of the queue: nvidia-smi may take a second.
        try:
            seen = read_gpus() if request.slots != 0 else ()
        except GpuTrouble as trouble:
            return Waiting(f"the GPU driver does not answer: {trouble}")
        count = len(seen) if request.slots is None else request.slots
        if count:
            names = tuple(f"gpu{index}" for index in range(count))
            return _take(store, names, request.gpus, seen, request.run_id)
        return _take(store, ("cpu0",), 1, seen, request.run_id)


def look_for_room(store: Store, declared: Optional[int]) -> Room:
    """How many slots there are and are free, and how many are waited for.

    Args:
        declared: how many GPUs there are; None asks the driver.

    Raises:
        GpuTrouble: the driver has to say how many there are, and does not.
    """
    seen: Tuple[Gpu, ...] = ()
    if declared != 0:
        try:
            seen = read_gpus()
        except GpuTrouble:
            if declared is None:
                raise
    count = len(seen) if declared is None else declared
    names = [f"gpu{index}" for index in range(count)] or ["cpu0"]
    free = [name for name in names if not is_held(store.lock_path(name))]
    strangers = _processes() if seen and free else ()
    free = [name for name in free if not _user(name, seen, strangers)]
    waiting = 0
    for ticket in _tickets(store):
        folder = RunFolder(store.runs / _run_of(ticket))
        try:
            if is_held(folder.lock):
                wanted = from_bytes(RunRequest, folder.request.read_bytes()).gpus
                waiting += wanted if count else 1
        except (FileNotFoundError, Malformed):
            pass  # it was dropped meanwhile
    return Room(len(names), len(free), waiting, count > 0)


def _take(
    store: Store, names: Tuple[str, ...], needed: int, seen: Tuple[Gpu, ...], run_id: str
) -> Union[Slots, Waiting]:
    taken: List[Tuple[str, int]] = []
    busy: List[str] = []
    for name in names:
        descriptor = take(store.lock_path(name))
        if descriptor is None:
            busy.append(f"waits for slot {name}, held by {_holder(store.lock_path(name))}")
            continue
        # Nobody has signed it yet: it is the first, or somebody has removed the one before.
        if not os.fstat(descriptor).st_size and _is_held_removed(store.lock_path(name)):
            os.close(descriptor)
            busy.append(f"waits for slot {name}, held by a run though the lock's file was removed")
            continue
        # Asked only now: on a slot of ours, the process would be our own run's.
        stranger = _stranger(name, seen)
        if stranger:
            os.close(descriptor)
            busy.append(stranger)
            continue
        taken.append((name, descriptor))
        if len(taken) == needed:
            _sign(taken, run_id)
            indexes = None if names == ("cpu0",) else tuple(int(name[3:]) for name, _ in taken)
            return Slots(
                tuple(name for name, _ in taken), indexes, tuple(held for _, held in taken)
            )
    for _, descriptor in taken:
        os.close(descriptor)
    return Waiting("; ".join(busy) or f"needs {needed} slots of {len(names)}")


def _sign(taken: List[Tuple[str, int]], run_id: str) -> None:
    """Say in the locks' files who holds them, for those who wait, unless the disk is full."""
    for _, descriptor in taken:
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, run_id.encode("ascii"), 0)
        except OSError:
            pass


def _holder(lock: Path) -> str:
    """The run that holds a slot; the file keeps its name after it, so ask only while it does."""
    run_id = lock.read_bytes()[:200].decode("ascii", "replace")
    return run_id if is_run_id(run_id) else "another run"


def _is_held_removed(lock: Path) -> bool:
    """Whether a process holds what was this lock's file before it was removed.

    Source: proc(5), Linux man-pages: /proc/[pid]/fd.
    """
    removed = f"{os.path.realpath(lock)} (deleted)"
    for process in Path("/proc").glob("[0-9]*/fd"):
        try:
            for descriptor in process.iterdir():
                if os.readlink(descriptor) == removed:
                    return True
        except OSError:
            continue  # another user's, or it ended meanwhile
    return False


def _stranger(slot: str, seen: Tuple[Gpu, ...]) -> str:
    """A process that is not ours on the GPU behind a slot that none of our runs holds."""
    is_seen = any(f"gpu{gpu.index}" == slot for gpu in seen)
    return _user(slot, seen, _processes()) if is_seen else ""


def _processes() -> Tuple[GpuProcess, ...]:
    try:
        return read_gpu_processes()
    except GpuTrouble:
        return ()


def _user(slot: str, seen: Tuple[Gpu, ...], processes: Tuple[GpuProcess, ...]) -> str:
    uuids = {gpu.uuid for gpu in seen if f"gpu{gpu.index}" == slot}
    for process in processes:
        if process.gpu_uuid in uuids:
            return f"{slot} is used by {process.name} (pid {process.pid}), not one of our runs"
    return ""


def _ahead(store: Store, run_id: str) -> Tuple[str, ...]:
    ahead = []
    for ticket in _tickets(store):
        other = _run_of(ticket)
        if other == run_id:
            break
        if is_held(RunFolder(store.runs / other).lock):
            ahead.append(other)
    return tuple(ahead)


def _tickets(store: Store) -> List[Path]:
    return sorted((store.root / "queue").iterdir())


def _run_of(ticket: Path) -> str:
    return ticket.name.partition("-")[2]
