"""The command line, whose line is cut at its n-th word with the VM: before the word, or after it
has taken effect there and before anything more is heard.

    python -m tests.faults.parted N before|after COUNT_FILE WORD...

A word is a command started, what is written at once (a frame, or some), and what is read at once.
The number of words is in COUNT_FILE.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.cli import run_command
from orchestrator.connection.channel import Channel
from orchestrator.connection.ssh import Connection

# So long the VM has for what it was told.
EFFECT_S = 0.4


def main() -> int:
    at, is_before, file = int(sys.argv[1]), sys.argv[2] == "before", Path(sys.argv[3])
    sys.argv = ["train", *sys.argv[4:]]
    count = 0

    def parted(act: Callable[..., Any], cut: Callable[[Any], None]) -> Callable[..., Any]:
        def word(self: object, *given: object) -> Any:  # noqa: ANN401  # whatever `act` gives
            nonlocal count
            count += 1
            mine = count
            if mine == at and is_before:
                cut(self)
            answer = act(self, *given)
            if mine == at and not is_before:
                time.sleep(EFFECT_S)
                cut(self)
            return answer

        return word

    Connection.execute = parted(Connection.execute, _cut)  # type: ignore[method-assign]
    Channel.write = parted(Channel.write, _cut_channel)  # type: ignore[method-assign]
    Channel.read = parted(Channel.read, _cut_channel)  # type: ignore[method-assign]
    code = run_command()
    file.write_text(str(count))
    return code


def _cut(connection: Connection) -> None:
    connection._lines[0].close()


def _cut_channel(channel: Channel) -> None:
    channel._stream.get_transport().sock.close()  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
