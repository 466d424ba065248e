"""The machine's own TensorBoard, for one laptop's line.

It is a child of the agent and ends when its input does: with the agent, however that ends. It
listens on 127.0.0.1, where every user of the machine can connect; what it has is below a path that
only the laptop knows, and that stands in no command line and in no file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Optional, Tuple

from remote.boardserver import EVENTS
from remote.environment import SetupFailed, environment_python, find_python
from remote.events import find_events
from remote.protocol import Board, Served, Shown
from remote.record import Malformed, from_bytes
from remote.runfolder import RunFolder, RunRequest, is_run_id
from remote.runs import Refusal
from remote.store import Store

# Importing it took 2 s on a laptop's SSD; a cold network disk may take minutes.
_START_LIMIT_S = 120.0


class OwnBoard:
    """TensorBoard in a process of a run's own interpreter, started at the first call.

    Args:
        package: zip file of the `remote` package.
    """

    def __init__(self, store: Store, package: bytes) -> None:
        self._store = store
        self._package = package
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._events = Path()
        self._port = 0

    def show(self, call: Board) -> Shown:
        """Add what has come of event files, by links: nothing else of a run is looked through.

        Raises:
            Refusal: no such run is here, TensorBoard does not start, or it has ended.
            OSError: no space, no permission.
        """
        folders = _known_runs(self._store, call)
        if self._process is None:
            self._start(_python_of(self._store, folders[-1]), call.prefix)
        elif self._process.poll() is not None:
            raise Refusal("no-tensorboard", "TensorBoard has ended there", "the same command again")
        shown = []
        for folder in folders:
            found = find_events(folder)
            for name, path in found.items():
                _link(self._events / folder.path.name / name, path)
            if found:
                shown.append(folder.path.name)
        return Shown(self._port, tuple(shown))

    def _start(self, python: str, prefix: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="trainshed-board-"))
        try:
            package = folder / "remote.zip"
            package.write_bytes(self._package)
            events = folder / EVENTS
            events.mkdir()
            process = subprocess.Popen(
                [python, "-X", "utf8", str(package), "board", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Not to be ended by a signal to us: it is to remove its folder.
                start_new_session=True,
            )
            self._port = _begin(process, prefix, python)
        except BaseException:
            shutil.rmtree(str(folder), ignore_errors=True)
            raise
        self._process, self._events = process, events


def _begin(process: subprocess.Popen[bytes], prefix: str, python: str) -> int:
    """The port, once it serves."""
    assert process.stdin is not None
    assert process.stdout is not None
    watch = threading.Timer(_START_LIMIT_S, process.kill)
    watch.start()
    try:
        process.stdin.write(f"{prefix}\n".encode())
        process.stdin.flush()
        served = from_bytes(Served, process.stdout.read())
    except (BrokenPipeError, Malformed):
        process.kill()
        served = Served(0, f"it ended with {process.wait()}")
    finally:
        watch.cancel()
    if served.port:
        return served.port
    raise Refusal(
        "no-tensorboard",
        f"TensorBoard does not start with {python}: {served.trouble}",
        f"there: {python} -m pip install tensorboard; or, where the environment is built from "
        "requirements, add it to them",
    )


def _known_runs(store: Store, call: Board) -> Tuple[RunFolder, ...]:
    """The folders of those that this machine knows.

    Raises:
        Refusal: it knows none.
    """
    folders = [RunFolder(store.runs / run_id) for run_id in call.runs if is_run_id(run_id)]
    known = tuple(folder for folder in folders if folder.request.exists())
    if not known:
        raise Refusal("unknown-run", "this machine knows none of these runs")
    return known


def _python_of(store: Store, folder: RunFolder) -> str:
    """The interpreter that the run's command has.

    Raises:
        Refusal: it is not there, or not yet.
    """
    request = from_bytes(RunRequest, folder.request.read_bytes())
    try:
        python = find_python(request.python)
        if not request.requirements:
            return python
        requirements = (folder.tree / request.requirements).read_bytes()
        if built := environment_python(store, python, requirements):
            return built
    except SetupFailed as failed:
        raise Refusal("no-python", str(failed)) from failed
    except FileNotFoundError:
        pass  # the run has not begun, so it has no tree yet
    raise Refusal(
        "no-environment",
        f"the environment of {folder.path.name} is not built yet",
        "wait until the run has begun: train status",
    )


def _link(link: Path, path: Path) -> None:
    if os.path.lexists(str(link)):
        return
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    except (FileExistsError, NotADirectoryError):
        pass  # one file's name is another one's folder; the first is shown
