"""The command line, struck by signals just before its n-th effect: on the file system, the ledger
or the line.

    python -m tests.faults.struck N SIGNAL[,SIGNAL] COUNT_FILE WORD...

The second signal comes a moment after the first. When the command ends by itself, the number of
effects is in COUNT_FILE.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from orchestrator import cli
from orchestrator.connection.line import Line
from tests.faults.statements import before_each_statement
from tests.forks import before_each_change

# As quickly as a person presses a key twice, or a little quicker.
TWICE_S = 0.03


def main() -> NoReturn:
    step, file = int(sys.argv[1]), Path(sys.argv[3])
    first, *then = (int(number) for number in sys.argv[2].split(","))
    sys.argv = ["train", *sys.argv[4:]]
    others = 0
    is_over = False
    changes = before_each_change(sys.maxsize, lambda: None)

    def effects() -> int:
        return changes() + others

    @_once
    def strike() -> None:
        for number in then:
            threading.Timer(TWICE_S, os.kill, (os.getpid(), number)).start()
        os.kill(os.getpid(), first)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        # After the other hook has counted it, and before it is done.
        if effects() > step and not is_over:
            strike()

    def count() -> None:
        nonlocal others
        others += 1
        if effects() > step:
            strike()

    sys.addaudithook(watch)
    before_each_statement(count)
    send, end = Line.send, os._exit

    def counted(line: Line, data: bytes) -> int:
        count()
        return send(line, data)

    def ended(code: int) -> NoReturn:
        nonlocal is_over
        # What follows is no effect of the command's.
        is_over = True
        file.write_text(str(effects()))
        end(code)

    Line.send = counted  # type: ignore[assignment, method-assign]
    os._exit = ended  # type: ignore[assignment]
    cli.main()


def _once(action: Callable[[], object]) -> Callable[[], None]:
    left = [action]

    def act() -> None:
        with suppress(IndexError):  # more than one thread has effects
            left.pop()()

    return act


if __name__ == "__main__":
    main()
