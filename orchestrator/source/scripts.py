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
    words = words_of(command)
    return (path for word in words if word.endswith(".py") and (path := root / word).is_file())
