"""Slurm's queue, as all our agents on a login node see it: one answer, kept in the store.

However many runs, laptops and commands ask, Slurm is asked at most every few seconds, and less
often while nothing changes.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Dict, Iterable, Iterator, NamedTuple, Optional, Sequence, Tuple

from remote import slurm
from remote.atomic import replace_file
from remote.lock import holding
from remote.record import Malformed, from_bytes, to_bytes
from remote.slurm import Place
from remote.store import Store
from remote.trouble import SlurmTrouble

_FRESH_S, _STALE_S = 3.0, 30.0


class Listing(NamedTuple):
    """Attributes:
    at_s, changed_s: when it was asked, and since when the answer is the same.
    trouble: why it could not be asked; the places are then those of before.
    """

    at_s: float
    changed_s: float
    places: Tuple[Place, ...] = ()
    trouble: str = ""

    def is_fresh(self, now: float) -> bool:
        limit_s = min(max(_FRESH_S, (now - self.changed_s) / 10), _STALE_S)
        return 0 <= now - self.at_s < limit_s


def by_name(places: Iterable[Place]) -> Dict[Tuple[str, str], Place]:
    """By name and task; of a job that was handed in twice, the one that has not ended."""
    ordered = sorted(places, key=lambda place: not place.ended)
    return {(place.name, place.task): place for place in ordered}


def look(store: Store) -> Listing:
    """Slurm's last answer, asked anew where that is too old."""
    listing = _read(store)
    if listing is not None and listing.is_fresh(time.time()):
        return listing
    with holding(_lock(store), meanwhile=store.tick):
        listing = _read(store)  # another agent may have asked meanwhile
        now = time.time()
        if listing is not None and listing.is_fresh(now):
            return listing
        before = listing or Listing(now, now)
        try:
            places = slurm.places(store.tick)
        except SlurmTrouble as trouble:
            listing = before._replace(at_s=now, trouble=str(trouble))
        else:
            same = places == before.places
            listing = Listing(now, before.changed_s if same else now, places)
        store.cluster.mkdir(mode=0o700, exist_ok=True)
        replace_file(_file(store), to_bytes(listing))
        return listing


def endings(store: Store, numbers: Sequence[str]) -> Dict[str, str]:
    """As `slurm.endings` has it, which is left alone for a while when it has not said all."""
    silent = store.cluster / "silent"
    with suppress(FileNotFoundError):
        if 0 <= time.time() - silent.stat().st_mtime < _STALE_S:
            return {}
    ends = slurm.endings(numbers, store.tick)
    if len(ends) < len(numbers):
        silent.touch()
    return ends


@contextmanager
def changing(store: Store) -> Iterator[None]:
    """Nobody else asks or changes anything; what was known before is not told after this."""
    with holding(_lock(store), meanwhile=store.tick):
        store.cluster.mkdir(mode=0o700, exist_ok=True)
        _file(store).unlink(missing_ok=True)
        yield


def _read(store: Store) -> Optional[Listing]:
    try:
        return from_bytes(Listing, _file(store).read_bytes())
    except (FileNotFoundError, Malformed):
        return None


def _lock(store: Store) -> Path:
    return store.lock_path("slurm")


def _file(store: Store) -> Path:
    return store.cluster / "listing.json"
