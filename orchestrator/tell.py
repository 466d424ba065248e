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
