"""A VM that can be rebooted: all its processes are gone, its locks are free, its boot id is new."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import pytest

from tests.servers import SshServer, embedded

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class RebootableVm:
    """A practice VM in a mount namespace of its own, where the boot id is a file of ours.

    Attributes:
        server: the same address and keys after each boot.
    """

    server: SshServer

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("only root makes a mount namespace")
        self._folder = folder
        folder.mkdir()
        self._boot_id = folder / "boot_id"
        self._up = ExitStack()
        self._boot()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._up.close()

    def reboot(self) -> None:
        """Without a warning, as when the power fails."""
        for pid in processes(self.server.home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._up.close()
        self._boot()

    def _boot(self) -> None:
        self._boot_id.write_text(f"{uuid.uuid4()}\n")
        mount = f"mount --bind {shlex.quote(str(self._boot_id))} {BOOT_ID}"
        before = ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
        self.server = self._up.enter_context(embedded(self._folder / "vm", before))


def processes(home: Path, word: str = "") -> list[int]:
    """Of the VM's user, with this word in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_there = f"HOME={home}\0".encode() in (folder / "environ").read_bytes()
            if is_there and word.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found
