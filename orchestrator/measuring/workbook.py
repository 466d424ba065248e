"""The book of all that `train bench` has measured: lines beside the ledger, only added to."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

from orchestrator.filelock import alone
from orchestrator.measuring.workload import Kept, is_sound, newest
from remote.atomic import sync_folder
from remote.record import Malformed, from_bytes, to_bytes

FILE_NAME = "workbench.jsonl"


class Workbook:
    """A line for each workload of a run; one that makes no sense, or was cut, is passed over."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def all(self) -> tuple[Kept, ...]:
        """In the order in which they were added."""
        return tuple(self._lines())

    def last(self, remotes: Collection[str], workloads: Collection[str]) -> tuple[Kept, ...]:
        """The last figures of these workloads on these remotes, or on all where none is named."""
        return tuple(
            kept
            for (remote, workload), kept in newest(self._lines()).items()
            if (not remotes or remote in remotes) and workload in workloads
        )

    def add(self, *figures: Kept) -> None:
        """Each once: after a crash the same command brings the same figures again."""
        with alone(self.path.with_suffix(".lock")):
            known = {(kept.run_id, kept.measured.workload) for kept in self._lines()}
            new = [k for k in figures if (k.run_id, k.measured.workload) not in known]
            if not new:
                return
            # After a crash the file may end in a part of a line.
            with self.path.open("ab", buffering=0) as file:
                file.write(b"\n" + b"".join(map(to_bytes, new)))
                os.fsync(file.fileno())
            sync_folder(self.path.parent)

    def _lines(self) -> Iterator[Kept]:
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                kept = from_bytes(Kept, line)
                price = Decimal(kept.price_per_hour or 0)
            except (Malformed, InvalidOperation):
                continue
            if price.is_finite() and is_sound(kept.measured):
                yield kept
