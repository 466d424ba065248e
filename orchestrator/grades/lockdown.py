"""What a process on Linux gives up for good, by Landlock and seccomp; threads share it if new.

Each function does what the kernel allows, and nothing where it allows none of it.

Source: Linux man-pages landlock(7), seccomp(2), bpf(4); the kernel's syscall tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_EXECUTE, _WRITE, _READ = 1 << 0, 1 << 1, 1 << 2 | 1 << 3
# Those that files have; the rest is of folders only.
_OF_FILES = _EXECUTE | _WRITE | 1 << 2 | 1 << 14


def restrict_files(folder: Path, readable: Iterable[Path] = ()) -> None:
    """Change nothing outside of `folder`, read nothing hidden in the user's home, execute nothing.

    TCP and signals to other processes are refused with it, by kernels that know how.

    Args:
        readable: what may be read though it is hidden. Python's own files may be, too.
    """
    create_ruleset, add_rule, restrict_self, path_beneath = 444, 445, 446, 1
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(create_ruleset, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    # Making and removing files; the second version adds moving, the third cutting them.
    changes = sum(1 << bit for bit in range(4, 12 + min(version, 3))) | _WRITE
    handled = (ctypes.c_uint64 * 3)(
        _EXECUTE | _READ | changes, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(create_ruleset, handled, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return
    python = (Path(place) for place in (*sys.path, sys.prefix, sys.base_prefix) if place)
    home = Path(os.path.realpath(Path.home()))
    rules = [(place, _READ) for place in _shown(home, (*python, *readable))]
    for place, allowed in [*rules, (folder, _READ | changes), (Path(os.devnull), _WRITE)]:
        try:
            descriptor = os.open(place, os.O_PATH)
        except OSError:
            continue  # it is not there, or not ours to read anyway
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= _OF_FILES
        rule = allowed.to_bytes(8, sys.byteorder) + descriptor.to_bytes(4, sys.byteorder)
        libc.syscall(add_rule, ruleset, path_beneath, rule, 0)
        os.close(descriptor)
    libc.syscall(restrict_self, ruleset, 0)
    os.close(ruleset)


def _shown(home: Path, needed: Iterable[Path]) -> Iterator[Path]:
    """All places but what is hidden in `home`; Landlock knows only what is allowed, with all below.

    Keys, tokens and browsers' stores are in hidden folders of the home.
    """
    for place in (*reversed(home.parents), home):
        for entry in _entries(place):
            is_above = entry in (home, *home.parents)
            is_hidden = place == home and entry.name.startswith(".")
            # A rule for a link is one for its target, which may be above; else it is listed, too.
            if not (is_above or is_hidden or entry.is_symlink()):
                yield entry
    for place in needed:
        if not home.is_relative_to(os.path.realpath(place)):
            yield place


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


# The numbers of x86-64 and of ARM64, which has no number for what is older than it.
_REFUSED = (
    # Sockets of any kind: those of the session's bus and of ssh-agent are files, where neither
    # a network namespace nor Landlock is in the way. io_uring makes sockets by itself.
    *(("socket", 41, 198), ("io_uring_setup", 425, 425)),
    # Other processes, so that there is none to end after this one.
    *(("fork", 57, None), ("vfork", 58, None), ("execve", 59, 221), ("execveat", 322, 281)),
    *(("tkill", 200, 130), ("rt_sigqueueinfo", 129, 138), ("rt_tgsigqueueinfo", 297, 240)),
    ("pidfd_send_signal", 424, 424),
    # What Landlock does not count as writing.
    *(("chmod", 90, None), ("fchmod", 91, 52), ("fchmodat", 268, 53), ("fchmodat2", 452, 452)),
    *(("chown", 92, None), ("fchown", 93, 55), ("lchown", 94, None), ("fchownat", 260, 54)),
    *(("utime", 132, None), ("utimes", 235, None), ("futimesat", 261, None)),
    *(("utimensat", 280, 88), ("setxattr", 188, 5), ("lsetxattr", 189, 6), ("fsetxattr", 190, 7)),
    *(("removexattr", 197, 14), ("lremovexattr", 198, 15), ("fremovexattr", 199, 16)),
    *(("setxattrat", 463, 463), ("removexattrat", 466, 466)),
    # Memory that no limit counts.
    ("memfd_create", 319, 279),
)
_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
# Where the kernel shows a filter the number, the architecture and the first argument's low half.
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16


def restrict_calls() -> None:
    """Make no socket and no process, signal no other one, change no file's mode, owner or times.

    It needs `no_new_privs`. Threads may be made.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        return
    program = b"".join(_filter(is_arm=machine == "aarch64"))
    # A struct sock_fprog: the count of instructions, and where they are.
    held = ctypes.create_string_buffer(program)
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    pr_set_seccomp, seccomp_mode_filter = 22, 2
    ctypes.CDLL(None).prctl(pr_set_seccomp, seccomp_mode_filter, described, 0, 0)


def _filter(*, is_arm: bool) -> Iterator[bytes]:
    """The instructions of the filter, to be run from the first for each system call."""

    def step(code: int, value: int, skip_if: int = 0, skip_else: int = 0) -> bytes:
        return struct.pack("=HBBI", code, skip_if, skip_else, value)

    refuse = step(_RETURN, _REFUSE | errno.EPERM)
    yield step(_LOAD, _ARCHITECTURE)
    # Another one's calls (32 bit, x32) have other numbers.
    yield from (step(_EQUAL, 0xC00000B7 if is_arm else 0xC000003E, 1), refuse)
    yield step(_LOAD, _NUMBER)
    yield from (step(_AT_LEAST, 0x40000000, 0, 1), refuse)
    for _, on_x86, on_arm in _REFUSED:
        number = on_arm if is_arm else on_x86
        if number is not None:
            yield from (step(_EQUAL, number, 0, 1), refuse)
    # Its arguments cannot be seen; without it the C library takes `clone`.
    yield from (step(_EQUAL, 435, 0, 1), step(_RETURN, _REFUSE | errno.ENOSYS))
    clone_thread, this, oneself = 0x10000, os.getpid(), 0
    for number, test, value in (
        (220 if is_arm else 56, _ANY_BIT, clone_thread),  # clone
        (129 if is_arm else 62, _EQUAL, this),  # kill
        (131 if is_arm else 234, _EQUAL, this),  # tgkill, which is how `abort` ends a process
        (261 if is_arm else 302, _EQUAL, oneself),  # prlimit64, which also sets others' limits
    ):
        yield from (step(_EQUAL, number, 0, 4), step(_LOAD, _ARGUMENT), step(test, value, 0, 1))
        yield from (step(_RETURN, _ALLOW), refuse)
    yield step(_RETURN, _ALLOW)
