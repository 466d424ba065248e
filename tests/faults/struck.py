"""The command line, struck by a signal just before its n-th effect on the file system or the line.

    python -m tests.faults.struck N SIGNAL COUNT_FILE WORD...

When it ends by itself, the number of effects is in COUNT_FILE.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.cli import run_command
from orchestrator.line import Line
from tests.forks import before_each_change


def main() -> int:
    step, number, file = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    sys.argv = ["train", *sys.argv[4:]]
    sent = 0
    changes = before_each_change(sys.maxsize, lambda: None)
    next(changes)

    def effects() -> int:
        return next(changes) + sent

    strike = _once(lambda: os.kill(os.getpid(), number))

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        # After the other hook has counted it, and before it is done.
        if effects() > step:
            strike()

    sys.addaudithook(watch)
    send = Line.send

    def counted(line: Line, data: bytes) -> int:
        nonlocal sent
        sent += 1
        if effects() > step:
            strike()
        return send(line, data)

    Line.send = counted  # type: ignore[assignment, method-assign]
    code = run_command()
    total = effects()
    file.write_text(str(total))
    return code


def _once(action: Callable[[], object]) -> Callable[[], None]:
    left = [action]

    def act() -> None:
        if left:
            left.pop()()

    return act


if __name__ == "__main__":
    sys.exit(main())
