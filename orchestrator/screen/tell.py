"""How the work speaks to whoever watches; the terminal's side is in console.py."""

from __future__ import annotations

from typing import Protocol


class Teller(Protocol):
    """Told what happens. None of it may fail or wait."""

    def step(self, text: str) -> None:
        """Something was done; a line that stays."""

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        """What is going on right now, with its bytes where they are known; replaces the last."""

    def warn(self, text: str) -> None:
        """Something the user should know, though the work goes on."""

    def log(self, job: str, data: bytes) -> None:
        """What a run wrote, as it came."""

    def log_ends(self, job: str) -> None:
        """Nothing more comes of it now, so that its last line is whole."""


class Silence:
    """Tells nobody."""

    def step(self, text: str) -> None:
        pass

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def log(self, job: str, data: bytes) -> None:
        pass

    def log_ends(self, job: str) -> None:
        pass


class Named:
    """Says of which machine it speaks, where others are told of at the same time."""

    def __init__(self, tell: Teller, name: str) -> None:
        self._tell = tell
        self._name = name

    def step(self, text: str) -> None:
        self._tell.step(f"{self._name}: {text}")

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        self._tell.doing(f"{self._name}: {text}", done, total)

    def warn(self, text: str) -> None:
        self._tell.warn(f"{self._name}: {text}")

    def log(self, job: str, data: bytes) -> None:
        self._tell.log(job, data)

    def log_ends(self, job: str) -> None:
        self._tell.log_ends(job)


class Counted:
    """Steps of one kind, of which there may be ten thousand: the first few, then their number."""

    _FEW = 20

    def __init__(self, tell: Teller) -> None:
        self._tell = tell
        self._count = 0

    def step(self, text: str) -> None:
        self._count += 1
        if self._count <= self._FEW:
            self._tell.step(text)

    def tell_rest(self, what: str) -> None:
        """How many were not told, and what these are."""
        if self._count > self._FEW:
            self._tell.step(f"{self._count - self._FEW} {what}")
