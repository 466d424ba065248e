"""Every error a user can meet, and the exit code of each. Codes are never renumbered.

TrainshedError
+-- UsageError              2   options, names or arguments are wrong; nothing was done
|   +-- ConfigError         2   a file is wrong: says file, line, expected and found
|   +-- LaptopFull          2   this laptop's disk is full; once there is room, safe to repeat
+-- ConnectError            3   never got through
|   +-- HostKeyUnknown      3   a machine seen for the first time, and nobody to ask
|   +-- HostKeyChanged      3   not the machine we knew
|   +-- LoginRefused        3   reached, but not let in
|   +-- NoPython            5   let in, but there is no Python the agent can use
+-- ConnectionLost          4   got through, then lost the line; safe to repeat
+-- Refused                 5   the VM's side said no: disk, Python, GPU, store
|   +-- AgentBroken         5   the agent answered what it must not; a bug or a damaged line
+-- CloudError              3   the cloud could not be asked
|   +-- CloudRefused        2   it answered no: a login, a right or a name is wrong
|   +-- NoCapacity          5   it has no such machine to give just now; safe to repeat
+-- Forbidden               6   a budget, a clock or an unknown price forbids it
+-- ModelDamaged            5   bytes that came do not match the VM's sha256
+-- RunFailed               1   a run ended badly
+-- GradeBelow              1   a grade is below what was asked, or a model is not ready
+-- LedgerError             2   the local record cannot be read or written
|   +-- LedgerDamaged       2   what is in it makes no sense, or it is gone; it can be made again
+-- Interrupted           130   the user pressed Ctrl-C; runs on the VM go on
"""

from __future__ import annotations

import errno
from typing import ClassVar

from orchestrator.screen.printable import printable

# What the system says where a disk, or a user's share of it, is used up.
FULL = (errno.ENOSPC, errno.EDQUOT)


class TrainshedError(Exception):
    """A fact the user can act on.

    Args:
        message: what happened; lower case, real names and values, no full stop.
        cause: why, where it is known and is not an exception's text.
        fix: what the user can do about it.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, cause: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.fix = fix

    def render(self) -> str:
        """The text for the terminal: error, cause and fix, each on its line.

        Any of them may hold what a server said, even one whose key was never checked.
        """
        cause = self.cause
        if not cause and self.__cause__ is not None:
            cause = _say(self.__cause__)
            cause = "" if cause in str(self) else cause
        lines = [f"error: {self}"]
        if cause:
            lines.append(f"cause: {cause}")
        if self.fix:
            lines.append(f"fix:   {self.fix}")
        return "\n".join(printable(line) for line in "\n".join(lines).split("\n"))


def unwritten(error: OSError, what: object) -> UsageError:
    """What to tell of something on this laptop that could not be written."""
    if error.errno in FULL:
        return LaptopFull(
            f"no space left for {what}",
            fix="make room on that disk of this laptop; the same command then goes on",
        )
    if error.errno == errno.EROFS:
        return UsageError(
            f"{what} cannot be written, its disk is read-only",
            fix="mount it for writing, or work in a copy of the folder elsewhere",
        )
    return UsageError(f"{what}: {(error.strerror or str(error)).lower()}")


def _say(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        # Without the number, which Python puts before it.
        file = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror.lower()}{file}"
    return f"{type(error).__name__}: {error}"


class UsageError(TrainshedError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class LaptopFull(UsageError):
    retryable = True


class ConnectError(TrainshedError):
    exit_code = 3


class HostKeyUnknown(ConnectError):
    pass


class HostKeyChanged(ConnectError):
    pass


class LoginRefused(ConnectError):
    pass


class NoPython(ConnectError):
    exit_code = 5


# Somebody has to do something first: to try again would not help, and a server that counts failed
# logins might lock us out.
HOPELESS = (HostKeyChanged, HostKeyUnknown, LoginRefused, NoPython)


class ConnectionLost(TrainshedError):
    exit_code = 4
    retryable = True


class Refused(TrainshedError):
    """The VM's side said no. `code` is the protocol's word for why."""

    exit_code = 5

    def __init__(self, message: str, *, code: str = "", cause: str = "", fix: str = "") -> None:
        super().__init__(message, cause=cause, fix=fix)
        self.code = code


class AgentBroken(Refused):
    pass


class CloudError(TrainshedError):
    exit_code = 3
    retryable = True


class CloudRefused(CloudError):
    """The cloud said no. `code` is the cloud's own word for why."""

    exit_code = 2
    retryable = False

    def __init__(self, message: str, *, code: str = "", cause: str = "", fix: str = "") -> None:
        super().__init__(message, cause=cause, fix=fix)
        self.code = code


class NoCapacity(CloudRefused):
    exit_code = 5
    retryable = True


class Forbidden(TrainshedError):
    exit_code = 6


class ModelDamaged(TrainshedError):
    exit_code = 5


class RunFailed(TrainshedError):
    exit_code = 1


class GradeBelow(TrainshedError):
    exit_code = 1


class LedgerError(TrainshedError):
    exit_code = 2


class LedgerDamaged(LedgerError):
    def __init__(self, message: str) -> None:
        super().__init__(message, fix="move it away; a new one is made of what the workspaces keep")


class Interrupted(TrainshedError):
    exit_code = 130
