"""What a job's command names, as far as its words tell: no shell is asked."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path


def words_of(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def scripts_of(root: Path, command: str) -> Iterator[Path]:
    """The workspace's Python files among its words."""
    named = (root / word for word in words_of(command) if word.endswith(".py"))
    return (path for path in named if path.is_relative_to(root) and path.is_file())
