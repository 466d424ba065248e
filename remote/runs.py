"""The runs of a store, as the agent sees them: start, look at, cancel, hand out."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO, List, Optional, Tuple

from remote.atomic import replace_file, sync_folder, temporary_beside
from remote.lock import is_held, take
from remote.outputs import LIMIT
from remote.protocol import (
    CHUNK_BYTES,
    News,
    Offsets,
    Piece,
    RunReport,
    Submitted,
    Watch,
)
from remote.record import Malformed, from_bytes, to_bytes
from remote.restart import count_restart, may_restart
from remote.room import set_aside
from remote.runfolder import (
    Artifacts,
    RunFolder,
    RunRequest,
    RunState,
    State,
    is_run_id,
)
from remote.slots import take_ticket
from remote.store import Store
from remote.tree import BadTree, check_path, is_digest
from remote.trouble import explain

_WATCH_POLL_S = 0.1
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
        for request in requests:
            _start(store, request, package)
    return Submitted(())


def watch(store: Store, call: Watch) -> Tuple[News, bytes]:
    """What is new beyond the offsets: at once if anything is, else what is after `wait_s`."""
    end = time.monotonic() + call.wait_s
    seen = {offsets.run_id: offsets.seen for offsets in call.runs}
    while True:
        signs = _signs(store, call.runs)
        news, body = _news(store, call.runs)
        # Of a run without a supervisor nothing new is to be waited for.
        changed = any(not r.alive or r.stamp != seen[r.run_id] for r in news.reports)
        if body or changed or news.missing or time.monotonic() >= end:
            return news, body
        while time.monotonic() < end and _signs(store, call.runs) == signs:
            store.tick()
            time.sleep(_WATCH_POLL_S)


def list_runs(store: Store) -> News:
    """Every run, oldest first."""
    folders = [path for path in store.runs.iterdir() if is_run_id(path.name)]
    folders.sort(key=lambda path: (path.stat().st_mtime, path.name))
    reports = [_report(RunFolder(path)) for path in folders]
    return News(tuple(report for report in reports if report is not None), (), ())


def cancel(store: Store, run_id: str) -> None:
    """Leave word for the run's supervisor; a run that has ended stays as it is."""
    _folder(store, run_id).cancel.touch()


def open_artifact(store: Store, run_id: str, path: str) -> Tuple[BinaryIO, int]:
    """The file of an artifact that the run recorded, and its size then, in bytes.

    No other file is handed out.
    """
    folder = _folder(store, run_id)
    try:
        recorded = from_bytes(Artifacts, folder.artifacts.read_bytes())
    except FileNotFoundError:
        raise Refusal("no-artifacts", f"{run_id} has not ended") from None
    sizes = {artifact.path: artifact.size_bytes for artifact in recorded.files}
    if path not in sizes:
        raise Refusal("no-artifact", f"{run_id} has no output {path!r}")
    try:
        # As bytes, because names are UTF-8, whatever this machine's locale says.
        name = os.path.join(os.fsencode(folder.tree), path.encode())  # noqa: PTH118
        return open(name, "rb"), sizes[path]  # noqa: PTH123
    except FileNotFoundError:
        raise Refusal("no-artifact", f"{path!r} of {run_id} was removed on the VM") from None


def read_state(folder: RunFolder) -> Optional[RunState]:
    """The state its supervisor wrote last; None before the first."""
    try:
        return from_bytes(RunState, folder.state.read_bytes())
    except FileNotFoundError:
        return None


def _folder(store: Store, run_id: str) -> RunFolder:
    folder = RunFolder(store.runs / run_id)
    if not is_run_id(run_id) or not folder.request.exists():
        raise Refusal("unknown-run", f"this machine knows no run {run_id[:80]!r}")
    return folder


def _check_request(request: RunRequest) -> None:
    if not is_run_id(request.run_id):
        raise Refusal("bad-request", f"not a run id: {request.run_id[:80]!r}")
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
    wanted = max((r.gpus for r in requests if r.slots != 0), default=0)
    if wanted == 0:
        return
    from remote.gpu import GpuTrouble, read_gpus

    declared = next(r.slots for r in requests if r.slots != 0)
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


def _start(store: Store, request: RunRequest, package: bytes) -> None:
    folder = RunFolder(store.runs / request.run_id)
    if not folder.path.exists():
        _make_folder(store, folder, request, package)
    if from_bytes(RunRequest, folder.request.read_bytes()) != request:
        raise Refusal("run-exists", f"another run has the id {request.run_id}")
    while (lock := take(folder.lock)) is None:
        if is_held(folder.lock):
            return  # its supervisor lives
        # Somebody only looked, in that moment.
    try:
        state = read_state(folder)
        if state is None or state.state is State.QUEUED:
            take_ticket(store, request.run_id)
            _spawn(folder, lock)
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
            take_ticket(store, folder.path.name)
            count_restart(folder)
            try:
                _spawn(folder, lock)
            except OSError:
                count_restart(folder, -1)
                raise
            return True
        finally:
            os.close(lock)


def _make_folder(store: Store, folder: RunFolder, request: RunRequest, package: bytes) -> None:
    temporary = RunFolder(temporary_beside(folder.path))
    temporary.path.mkdir(mode=0o700)
    try:
        replace_file(temporary.package, package)
        replace_file(temporary.request, to_bytes(request))
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


def _signs(store: Store, runs: Tuple[Offsets, ...]) -> List[object]:
    """What changes with anything new, and costs a training machine next to nothing to look at."""
    signs: List[object] = []
    for folder in (RunFolder(store.runs / o.run_id) for o in runs if is_run_id(o.run_id)):
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
    files = 0
    for offsets in runs:
        if len(body) >= _NEWS_LIMIT_BYTES:
            break
        folder = RunFolder(store.runs / offsets.run_id)
        # Before the files are read: the last lines of a run that ends now come with its end.
        report = _report(folder) if is_run_id(offsets.run_id) else None
        try:
            while report is not None and not report.alive and _restart(store, folder):
                report = _report(folder)
        except OSError as error:
            # It is not lost, and what others have made can be told and fetched meanwhile.
            report = _put_off(store, report, error)
        if report is None:
            missing.append(offsets.run_id)
            continue
        files += len(report.artifacts)
        if reports and files > LIMIT:
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
    return News(tuple(reports), tuple(pieces), tuple(missing)), bytes(body)


def _read(path: Path, offset: int) -> Tuple[int, bytes]:
    """A piece and where it starts: at `offset`, counted from the end where that is negative."""
    try:
        with path.open("rb") as file:
            start = offset if offset >= 0 else max(0, file.seek(0, os.SEEK_END) + offset)
            file.seek(start)
            return start, file.read(CHUNK_BYTES)
    except FileNotFoundError:
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
    stamp = hashlib.sha256(content + (b"+" if report.alive else b"-")).hexdigest()[:16]
    return report._replace(stamp=stamp)


def _report(folder: RunFolder) -> Optional[RunReport]:
    try:
        request = from_bytes(RunRequest, folder.request.read_bytes())
        # Alive first: a supervisor that ends between the two has written its final state.
        alive = is_held(folder.lock)
        state = read_state(folder)
        artifacts: Tuple[()] = ()
        recorded = Artifacts(artifacts)
        if state is not None and state.state.final:
            recorded = from_bytes(Artifacts, folder.artifacts.read_bytes())
    except (FileNotFoundError, Malformed):
        return None
    return _stamped(RunReport(folder.path.name, request.job, alive, "", state, recorded.files))
