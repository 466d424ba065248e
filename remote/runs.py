"""The runs of a store, as the agent sees them: start, look at, cancel, hand out."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Dict, List, Optional, Sequence, Tuple

from remote.atomic import replace_file, sync_folder, temporary_beside
from remote.lock import is_held, take
from remote.outputs import LIMIT_SHARE
from remote.protocol import (
    CHUNK_BYTES,
    News,
    Offsets,
    Piece,
    RunReport,
    Submitted,
    Watch,
    share_of_head,
)
from remote.record import Malformed, from_bytes, to_bytes
from remote.restart import counted_restart, first_state, may_restart, read_state
from remote.room import set_aside
from remote.runfolder import (
    GANG_LIMIT,
    GIVEN_BACK,
    Artifacts,
    Ended,
    RunFolder,
    RunRequest,
    State,
    chief_id,
    is_run_id,
    worker_id,
)
from remote.slots import take_ticket
from remote.store import Store
from remote.tree import BadTree, check_path, is_digest
from remote.trouble import explain

if TYPE_CHECKING:
    from remote.jobs import Word

_WATCH_POLL_S = 0.1
_ELSEWHERE_POLL_S = 1.0
# Well below what a frame may hold; the runs that do not fit in are told of at the next call.
_NEWS_LIMIT_BYTES = 8 * 2**20


class Refusal(Exception):
    """The agent says no; `code` is for programs, the text for the user."""

    def __init__(self, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.fix = fix


def start_runs(store: Store, requests: Tuple[RunRequest, ...], package: bytes) -> Submitted:
    """Start each run, unless it was started before; nothing at all while a tree is unknown.

    On a login node of a cluster, to start is to hand in.

    Raises:
        Refusal: a request that no run of this machine could fulfil.
        OSError: no space, no permission. Asking again starts what was not started.
    """
    for request in requests:
        _check_request(request)
    digests = {request.tree for request in requests}
    digests |= {data.digest for request in requests for data in request.data}
    # Nothing may go between the question whether it is there and the run that needs it.
    with store.untidied():
        unknown = tuple(sorted(digest for digest in digests if not store.has_tree(digest)))
        if unknown:
            return Submitted(unknown)
        _check_gpus(requests)
        left = [request for request in requests if not _start(store, request, package)]
        if left:
            from remote.handin import hand_in

            hand_in(store, [RunFolder(store.runs / request.run_id) for request in left])
    return Submitted(())


def watch(store: Store, call: Watch) -> Tuple[News, bytes]:
    """What is new beyond the offsets: at once if anything is, else what is after `wait_s`."""
    end = time.monotonic() + call.wait_s
    folders = [RunFolder(store.runs / o.run_id) for o in call.runs if is_run_id(o.run_id)]
    is_elsewhere = any(folder.job.exists() for folder in folders)
    # On a server of files each look is a question to it.
    poll_s = _ELSEWHERE_POLL_S if is_elsewhere else _WATCH_POLL_S
    while True:
        signs = _signs(store, folders, is_elsewhere=is_elsewhere)
        news, body = _news(store, call.runs)
        if body or news.reports or news.missing or time.monotonic() >= end:
            return news, body
        while time.monotonic() < end and _signs(store, folders, is_elsewhere=is_elsewhere) == signs:
            store.tick()
            time.sleep(poll_s)


def list_runs(store: Store) -> News:
    """Every run, oldest first."""
    folders = [path for path in store.runs.iterdir() if is_run_id(path.name)]
    folders.sort(key=lambda path: (path.stat().st_mtime, path.name))
    words = _ask_cluster(store, folders)
    reports = [_report(store, RunFolder(path), words.get(path.name)) for path in folders]
    return News(tuple(report for report in reports if report is not None), (), ())


def cancel(store: Store, run_id: str, fallen: Optional[Ended] = None, why: str = "") -> None:
    """Leave word for the run's supervisor; a run that has ended stays as it is, and a word that was
    left before.

    Args:
        fallen: the one of its gang that it is ended for.
        why: see `protocol.Cancel`.
    """
    folder = run_folder(store, run_id)
    word = why.encode("utf-8") if fallen is None else to_bytes(fallen)
    if word and not folder.cancel.exists():
        with suppress(OSError):  # on a full disk it ends without a reason
            replace_file(folder.cancel, word)
    folder.cancel.touch()
    if folder.job.exists():
        from remote.handin import withdraw

        withdraw(store, folder)


def give_back(store: Store, run_id: str, *, begun: bool) -> None:
    """Leave word for the run's supervisor that it is to end for a run on another host.

    Args:
        begun: also if it has begun.
    """
    folder = run_folder(store, run_id)
    if not begun:
        folder.give_back.touch()
    elif not folder.cancel.exists():
        replace_file(folder.cancel, GIVEN_BACK.encode("ascii"))


def open_artifact(store: Store, run_id: str, path: str) -> Tuple[BinaryIO, int]:
    """The file of an artifact that the run recorded, and its size then, in bytes.

    No other file is handed out.
    """
    folder = run_folder(store, run_id)
    try:
        status = folder.artifacts.stat()
        sizes = _recorded_sizes(folder.artifacts, (status.st_ino, status.st_mtime_ns))
    except FileNotFoundError:
        raise Refusal("no-artifacts", f"{run_id} has not ended") from None
    if path not in sizes:
        raise Refusal("no-artifact", f"{run_id} has no output {path!r}")
    try:
        # As bytes, because names are UTF-8, whatever this machine's locale says.
        name = os.path.join(os.fsencode(folder.tree), path.encode())  # noqa: PTH118
        return open(name, "rb"), sizes[path]  # noqa: PTH123
    except FileNotFoundError:
        raise Refusal("no-artifact", f"{path!r} of {run_id} was removed on the VM") from None


@lru_cache(maxsize=1)
def _recorded_sizes(file: Path, stamp: Tuple[int, int]) -> Dict[str, int]:
    """By path, in bytes. Kept, because a laptop asks for one after the other, and reading the list
    of ten thousand takes longer than sending one.

    Args:
        stamp: another when the file was replaced.
    """
    return {one.path: one.size_bytes for one in from_bytes(Artifacts, file.read_bytes()).files}


def run_folder(store: Store, run_id: str) -> RunFolder:
    """The folder of a run that is there.

    Raises:
        Refusal: there is none.
    """
    folder = RunFolder(store.runs / run_id)
    if not is_run_id(run_id) or not folder.request.exists():
        raise Refusal("unknown-run", f"this machine knows no run {run_id[:80]!r}")
    return folder


def _check_request(request: RunRequest) -> None:
    if not is_run_id(request.run_id):
        raise Refusal("bad-request", f"not a run id: {request.run_id[:80]!r}")
    if (gang := request.gang) is not None:
        is_sound = 0 <= gang.rank < gang.size <= GANG_LIMIT and (
            request.run_id == worker_id(chief_id(request.run_id), gang.rank)
            and len(gang.addresses) in (0 if request.slurm else gang.size, gang.size)
        )
        if not is_sound:
            raise Refusal("bad-request", f"{request.run_id} has no such place in a gang")
    digests = [request.tree, *(data.digest for data in request.data)]
    if not all(is_digest(digest) for digest in digests):
        raise Refusal("bad-request", "a tree is named by something that is no digest")
    paths = [*request.outputs, *(data.path for data in request.data)]
    try:
        for path in paths + ([request.requirements] if request.requirements else []):
            check_path(path)
    except BadTree as error:
        raise Refusal("bad-request", str(error)) from error


def _check_gpus(requests: Tuple[RunRequest, ...]) -> None:
    """Refuse now what would wait for ever in the queue."""
    # How many a cluster's nodes have, it says itself.
    mine = [request for request in requests if request.slots != 0 and request.slurm is None]
    wanted = max((request.gpus for request in mine), default=0)
    if wanted == 0:
        return
    from remote.gpu import GpuTrouble, read_gpus

    declared = mine[0].slots
    try:
        there = len(read_gpus()) if declared is None else declared
    except GpuTrouble as trouble:
        raise Refusal(
            "no-gpu", f"the GPU driver does not answer: {trouble}", "see: train doctor NAME"
        ) from trouble
    if wanted > there:
        raise Refusal(
            "no-gpu",
            f"a job wants {wanted} GPU(s), this machine shows {there}",
            "if it is to train on its CPU, give the remote `gpus: 0`; else see: train doctor NAME",
        )


def _start(store: Store, request: RunRequest, package: bytes) -> bool:
    """Returns:
    Whether nothing more is to be done; False where a cluster is to start it.
    """
    folder = RunFolder(store.runs / request.run_id)
    if not folder.path.exists():
        _make_folder(store, folder, request, package)
    if from_bytes(RunRequest, folder.request.read_bytes()) != request:
        raise Refusal("run-exists", f"another run has the id {request.run_id}")
    while (lock := take(folder.lock)) is None:
        if is_held(folder.lock):
            return True  # its supervisor lives
        # Somebody only looked, in that moment.
    try:
        state = read_state(folder)
        if state is None or state.state is State.QUEUED:
            if request.slurm is not None:
                return False
            take_ticket(store, request.run_id)
            _spawn(folder, lock)
        return True
    finally:
        os.close(lock)


def _restart(store: Store, folder: RunFolder) -> bool:
    """Start a run again that was interrupted; False where it may not be, or has ended.

    Of several agents that find it at once, the one with the lock does it.

    Raises:
        OSError: no space, no processes. It stays interrupted, is not counted, and the next one
            tries again.
    """
    if not may_restart(folder):
        return False
    # Nothing that it needs may go meanwhile.
    with store.untidied():
        lock = take(folder.lock)
        if lock is None:
            return True  # somebody else was quicker
        try:
            # As it is by now: another may have restarted it, and it may have ended since.
            if not may_restart(folder):
                return False
            if folder.job.exists():
                from remote.handin import hand_in_again

                hand_in_again(store, folder)
            else:
                with counted_restart(folder):
                    take_ticket(store, folder.path.name)
                    _spawn(folder, lock)
            return True
        finally:
            os.close(lock)


def _make_folder(store: Store, folder: RunFolder, request: RunRequest, package: bytes) -> None:
    temporary = RunFolder(temporary_beside(folder.path))
    temporary.path.mkdir(mode=0o700)
    try:
        replace_file(temporary.package, package)
        replace_file(temporary.request, to_bytes(request))
        temporary.log.touch()  # where the supervisor could make no file, nobody would be told why
        set_aside(temporary.path)
        temporary.path.rename(folder.path)
    except OSError:
        shutil.rmtree(temporary.path, ignore_errors=True)
        if not folder.path.exists():
            raise
        # Another call made it in this moment.
    sync_folder(store.runs)


def _spawn(folder: RunFolder, lock: int) -> None:
    """Start the supervisor with the lock in its hands: there is no moment without a holder."""
    with (folder.path / "supervisor.log").open("ab") as log:
        subprocess.Popen(
            # The names of a tree are UTF-8, whatever this machine's locale says.
            [sys.executable, "-X", "utf8", str(folder.package), str(folder.path), str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=str(folder.path),
            pass_fds=(lock,),
            start_new_session=True,
        )


def _signs(store: Store, folders: Sequence[RunFolder], *, is_elsewhere: bool) -> List[object]:
    """What changes with anything new, and costs a training machine next to nothing to look at."""
    signs: List[object] = []
    if is_elsewhere:
        from remote.listing import look

        signs.append(look(store).changed_s)
    for folder in folders:
        store.tick()
        signs.append(is_held(folder.lock))
        for path in (folder.state, folder.log, folder.metrics, folder.usage):
            try:
                status = path.stat()
            except FileNotFoundError:
                signs.append(None)
            else:
                signs += (status.st_ino, status.st_mtime_ns, status.st_size)
    return signs


def _news(store: Store, runs: Tuple[Offsets, ...]) -> Tuple[News, bytes]:
    reports: List[RunReport] = []
    pieces: List[Piece] = []
    missing: List[str] = []
    body = bytearray()
    share = 0.0
    words = _ask_cluster(store, [store.runs / o.run_id for o in runs if is_run_id(o.run_id)])
    left: Tuple[Offsets, ...] = ()
    for told, offsets in enumerate(runs):
        if len(body) >= _NEWS_LIMIT_BYTES:
            left = runs[told:]
            break
        folder = RunFolder(store.runs / offsets.run_id)
        # Before the files are read: the last lines of a run that ends now come with its end.
        word = words.get(offsets.run_id)
        report = _report(store, folder, word) if is_run_id(offsets.run_id) else None
        try:
            while report is not None and not report.alive and _restart(store, folder):
                word = _ask_cluster(store, [folder.path]).get(offsets.run_id)
                report = _report(store, folder, word)
        except OSError as error:
            # It is not lost, and what others have made can be told and fetched meanwhile.
            report = _put_off(store, report, error)
        if report is None:
            missing.append(offsets.run_id)
            continue
        # Of one that is over nothing new is to be waited for. Of a thousand that go on, most have
        # not changed, and reading their reports takes a laptop longer than all the rest.
        if _is_over(report) or report.stamp != offsets.seen:
            share += share_of_head(artifact.path for artifact in report.artifacts)
            if reports and share > LIMIT_SHARE:
                left = runs[told:]
                break
            reports.append(report)
        sources = {
            "log": (folder.log, offsets.log),
            "metrics": (folder.metrics, offsets.metrics),
            "usage": (folder.usage, offsets.usage),
        }
        for name, (path, offset) in sources.items():
            start, block = _read(path, offset)
            if block:
                if may_restart(folder):
                    # It goes on after a power cut, and then right behind what a laptop has of it.
                    _sync(path)
                pieces.append(Piece(offsets.run_id, name, start, len(block)))
                body += block
    later = tuple(offsets.run_id for offsets in left)
    return News(tuple(reports), tuple(pieces), tuple(missing), later), bytes(body)


def _is_over(report: RunReport) -> bool:
    return not report.alive or (report.state is not None and report.state.state.final)


def _read(path: Path, offset: int) -> Tuple[int, bytes]:
    """A piece and where it starts: at `offset`, counted from the end where that is negative."""
    try:
        with path.open("rb") as file:
            start = offset if offset >= 0 else max(0, file.seek(0, os.SEEK_END) + offset)
            file.seek(start)
            return start, file.read(CHUNK_BYTES)
    except (FileNotFoundError, IsADirectoryError):
        return 0, b""


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        pass  # it was removed, or the disk fails; what is there is told nevertheless


def _put_off(store: Store, report: Optional[RunReport], error: OSError) -> Optional[RunReport]:
    """Of a run that cannot be restarted now, as one that goes on."""
    if report is None or report.state is None:
        return report
    why = f"cannot be restarted yet: {explain(error, store.root).message}"
    return _stamped(report._replace(alive=True, state=report.state._replace(reason=why)))


def _stamped(report: RunReport) -> RunReport:
    content = to_bytes(report.state) if report.state is not None else b""
    content += b"+" if report.alive else b"-" + report.lost.encode()
    stamp = hashlib.sha256(content).hexdigest()[:16]
    return report._replace(stamp=stamp)


def _ask_cluster(store: Store, folders: Sequence[Path]) -> Dict[str, Word]:
    """What is known of those that are a cluster's jobs, by run id; nothing on other machines."""
    if not store.cluster.exists():
        return {}
    from remote import jobs

    return jobs.ask(store, map(RunFolder, folders))


