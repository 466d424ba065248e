"""A file system that cannot do something, for the processes of one command: its calls fail there.

    python denied.py CALL=ERROR[,CALL=ERROR...] -- COMMAND [WORD...]

A seccomp filter, because it needs no file system of that kind; children inherit it.
Source: Linux man-pages seccomp(2); <linux/filter.h>, <linux/seccomp.h>, <asm/unistd_64.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# By machine: its number in <linux/audit.h>, and those of the calls.
_MACHINES = {
    "x86_64": (
        0xC000003E,
        {
            "flock": 73,
            "link": 86,
            "linkat": 265,
            "symlink": 88,
            "symlinkat": 266,
            "chmod": 90,
            "fchmod": 91,
            "fchmodat": 268,
            "fchmodat2": 452,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "flock": 32,
            "linkat": 37,
            "symlinkat": 36,
            "fchmod": 52,
            "fchmodat": 53,
            "fchmodat2": 452,
        },
    ),
}
IS_POSSIBLE = sys.platform == "linux" and platform.machine() in _MACHINES

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000
_NUMBER_AT, _MACHINE_AT = 0, 4
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


def deny(errors: dict[str, int]) -> None:
    """From now on these calls of this process end with these errors.

    Raises:
        OSError: this kernel has no filters.
    """
    machine, numbers = _MACHINES[platform.machine()]
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_IF_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for call, error in errors.items():
        if call in numbers:  # a newer machine has not all the old calls
            steps += [(_JUMP_IF_EQUAL, 0, 1, numbers[call]), (_RETURN, 0, 0, _FAIL_WITH | error)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _FILTER, ctypes.addressof(program), 0, 0),
    ):
        if libc.prctl(arguments[0], *map(ctypes.c_ulong, arguments[1:])):
            raise OSError(ctypes.get_errno(), "no seccomp filters here")


def main() -> None:
    what, _, *command = sys.argv[1:]
    pairs = (pair.split("=") for pair in what.split(","))
    deny({call: getattr(errno, name) for call, name in pairs})
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
