"""Commands of ours that the live view starts: processes of their own, which outlive it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from orchestrator.screen.printable import printable_lines

_LINES = 3
_SAID_BYTES = 2**16


class Errand:
    """One command, begun when this is made.

    Args:
        words: after `train`.
    """

    def __init__(self, root: Path, words: Sequence[str]) -> None:
        self.name = " ".join(("train", *words))
        # Files, because a pipe that nobody reads any more would end it.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        # A session of its own: Ctrl-C, or a terminal that is closed, is not meant for it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.cli", *words],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    def end(self) -> tuple[bool, str] | None:
        """Whether it went well, and what it said last; None while it goes on.

        Asked once more after that, it has nothing left to say.
        """
        code = self._process.poll()
        if code is None:
            return None
        with self._out, self._err:
            out, err = (_read(file) for file in (self._out, self._err))
        if code == 0:
            # Its results may be a table, which is wider than the place there is for it.
            told = [line for line in err.splitlines() if line.startswith(("• ", "! "))]
            return True, printable_lines("\n".join(told) or out.strip(), _LINES)
        # Before it are the steps that led there.
        error = err[max(0, err.rfind("error: ")) :].strip()
        return False, printable_lines(error, _LINES) or f"exit code {code}"


def _read(file: BinaryIO) -> str:
    file.seek(max(0, file.seek(0, 2) - _SAID_BYTES))
    return file.read().decode("utf-8", "replace")
