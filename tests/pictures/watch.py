"""Draws the live view of an invented workspace: `python -m tests.pictures.watch FILE.svg`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from orchestrator.desk import Desk
from orchestrator.screen.console import Console
from orchestrator.settings.config import load_workspace
from orchestrator.watch.app import WatchApp
from orchestrator.watch.board import Board, RemoteView
from orchestrator.watch.gathering import Gathering
from orchestrator.watch.watching import Watching
from tests.invented import REMOTE, invent

SIZE = (120, 42)


class _Still:
    """One board, for ever."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def board(self, chosen: str = "") -> Board:
        return self._board


def main(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "mock"
        os.environ["TRAINSHED_HOME"] = str(Path(folder) / "home")
        os.environ.pop("NO_COLOR", None)
        invent(root)
        with Desk(load_workspace(root), Console(), ask=False) as desk, Watching(desk) as watching:
            board = replace(watching.board(), remotes=(RemoteView(REMOTE, 0.4),))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(asyncio.run(draw(board, root)), "utf-8")


async def draw(board: Board, root: Path, size: tuple[int, int] = SIZE) -> str:
    """SVG."""

    @contextmanager
    def still() -> Iterator[_Still]:
        yield _Still(board)

    with Gathering(still) as gathering:
        app = WatchApp(gathering, root)
        async with app.run_test(size=size) as pilot:
            await pilot.pause(0.5)
            return app.export_screenshot(title="train watch")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
