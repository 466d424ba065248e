"""Programs put on PATH in place of the clouds' own tools."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_LOGINS = (
    *("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"),
)


class Tools:
    """Only what is put here and a few plain programs are found; nobody's own login is.

    Attributes:
        seen: the command lines of all processes on this machine, as they were when a tool ran.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.seen = folder / "seen"
        for name in ("sh", "cat", "tr", "sleep", "env"):
            (folder / name).symlink_to(str(shutil.which(name)))
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.setenv("HOME", str(folder))
        for name in _LOGINS:
            monkeypatch.delenv(name, raising=False)

    def put(self, name: str, script: str) -> None:
        """A program that notes all command lines, its own too, and then runs `script`."""
        watch = f"for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done >>{self.seen} 2>&1"
        file = self._folder / name
        file.write_text(f"#!{os.path.realpath(self._folder / 'sh')}\n{watch}\n{script}\n")
        file.chmod(0o755)
