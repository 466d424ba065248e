"""Another program's answer: the clouds' own tools, and command lines of the user's."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

# Of an answer, a word or a token; the rest of a page of output is for nobody.
_KEPT_BYTES = 64 << 10
# More than any answer, less than a disk: what goes on writing is stopped.
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    code: its exit code; None where it was stopped for taking too long or writing too much.
    out, err: the ends of what it wrote.
    """

    code: int | None
    out: str
    err: str

    @property
    def last_error(self) -> str:
        """The last line that it complained with, else the last it wrote; empty for silence."""
        return last_line(self.err) or last_line(self.out)


def run(
    command: Sequence[str] | str, limit_s: float, env: Mapping[str, str] | None = None
) -> Outcome:
    """Without a terminal, in its own group of processes, so that its children stop with it.

    What it leaves running in the background is not waited for.

    Args:
        command: words of a program; or a line for the shell, as its user wrote it.
        env: added to ours.

    Raises:
        OSError: there is no such program.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command,
            # A line comes from the user's own config, which is trusted like a script of theirs.
            shell=isinstance(command, str),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            code = _wait(process, limit_s, (out, err))
        finally:
            if process.returncode is None:
                _kill(process)
        return Outcome(code, _tail(out), _tail(err))


def _wait(
    process: subprocess.Popen[bytes], limit_s: float, files: Sequence[IO[bytes]]
) -> int | None:
    deadline, pause_s = time.monotonic() + limit_s, 0.01
    while time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=pause_s)
        if any(os.fstat(file.fileno()).st_size > _MOST_BYTES for file in files):
            return None
        pause_s = min(0.2, pause_s * 2)
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _tail(file: IO[bytes]) -> str:
    file.seek(max(0, os.fstat(file.fileno()).st_size - _KEPT_BYTES))
    return file.read(_KEPT_BYTES).decode("utf-8", "replace")


def last_line(text: str) -> str:
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return lines[-1][:500] if lines else ""
