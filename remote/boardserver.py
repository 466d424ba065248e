"""TensorBoard in this process: on the laptop over what was brought home, on the VM in a process of
a run's own interpreter. The only module that knows its options.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Sequence
from urllib.parse import urlsplit

from remote.protocol import Served
from remote.record import to_bytes

# It reads each file on after so many seconds; less is only work.
RELOAD_S = 2.0

# In the folder that a process for the VM is given.
EVENTS = "events"


def serve(folder: Path, prefix: str = "") -> str:
    """Show the event files below `folder` on a free port, to this machine only.

    Args:
        prefix: the path below which all pages are; for any other it answers 404. It is not written
            into /tmp/.tensorboard-info for all to read, as TensorBoard's own command would.

    Returns:
        The address for a browser.

    Raises:
        ImportError: TensorBoard is not installed.

    Source: tensorboard/program.py of TensorBoard 2.5 and 2.21.
    """
    # Importing TensorFlow, where it is installed, would take ten seconds; files are read as well
    # without.  Source: tensorboard/compat/__init__.py
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    program: Any = importlib.import_module("tensorboard.program")
    # It complains of the last, unfinished record of a file that is still written to.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    board = program.TensorBoard()
    board.configure(
        logdir=os.fspath(folder),
        host="127.0.0.1",
        port=0,
        path_prefix=prefix,
        reload_interval=RELOAD_S,
        # Several fits, or processes, may write to one folder.
        reload_multifile=True,
        # The other reader is a process of its own, which would outlive us.
        load_fast="false",
        window_title="Trainshed",
    )
    return str(board.launch())


def main(arguments: Sequence[str]) -> None:
    """Serve the folder `EVENTS` in the folder named, until the input ends; then both are gone.

    The prefix is the first line of the input, because others can read a command line.
    """
    folder = Path(arguments[0])
    # Whatever a library prints must not be taken for the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        address = serve(folder / EVENTS, sys.stdin.readline().strip())
        os.write(answer, to_bytes(Served(urlsplit(address).port or 0)))
        os.close(answer)
        sys.stdin.read()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
        os.write(answer, to_bytes(Served(0, f"{type(error).__name__}: {error}"[:300])))
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)
        # Its threads may be at work, and must not keep the process.
        os._exit(0)
