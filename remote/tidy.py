"""What the store holds, and dropping what nothing needs any more."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Callable, Collection, Iterable, Iterator, List, Optional, Set, Tuple, Union

from remote import clock
from remote.atomic import discard
from remote.lock import holding, is_held
from remote.protocol import Heap, Tidied
from remote.record import Malformed, from_bytes
from remote.restart import read_state
from remote.runfolder import RunFolder, RunRequest, is_run_id
from remote.store import Store, shared_digest

# What came or was used so lately may belong to a submission that is still on its way.
_YOUNG_S = 24 * 3600.0
_DIGEST = re.compile(r'"([0-9a-f]{64})"')


def tidy(
    store: Store, keep_days: float, *, drop: bool, home: Optional[Collection[str]] = None
) -> Tidied:
    """What is there and what could go; with `drop` it goes.

    A run may go when it ended (or died) more than `keep_days` ago and its id is in `home`; a
    tree or a data folder when no run that stays needs it and it was not used for a day; an
    environment when it was not used for a day, for `keep_days`, and since before the oldest run
    that lives; an agent when no laptop of its version came for a day and for `keep_days`; a content
    when no tree that stays names it and nobody asked for it for a day.

    Whoever puts something to use while this goes on waits (`Store.untidied`).
    """
    with holding(store.lock_path("tidy"), meanwhile=store.tick):
        now = time.time()
        runs = sorted(path for path in store.runs.iterdir() if path.is_dir())
        before_s = now - keep_days * 86400
        waiting = _waiting(store, runs)
        old_runs = {
            path for path in runs if path.name not in waiting and _may_go(RunFolder(path), before_s)
        }
        kept = {p for p in old_runs if is_run_id(p.name)}
        kept -= old_runs if home is None else {store.runs / run_id for run_id in home}
        old_runs -= kept
        needed = _needed_trees([path for path in runs if path not in old_runs])

        snapshots = sorted((store.root / "snapshots").iterdir())
        old = {p for p in snapshots if p.stem not in needed and _age(p, now) > _YOUNG_S}
        named = _named_contents(store, [p for p in snapshots if p not in old])
        shared = sorted((store.root / "data").iterdir())
        environments = sorted(p for p in (store.root / "envs").iterdir() if p.is_dir())
        unused_s = max(_YOUNG_S, keep_days * 86400, _longest_run_s(runs, now))
        agents = sorted((store.root / "agents").glob("*"))

        heaps = (
            _heap(store, "runs", runs, old_runs.__contains__),
            _heap(store, "snapshots", snapshots, old.__contains__),
            _heap(
                store,
                "data",
                shared,
                lambda p: shared_digest(p) not in needed and _age(p, now) > _YOUNG_S,
            ),
            _heap(
                store,
                "environments",
                environments,
                lambda p: min(_age(p, now), _age(p / ".complete", now)) > unused_s,
            ),
            _heap(store, "agents", agents, lambda p: _age(p, now) > max(_YOUNG_S, now - before_s)),
            _contents(store, named, now - _YOUNG_S),
        )
        if drop:
            for heap in heaps:
                for path in heap.droppable:
                    store.tick()
                    discard(path)
        return Tidied(
            tuple(heap.report() for heap in heaps), tuple(sorted(path.name for path in kept))
        )


class _Heap:
    """What is in one, added up; there may be 100,000."""

    def __init__(self, kind: str, things: Iterable[Tuple[Path, int, bool]]) -> None:
        self.kind = kind
        self.count = self.size_bytes = self.droppable_bytes = 0
        self.droppable: List[Path] = []
        for path, size_bytes, may_go in things:
            self.count += 1
            self.size_bytes += size_bytes
            if may_go:
                self.droppable.append(path)
                self.droppable_bytes += size_bytes

    def report(self) -> Heap:
        gone = len(self.droppable)
        return Heap(self.kind, self.count, self.size_bytes, gone, self.droppable_bytes)


def _heap(store: Store, kind: str, paths: List[Path], may_go: Callable[[Path], bool]) -> _Heap:
    return _Heap(kind, ((path, _size(store, path), may_go(path)) for path in paths))


def _contents(store: Store, named: Set[str], before_s: float) -> _Heap:
    """Those that have arrived, and the parts of those that have not.

    Args:
        named: by a tree that stays.
        before_s: may go if nobody asked since. That is its inode's time of change; a content's own
            is a stamp.
    """

    def each() -> Iterator[Tuple[Path, int, bool]]:
        incoming = store.root / "incoming"
        for folder in [*sorted((store.root / "objects").iterdir()), incoming]:
            for entry in _listed(store, folder):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # it arrived and has its final name now
                needless = folder == incoming or entry.name not in named
                yield Path(entry.path), status.st_size, needless and status.st_ctime < before_s

    return _Heap("contents", each())


def _may_go(folder: RunFolder, before_s: float) -> bool:
    if not is_run_id(folder.path.name):
        return folder.path.stat().st_mtime < before_s  # left over from a start that was cut
    if is_held(folder.lock):
        return False
    try:
        state = read_state(folder)
    except Malformed:
        return False
    if state is None or state.ended_at is None:
        return folder.path.stat().st_mtime < before_s
    return clock.parse(state.ended_at).timestamp() < before_s


def _waiting(store: Store, runs: Iterable[Path]) -> Set[str]:
    """Ids of runs that a cluster has in its queue, without a supervisor yet."""
    if not store.cluster.exists():
        return set()
    from remote import jobs

    words = jobs.ask(store, map(RunFolder, runs))
    return {run_id for run_id, word in words.items() if not word.lost}


def _longest_run_s(runs: List[Path], now: float) -> float:
    """For how long the oldest of the runs that live has been there; 0 when none lives.

    Each used its environment since.
    """
    living = (RunFolder(path) for path in runs if is_held(RunFolder(path).lock))
    return max((_age(folder.request, now) for folder in living), default=0.0)


def _needed_trees(runs: List[Path]) -> Set[str]:
    needed = set()
    for path in runs:
        try:
            request = from_bytes(RunRequest, RunFolder(path).request.read_bytes())
        except (FileNotFoundError, Malformed):
            continue
        needed |= {request.tree, *(data.digest for data in request.data)}
    return needed


def _named_contents(store: Store, snapshots: List[Path]) -> Set[str]:
    """Every digest that stands in a manifest. A file's name may look like one and keep a content
    needlessly; to take each manifest apart would take ten times as long.
    """
    named: Set[str] = set()
    for snapshot in snapshots:
        store.tick()
        try:
            named.update(_DIGEST.findall(snapshot.read_text("latin-1")))
        except FileNotFoundError:
            pass  # it was found to be spoilt, and is no tree any more
    return named


def _age(path: Path, now: float) -> float:
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _size(store: Store, path: Path) -> int:
    """Bytes in a file, or in all files of a folder."""
    if not path.is_dir():
        return _file_size(path)
    total, folders = 0, [path]
    while folders:
        for entry in _listed(store, folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
                continue
            total += _file_size(entry)
    return total


def _file_size(file: Union[Path, os.DirEntry[str]]) -> int:
    try:
        return os.lstat(file).st_size
    except FileNotFoundError:
        return 0  # a run is at work there


def _listed(store: Store, folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing where it is gone, or is none."""
    try:
        with os.scandir(str(folder)) as listing:
            for entry in listing:
                store.tick()
                yield entry
    except (FileNotFoundError, NotADirectoryError):
        pass
