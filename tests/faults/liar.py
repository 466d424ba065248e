"""A VM's Python that lies: what the real agent says, changed on its way out by one of `lies.LIES`.

    python -m tests.faults.liar FILE ARGUMENT...

FILE holds the name of the lie; while it is empty, the real Python takes over, and all is true.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from remote.protocol import MAGIC, read_frame
from tests.faults.lies import LIES


def main() -> None:
    name = Path(sys.argv[1]).read_text("utf-8")
    command = [sys.executable, *sys.argv[2:]]
    os.environ.pop("PYTHONPATH", None)
    if not name:
        os.execv(sys.executable, command)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent, suppress(BrokenPipeError):
        assert agent.stdout is not None
        try:
            _lie(name, agent.stdout)
        finally:
            agent.kill()


def _lie(name: str, said: IO[bytes]) -> None:
    lie = LIES[name]
    _say(lie.before)
    greeting = b""
    while not greeting.endswith(MAGIC):
        block = os.read(said.fileno(), 1)
        if not block:
            return
        greeting += block
        _say(block)
    lies = lie.tell()
    while (frame := read_frame(said.read)) is not None:
        for block in lies(frame):
            _say(block)


def _say(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
