"""Who is there: the runs that live, and whether anything moved among the logins and laptops.

What moves is noticed by comparing with the look before, never by subtracting times of day, so that
a clock that is set makes nobody come or go.

A login is what a server of SSH has started and still holds: a shell at a terminal, or the command
of `ssh host command`, with everything below it. Being open is not enough, or a forgotten window
would cost money for ever. It moves when it comes, when something is typed (its terminal's time of
access: the kernel sets it at each read, at most every 8 s), and when its processes use CPU time:
BUSY_S within WINDOW_S. An upload of 0.1 MB/s takes that (measured: 4 to 8 times 10 ms a minute), a
shell or an editor that waits does not; a program that redraws itself (`top`) is work. What was left
behind by a login that is gone (`nohup`, a detached tmux) belongs to no login; what runs in an
attached tmux or screen does. A console that is not SSH's is not seen.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from remote.lock import is_held
from remote.processes import Process, read_processes
from remote.record import from_bytes
from remote.runfolder import RunFolder, RunRequest, RunState, State, is_run_id

BUSY_S, WINDOW_S = 0.03, 60.0
# Hashing what a run has made; beyond the time its command has to save.
HASHING_S = 30.0
_SERVERS = ("sshd", "sshd-session", "sshd-auth", "dropbear")
# A terminal's window into a session that goes on without it, and the program that holds that.
_WINDOWS = {"tmux: client": "tmux: server", "screen": "SCREEN"}
# Numbers of the terminals that /dev/pts has.
_FIRST_PTS_MAJOR, _LAST_PTS_MAJOR = 136, 143
_BUSY_TICKS = max(1, round(BUSY_S * os.sysconf("SC_CLK_TCK")))


class Login(NamedTuple):
    """Attributes:
    who: tells this login from every other.
    typed: when its terminal was last read, in the file system's words; 0 without one.
    ticks: CPU time of all its processes that live, in clock ticks.
    """

    who: str
    typed: int
    ticks: int


class LiveRun(NamedTuple):
    """A run without an end whose lock is held.

    Attributes:
        needs_s: how long it takes to save when it is warned.
        can_hear: whether its supervisor listens to a warning by now.
    attempt: which of its attempts that is; each is to be warned by itself.
    """

    folder: RunFolder
    needs_s: float
    can_hear: bool
    attempt: int = 0


class Runs:
    """The runs of a store; those that have ended are looked at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ended: Dict[str, int] = {}

    def living(self) -> List[LiveRun]:
        """Those that are not at their end, from the queue to the hashing of outputs.

        Raises:
            OSError, ValueError: they cannot be read.
        """
        found = []
        for name in sorted(os.listdir(self._folder)):  # noqa: PTH208  # many, at each look
            folder = RunFolder(self._folder / name)
            if is_run_id(name):
                run = self._look(folder)
                if run is not None:
                    found.append(run)
        return found

    def _look(self, folder: RunFolder) -> Optional[LiveRun]:
        name = folder.path.name
        try:
            written: Optional[int] = folder.state.stat().st_mtime_ns
        except FileNotFoundError:
            written = None
        if written is not None and self._ended.get(name) == written:
            return None
        # The lock first: a supervisor that ends between the two has written its end.
        if not is_held(folder.lock):
            return None
        try:
            request = from_bytes(RunRequest, folder.request.read_bytes())
            state = None if written is None else from_bytes(RunState, folder.state.read_bytes())
            if state is not None and state.state.final:
                self._ended[name] = written or 0
                return None
        except FileNotFoundError:
            return None  # it is being removed
        # One that was interrupted has saved what it had, and waits for the machine to go.
        is_saved = state is not None and state.state is not State.QUEUED and bool(state.reason)
        needs_s = 0.0 if is_saved else request.grace_s + HASHING_S
        attempt = state.restarts if state is not None else 0
        return LiveRun(folder, needs_s, can_hear=state is not None, attempt=attempt)


class Presence:
    """Whether anything moved among logins and laptops since the last look.

    Args:
        sign: of the last look, also of one by another guard in this boot; empty for none.
    """

    def __init__(self, laptop: Path, sign: str = "") -> None:
        self._laptop = laptop
        self.sign = sign
        # CPU time of each login at the window's start, and how old that is.
        self._ticks: Dict[str, int] = {}
        self._window_s = 0.0

    def moved(self, passed_s: float) -> bool:
        """Args:
            passed_s: since the last look.

        Raises:
            OSError, ValueError: it cannot be seen.
        """
        logins = read_logins(read_processes(Path("/proc")))
        signs = [f"laptop {_changed_at(self._laptop)}"]
        signs += [f"{login.who} {login.typed}" for login in logins]
        old, self.sign = set(self.sign.split("\n")), "\n".join(signs)
        works = self._works(logins, passed_s)
        # That one has gone moves nothing.
        return works or not old.issuperset(signs)

    def _works(self, logins: Tuple[Login, ...], passed_s: float) -> bool:
        """Whether any has used enough CPU time within WINDOW_S."""
        self._window_s += passed_s
        works = any(
            # Less than before where one of its processes has ended; then it did something.
            not 0 <= login.ticks - self._ticks.get(login.who, login.ticks) < _BUSY_TICKS
            for login in logins
        )
        is_over = works or self._window_s >= WINDOW_S
        before = {} if is_over else self._ticks
        self._ticks = {login.who: before.get(login.who, login.ticks) for login in logins}
        if is_over:
            self._window_s = 0.0
        return works


def read_logins(processes: Iterable[Process]) -> Tuple[Login, ...]:
    """The logins among all processes."""
    there = {process.pid: process for process in processes if not process.ended}
    below: Dict[int, List[Process]] = {}
    for process in there.values():
        below.setdefault(process.parent, []).append(process)
    found = []
    for process in there.values():
        parent = there.get(process.parent)
        if parent is None or parent.name not in _SERVERS or process.name in _SERVERS:
            continue
        family = _family(process, below)
        windows = {_WINDOWS[p.name] for p in family if p.name in _WINDOWS}
        for server in (p for p in there.values() if p.name in windows):
            family += _family(server, below)
        # The server's own work for it too: what is uploaded passes through it.
        ticks = parent.ticks + sum(p.ticks for p in family)
        who = f"{process.pid}.{process.started}"
        found.append(Login(who, _typed(process.terminal), ticks))
    return tuple(found)


def _family(root: Process, below: Dict[int, List[Process]]) -> List[Process]:
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += below.get(found[-1].pid, ())
    return found


def _typed(terminal: int) -> int:
    # The layout of a device number in /proc/[pid]/stat: proc(5), tty_nr.
    major, minor = (terminal >> 8) & 0xFFF, (terminal & 0xFF) | ((terminal >> 12) & 0xFFF00)
    if not _FIRST_PTS_MAJOR <= major <= _LAST_PTS_MAJOR:
        return 0
    number = (major - _FIRST_PTS_MAJOR) * 256 + minor
    try:
        return os.stat(f"/dev/pts/{number}").st_atime_ns  # noqa: PTH116
    except FileNotFoundError:
        return 0  # it was closed in this moment


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
