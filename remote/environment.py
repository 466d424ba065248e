"""The Python a job runs with: the machine's own, or a virtual environment from requirements.

envs/<digest>/            built under a lock; usable only with `.complete` in it
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import BinaryIO, Callable, Sequence

from remote.atomic import discard, temporary_beside
from remote.lock import holding
from remote.store import Store

_COMPLETE = ".complete"

# It takes milliseconds; an interpreter on a cold network disk seconds.
_VERSION_LIMIT_S = 120.0


class SetupFailed(Exception):
    """The environment could not be made; the run's log has the details."""


def find_python(name: str) -> str:
    """The absolute path of an interpreter given by name, path, or `~/` path.

    Raises:
        SetupFailed: there is none.
    """
    found = shutil.which(os.path.expanduser(name))  # noqa: PTH111  # a name stays a name
    if found is None:
        raise SetupFailed(f"there is no {name} on this machine")
    return os.path.abspath(found)  # noqa: PTH100  # resolving would leave a virtual environment


def environment_folder(store: Store, python: str, requirements: bytes) -> Path:
    """Where the environment of `requirements` on this interpreter stands, or would.

    Raises:
        SetupFailed: the interpreter does not say what it is.
    """
    asked = [python, "-VV"]
    try:
        version = subprocess.run(
            asked, capture_output=True, check=False, timeout=_VERSION_LIMIT_S
        ).stdout
    except subprocess.TimeoutExpired:
        what = f"{python} did not tell its version within {_VERSION_LIMIT_S:g} s"
        raise SetupFailed(what) from None
    digest = hashlib.sha256(b"\0".join([version, python.encode(), requirements])).hexdigest()
    return store.root / "envs" / digest


def environment_python(store: Store, python: str, requirements: bytes) -> str:
    """The interpreter of a complete environment; empty where it is not built yet."""
    folder = environment_folder(store, python, requirements)
    return str(folder / "bin" / "python") if (folder / _COMPLETE).exists() else ""


def ensure_environment(
    store: Store, python: str, requirements: bytes, log: BinaryIO, pause: Callable[[], None]
) -> str:
    """The interpreter of an environment with `requirements` installed, built at first use.

    Built once even when several ask at once: the others wait. What an interrupted attempt left is
    removed by the next.

    Args:
        python: absolute path of the interpreter to build on.
        log: takes what pip says.
        pause: called while waiting; may raise to give up, and then the building is ended.

    Raises:
        SetupFailed: pip or venv ended badly.
    """
    folder = environment_folder(store, python, requirements)
    digest = folder.name
    interpreter = folder / "bin" / "python"
    with holding(store.lock_path(f"env-{digest[:16]}"), meanwhile=pause) as lock:
        if not store.touch(folder / _COMPLETE):
            discard(folder)
            begun = time.monotonic()
            log.write(f"trainshed: building the environment {digest[:12]}\n".encode())
            log.flush()
            wanted = store.root / "envs" / f"{digest}.txt"
            wanted.write_bytes(requirements)
            install = [str(interpreter), "-m", "pip", "install", "--no-input", "-r", str(wanted)]
            # Where the result goes there is room for a framework; /tmp may be tiny, or noexec,
            # where nothing can be built.
            scratch = temporary_beside(folder)
            scratch.mkdir(mode=0o700)
            try:
                _step([python, "-m", "venv", str(folder)], lock, log, pause, scratch)
                _step(install, lock, log, pause, scratch)
            finally:
                discard(scratch)
            os.sync()  # after a power cut, `.complete` must not be all that there is
            (folder / _COMPLETE).touch()
            log.write(f"trainshed: built in {time.monotonic() - begun:.0f} s\n".encode())
    return str(interpreter)


def _step(
    command: Sequence[str], lock: int, log: BinaryIO, pause: Callable[[], None], scratch: Path
) -> None:
    environment = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "TMPDIR": str(scratch),
    }
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        # If we are killed, it goes on, and nobody else may build in the same folder until it ends.
        pass_fds=(lock,),
        start_new_session=True,
    )
    try:
        while process.poll() is None:
            pause()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # with the compilers that pip started
        process.wait()
        raise
    if process.returncode:
        what = "pip install" if "pip" in command else "python -m venv"
        raise SetupFailed(
            f"{what} ended with {process.returncode}: see the run's log"
            + ("" if "pip" in command else " (on Debian and Ubuntu: apt install python3-venv)")
        )
