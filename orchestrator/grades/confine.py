"""Runs work in a process that may read and compute, but not much else.

On Linux: no network (no sockets, and an empty network namespace), no other processes, no writing
outside of one folder, no reading of what the home folder hides (see `lockdown`), limits of memory,
CPU time and file size, no core dump, and the end when the starter ends. Each is taken where the
kernel allows it. On macOS the limits of memory, CPU time and files remain; on Windows only the wall
clock.

Source: Linux man-pages setrlimit(2), unshare(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from orchestrator.grades.lockdown import restrict_calls, restrict_files

OUTPUT_BYTES = 64 * 1024
NOISE_BYTES = 4 * 1024
# How often the wall clock is looked at.
POLL_S = 0.02
# What finding out may take; a tenth of a second is usual.
TRIAL_S = 20.0

# Apple's frameworks abort in a child forked by a process with threads, and Windows has no fork.
FORKS = sys.platform == "linux"


@dataclass(frozen=True)
class Limits:
    """What grading one model may take.

    Attributes:
        memory_bytes: of the process, TensorFlow's own 0.5 GB included.
        time_s: wall clock, for the grader's data, loading and predicting together.
        model_bytes: of the file, and of what it unpacks to.
    """

    memory_bytes: int = 4 * 1024**3
    time_s: float = 120.0
    model_bytes: int = 500 * 1000**2


@dataclass(frozen=True)
class Ending:
    """How a confined process ended.

    Attributes:
        code: its exit status; below zero it is the signal that killed it.
        output: the first `OUTPUT_BYTES` of its stdout.
        noise: the end of its stderr.
        timed_out: whether it was killed for the time it took.
    """

    code: int
    output: bytes
    noise: str
    timed_out: bool


class Abandoned(Exception):
    """Whoever asked for the work is gone."""


def run_forked(
    work: Callable[[], None],
    limits: Limits,
    folder: Path,
    leash: int,
    readable: Iterable[Path] = (),
) -> Ending:
    """Do `work` in a confined fork of this process; its stdout and stderr are caught.

    Args:
        folder, readable: as `confine` has them.
        leash: a descriptor that stays silent until its other end closes.

    Raises:
        Abandoned: the leash moved; the fork has been killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as noise:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            confined = partial(confine, limits, folder, readable)
            _be_the_child(confined, work, output.fileno(), noise.fileno())
        deadline = time.monotonic() + limits.time_s
        timed_out = False
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            timed_out = time.monotonic() > deadline
            if timed_out or select.select([leash], [], [], POLL_S)[0]:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                if not timed_out:
                    raise Abandoned
                break
        return _ending(os.waitstatus_to_exitcode(status), output, noise, timed_out)


def _be_the_child(
    confined: Callable[[], None], work: Callable[[], None], output: int, noise: int
) -> None:
    """Never returns: neither the caller's `finally` nor its buffers are the child's to run."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(noise, 2)
        confined()
        work()
        code = 0
    except BaseException:  # noqa: BLE001  (the process ends here, whatever came)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def run_spawned(command: Sequence[str], request: bytes, limits: Limits) -> Ending:
    """Run `command`, which confines itself, with `request` and then silence on its stdin.

    The command must end when its stdin does: that is its leash.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=noise)
        assert process.stdin is not None
        timed_out = False
        try:
            process.stdin.write(request)
            process.stdin.flush()
            process.wait(limits.time_s)
        except OSError:
            process.wait()  # it ended before it read
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            process.kill()
            process.wait()
            try:
                process.stdin.close()
            except OSError:
                pass  # what it did not read cannot be flushed
        return _ending(process.returncode, output, noise, timed_out)


def _ending(code: int, output: IO[bytes], noise: IO[bytes], timed_out: bool) -> Ending:
    output.seek(0)
    noise.seek(max(0, noise.seek(0, os.SEEK_END) - NOISE_BYTES))
    return Ending(
        code, output.read(OUTPUT_BYTES), noise.read(NOISE_BYTES).decode(errors="replace"), timed_out
    )


def confine(limits: Limits, folder: Path, readable: Iterable[Path] = ()) -> None:
    """Give up what grading a model does not need. Takes effect on Linux only in a single thread.

    Args:
        folder: the only place where this process may write from now on.
        readable: what it may read even if it is in a hidden folder of the user's.
    """
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    if sys.platform == "win32":
        return
    import resource

    def lower(limit: int, value: int) -> None:
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, limits.model_bytes)
    # The wall clock ends it sooner; this is for a process that nobody watches any more.
    lower(resource.RLIMIT_CPU, int(limits.time_s + 1) * (os.cpu_count() or 1))
    if sys.platform != "linux":
        threading.Thread(target=watch_memory, args=(limits.memory_bytes,), daemon=True).start()
        return
    # Not RLIMIT_AS: TensorFlow maps 2.8 GB to use 0.5.
    lower(resource.RLIMIT_DATA, limits.memory_bytes)
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_pdeathsig, pr_set_no_new_privs = 1, 38
    libc.prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    clone_newuser, clone_newnet = 0x10000000, 0x40000000
    libc.unshare(clone_newuser | clone_newnet)
    libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0)
    restrict_files(folder, readable)
    restrict_calls()


def confinement() -> tuple[str, ...]:
    """What `confine` does not keep a grading from on this system; empty where all is well.

    A process is started that confines itself and then tries; it takes a tenth of a second.
    """
    everything = ("use the network", "write files", "read hidden files", "start programs")
    if sys.platform != "linux":
        return everything
    package = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(prefix="trainshed-confine-") as name:
        try:
            done = subprocess.run(
                (sys.executable, "-P", "-m", "orchestrator.grades.confine", name),
                env={**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TRIAL_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return everything
    return tuple(what for what in everything if what in done.stdout.splitlines())


def _try_everything(folder: Path) -> None:
    """Confine this process to a folder below `folder`, and print what it can do all the same."""
    own, hidden = folder / "own", folder / ".hidden"
    own.mkdir()
    hidden.touch()
    os.environ["HOME"] = str(folder)
    confine(Limits(), own)

    def reach() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            # Sends nothing: it asks whether there is a way there at all.
            line.connect(("127.0.0.1", 9))

    def start() -> None:
        if os.fork() == 0:
            os._exit(0)
        os.wait()

    attempts = {
        "use the network": reach,
        "write files": (folder / "outside").touch,
        "read hidden files": hidden.read_bytes,
        "start programs": start,
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        os.write(1, f"{what}\n".encode())


def watch_memory(memory_bytes: int) -> None:
    """Kill this process when it has ever held more; for systems that do not limit it."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit <= memory_bytes:
        time.sleep(POLL_S)
    os.write(2, b"std::bad_alloc: the limit of memory is reached\n")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _try_everything(Path(sys.argv[1]))
