"""Workspaces to send."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

_FOLDERS = 20
_HOUR_S = 3600


@dataclass(frozen=True)
class Tree:
    """Attributes:
    size_bytes: of each file.
    """

    files: int
    size_bytes: int

    def __str__(self) -> str:
        total = self.files * self.size_bytes
        size = f"{total / 1e6:g} MB" if total >= 1e6 else f"{total / 1e3:g} kB"
        return f"{self.files:,} files, {size}"

    def make(self, workspace: Path) -> None:
        """Half of each file compresses, half does not."""
        source = random.Random(self.files)
        for number in range(self.files):
            file = workspace / f"folder{number % _FOLDERS}" / f"file{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            code = b"x = 1\n" * (self.size_bytes // 12)
            file.write_bytes(source.randbytes(self.size_bytes - len(code)) + code)
            age(file)
        configure(workspace)


def configure(workspace: Path, command: str = "true", extra: str = "outputs: []") -> None:
    """Make it a workspace with one job, `bench`."""
    workspace.mkdir(parents=True, exist_ok=True)
    text = f"jobs:\n  bench: {{command: {command!r}, {extra}}}\n"
    (workspace / "train.yaml").write_text(text)


def age(file: Path) -> None:
    """Make it a file of an hour ago: files that were saved just now are read again."""
    then = time.time() - _HOUR_S
    os.utime(file, (then, then))


def change(workspace: Path) -> None:
    """Save one file anew."""
    (workspace / "folder1" / "file1.py").write_text(f"x = {time.time_ns()}\n")
