"""A strike just before a statement of SQLite's: Python's audit hooks do not see its writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Self


def before_each_statement(act: Callable[[], object]) -> None:
    """Call `act` before each statement of the connections that this process makes from now on."""

    class WatchedCursor(sqlite3.Cursor):
        def execute(self, *arguments: Any) -> Self:  # noqa: ANN401  # sqlite3's own
            act()
            return super().execute(*arguments)

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401
            act()
            return super().execute(*arguments)

        def cursor(self, factory: Any = WatchedCursor) -> Any:  # noqa: ANN401
            return super().cursor(factory)

        def commit(self) -> None:
            act()
            super().commit()

        def backup(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401
            act()
            super().backup(*arguments, **more)

    connect = sqlite3.connect

    def watched(*given: Any, **more: Any) -> Any:  # noqa: ANN401
        return connect(*given, **{"factory": Watched, **more})

    # SQLAlchemy knows it by the other name.
    sqlite3.connect = sqlite3.dbapi2.connect = watched
