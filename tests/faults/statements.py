"""A strike just before a statement of SQLite's: Python's audit hooks do not see its writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any


def before_each_statement(act: Callable[[], object]) -> None:
    """Call `act` before each statement of the connections that this process makes from now on."""

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401  # sqlite3's own
            act()
            return super().execute(*arguments)

        def backup(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401
            act()
            super().backup(*arguments, **more)

    connect = sqlite3.connect
    sqlite3.connect = lambda *given, **more: connect(*given, factory=Watched, **more)  # type: ignore[assignment]
