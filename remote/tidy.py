"""What the store holds, and dropping what nothing needs any more."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, Collection, Dict, List, Set

from remote import clock
from remote.atomic import discard
from remote.lock import holding, is_held
from remote.protocol import Heap, Tidied
from remote.record import Malformed, from_bytes
from remote.runfolder import RunFolder, RunRequest, is_run_id
from remote.runs import read_state
from remote.store import Store, StoreTrouble, shared_digest

# What came or was used so lately may belong to a submission that is still on its way.
_YOUNG_S = 24 * 3600.0


def tidy(store: Store, keep_days: float, *, drop: bool, keep: Collection[str] = ()) -> Tidied:
    """What is there and what could go; with `drop` it goes.

    A run may go when it ended (or died) more than `keep_days` ago and its id is not in `keep`; a
    tree or a data folder when no run that stays needs it and it was not used for a day; an
    environment when it was not used for a day, for `keep_days`, and since before the oldest run
    that lives; a content when no tree that stays names it and nobody asked for it for a day.

    Whoever puts something to use while this goes on waits (`Store.untidied`).
    """
    with holding(store.lock_path("tidy"), meanwhile=store.tick):
        now = time.time()
        runs = sorted(path for path in store.runs.iterdir() if path.is_dir())
        before_s = now - keep_days * 86400
        old_runs = [p for p in runs if p.name not in keep and _may_go(RunFolder(p), before_s)]
        needed = _needed_trees([path for path in runs if path not in old_runs])

        snapshots = sorted((store.root / "snapshots").iterdir())
        old = [p for p in snapshots if p.stem not in needed and _age(p, now) > _YOUNG_S]
        named = _named_contents(store, [p for p in snapshots if p not in old])
        shared = sorted((store.root / "data").iterdir())
        environments = sorted(p for p in (store.root / "envs").iterdir() if p.is_dir())
        unused_s = max(_YOUNG_S, keep_days * 86400, _longest_run_s(runs, now))
        incoming = store.root / "incoming"
        contents = [*sorted((store.root / "objects").glob("*/*")), *sorted(incoming.iterdir())]

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
            _heap(
                store,
                "contents",
                contents,
                lambda p: (
                    (p.name not in named or p.parent == incoming) and _unasked_s(p, now) > _YOUNG_S
                ),
            ),
        )
        if drop:
            for heap in heaps:
                for path in heap.droppable:
                    store.tick()
                    discard(path)
        return Tidied(tuple(heap.report() for heap in heaps))


class _Heap:
    def __init__(self, kind: str, sizes: Dict[Path, int], droppable: List[Path]) -> None:
        self.kind = kind
        self.sizes = sizes
        self.droppable = droppable

    def report(self) -> Heap:
        gone = sum(self.sizes[path] for path in self.droppable)
        return Heap(self.kind, len(self.sizes), sum(self.sizes.values()), len(self.droppable), gone)


def _heap(store: Store, kind: str, paths: List[Path], may_go: Callable[[Path], bool]) -> _Heap:
    sizes = {}
    for path in paths:
        store.tick()
        sizes[path] = _size(path)
    return _Heap(kind, sizes, [path for path in paths if may_go(path)])


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
    named = set()
    for snapshot in snapshots:
        store.tick()
        if snapshot.suffix == ".json":  # else one that was not finished
            try:
                named |= {entry.sha256 for entry in store.load_tree(snapshot.stem).values()}
            except StoreTrouble:
                pass  # it was found to be spoilt, and is no tree any more
    return named


def _age(path: Path, now: float) -> float:
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _unasked_s(path: Path, now: float) -> float:
    # The time of change of a content is a stamp; that of its inode is when it was last asked for.
    try:
        return now - path.stat().st_ctime
    except FileNotFoundError:
        return 0.0  # it arrived and has its final name now


def _size(path: Path) -> int:
    if not path.is_dir():
        return _file_size(path)
    return sum(
        _file_size(Path(folder) / name) for folder, _, names in os.walk(str(path)) for name in names
    )


def _file_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0  # a run is at work there
