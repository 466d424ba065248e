"""`train watch`, as `commands.py` has the commands about runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.options import accept_option

if TYPE_CHECKING:
    from orchestrator.settings.spec import Workspace
    from orchestrator.watch.watching import Watching


@click.command()
@click.option("--remote", "-r", metavar="NAME", default="", help="Where s submits to.")
@click.option("--plain", is_flag=True, help="Print lines that change; for screen readers.")
@accept_option
def watch(remote: str, plain: bool, accept: str) -> None:
    """The categories, the runs, the log and the curves of one, as they go on.

    Without a terminal it is --plain. Quitting harms nothing: runs go on.

    Example: train watch
    """
    from orchestrator.settings.config import find_remote, load_workspace, only_remote

    workspace = load_workspace(Path.cwd())
    if remote:
        find_remote(workspace, remote)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if plain or not is_terminal or os.environ.get("TERM") == "dumb":
        _print_lines(workspace, accept)
    else:
        _draw(workspace, remote or only_remote(workspace), accept)


@contextmanager
def _watching(workspace: Workspace, accept: str) -> Iterator[Watching]:
    from orchestrator.desk import Desk
    from orchestrator.screen.console import Console
    from orchestrator.watch.watching import Watching

    with ExitStack() as stack:
        desk = stack.enter_context(Desk(workspace, Console(), ask=False, accept=accept))
        yield stack.enter_context(Watching(desk))


def _print_lines(workspace: Workspace, accept: str) -> None:
    from orchestrator.screen.console import Console
    from orchestrator.watch.gathering import PACE_S, Gathering
    from orchestrator.watch.plain import Plain

    def say(line: str) -> None:
        Console().result(line)
        sys.stdout.flush()

    shown = Plain(say)
    with Gathering(lambda: _watching(workspace, accept)) as gathering:
        while not gathering.has_ended:
            if gathering.board is not None:
                shown.show(gathering.board, time.monotonic())
            time.sleep(PACE_S)


def _draw(workspace: Workspace, remote: str, accept: str) -> None:
    from orchestrator.screen.console import Console
    from orchestrator.watch.app import WatchApp
    from orchestrator.watch.gathering import Gathering

    with Gathering(lambda: _watching(workspace, accept)) as gathering:
        app = WatchApp(gathering, workspace.root, remote)
        app.run()
    for errand in app.errands:
        Console().step(f"{errand.name} goes on by itself")
