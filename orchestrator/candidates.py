"""What a shell may offer for a word: from this laptop's files, connecting nowhere.

A shell asks at each press of a key, so little is read, and what cannot be read is not offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import TrainshedError
from orchestrator.settings.config import known_remotes, load_workspace, workspace_here

# Enough of a script to find what it reads; of a larger file the rest is not looked at.
_SCRIPT_BYTES = 256 * 2**10
_PARAM = re.compile(rb"""["']PARAM_(\w+)["']""")


def remote_names() -> list[str]:
    return _told(lambda: [remote.name for remote in known_remotes(workspace_here())])


def category_names() -> list[str]:
    return _told(lambda: [job.name for job in load_workspace(Path.cwd()).jobs])


def run_ids() -> list[str]:
    """The last one first; the names of the runs' folders, which are not looked into."""
    return _told(lambda: sorted(_runs(), key=_made, reverse=True))


def param_names() -> list[str]:
    """`lr=` for each `PARAM_lr` that a category's script names."""
    return _told(lambda: sorted(f"{name.decode('ascii', 'replace')}=" for name in _params()))


def _told(names: Callable[[], list[str]]) -> list[str]:
    try:
        return names()
    except (TrainshedError, OSError):
        return []  # the command itself will say what is wrong


def _runs() -> list[str]:
    folder = load_workspace(Path.cwd()).state / "runs"
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def _made(run_id: str) -> list[str]:
    """A run id ends with a date, a time and a word of chance."""
    return run_id.rsplit("-", 3)[1:]


def _params() -> set[bytes]:
    workspace = load_workspace(Path.cwd())
    found = set()
    for job in workspace.jobs:
        for script in (workspace.root / job.folder).glob("*.py"):
            with script.open("rb") as file:
                found |= set(_PARAM.findall(file.read(_SCRIPT_BYTES)))
    return found
