"""Gathers again and again in a thread of its own, so that the screen waits for no disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol, Self

from orchestrator.errors import LedgerDamaged, TrainshedError
from orchestrator.screen.printable import printable
from orchestrator.watch.board import Board

PACE_S = 1.0


class Gatherer(Protocol):
    def board(self, chosen: str = "") -> Board: ...


class Gathering:
    """Args:
        open_gatherer: entered, used and left in the thread, since the ledger is one thread's.

    Attributes:
        board: the last one; None before the first.
    """

    def __init__(
        self,
        open_gatherer: Callable[[], AbstractContextManager[Gatherer]],
        pace_s: float = PACE_S,
    ) -> None:
        self.board: Board | None = None
        self._open_gatherer = open_gatherer
        self._pace_s = pace_s
        self._chosen = ""
        self._trouble: Exception | None = None
        self._stop = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="gathering")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Raises what ended it, if anything did."""
        self._stop = True
        self._woken.set()
        self._thread.join()
        if self._trouble is not None:
            raise self._trouble

    @property
    def has_ended(self) -> bool:
        """Whether it cannot go on."""
        return self._trouble is not None

    def look_at(self, run_id: str = "") -> None:
        """Gather anew, now, with this run's details; empty for those of the same as before."""
        self._chosen = run_id or self._chosen
        self._woken.set()

    def _work(self) -> None:
        try:
            with self._open_gatherer() as gatherer:
                while not self._stop:
                    self._woken.clear()
                    self._gather(gatherer)
                    self._woken.wait(self._pace_s)
        except Exception as trouble:  # noqa: BLE001  # raised where it is waited for
            self._trouble = trouble

    def _gather(self, gatherer: Gatherer) -> None:
        try:
            self.board = gatherer.board(self._chosen)
        except LedgerDamaged:
            raise
        except TrainshedError as trouble:
            if self.board is None:
                raise
            # Such as a file that is being edited: the next look may see it whole.
            self.board = replace(self.board, trouble=printable(str(trouble)))