def _is_begun_just_now(store: Store, folder: RunFolder) -> bool:
    """Of a run that nobody seemed to see to: its folder is there before whoever starts it, or hands
    it in, has come to that.
    """
    if store.is_untidied():
        return True
    # It may have come to that since it was looked at.
    return is_held(folder.lock) or folder.job.exists() or read_state(folder) is not None


def _report(store: Store, folder: RunFolder, word: Optional[Word]) -> Optional[RunReport]:
    """Args:
    word: the cluster's, if it is a job of one.
    """
    store.tick()
    try:
        request = from_bytes(RunRequest, folder.request.read_bytes())
        # Alive first: a supervisor that ends between the two has written its final state.
        alive = is_held(folder.lock)
        state = read_state(folder)
        artifacts: Tuple[()] = ()
        recorded = Artifacts(artifacts)
        if state is not None and state.state.final:
            recorded = from_bytes(Artifacts, folder.artifacts.read_bytes())
        elif word is not None and not alive:
            alive, state = not word.lost, (state or first_state(folder))._replace(reason=word.waits)
        elif state is None and not alive:
            alive = _is_begun_just_now(store, folder)
    except (FileNotFoundError, Malformed):
        return None
    lost = word.lost if word is not None and not alive else ""
    report = RunReport(folder.path.name, request.job, alive, "", state, recorded.files, lost)
    return _stamped(report)
