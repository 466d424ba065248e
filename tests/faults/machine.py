"""A whole machine that can be switched off: processes, boot id, network, mail spool of its own.

Its first process waits to be told to go; when it goes, all others are killed by the kernel, as when
the power is cut. So "the machine has stopped" is not a stand-in's word but a fact.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import pytest

from orchestrator.vm.package import bootstrap_command, bootstrap_input, package_input
from remote import record
from remote.guardfolder import GuardFolder
from remote.protocol import (
    CALL,
    MAGIC,
    RESULT,
    Frame,
    Hello,
    Keep,
    Kept,
    LetGo,
    No,
    Offer,
    Submit,
    name_of,
    pack,
    read_frame,
)
from remote.runfolder import RunFolder, RunRequest, RunState
from remote.tree import digest_of, encode_tree
from tests.vm import REPOSITORY, wait_until

# Ends the machine from inside: its first process hears it.
POWER_OFF = "kill -TERM 1"
_EMPTY = encode_tree({})
_INIT = """
mount --bind "$MACHINE/boot_id" /proc/sys/kernel/random/boot_id
mount -t tmpfs none /run
if [ -d "$MACHINE/crontabs" ]; then
  mount --bind "$MACHINE/crontabs" /var/spool/cron/crontabs
  cron
fi
ip link set lo up
ip addr add 169.254.169.254/32 dev lo
touch "$MACHINE/up"
trap 'exit 0' TERM
while :; do sleep 1000 & wait $!; done
"""
Answer = TypeVar("Answer")


class Machine:
    """Up from the start.

    Attributes:
        store: of the agent that answers `ask`.
    """

    def __init__(self, folder: Path, python: str = sys.executable, *, cron: bool = False) -> None:
        if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
            pytest.skip("only root makes namespaces of processes, mounts and networks")
        if cron and shutil.which("cron") is None:
            pytest.skip("cron is not installed")
        self.folder = folder
        self.python = python
        self.store = folder / "store"
        self.guard = GuardFolder(self.store / "guard")
        self._started: list[subprocess.Popen[bytes]] = []
        folder.mkdir()
        if cron:
            (folder / "crontabs").mkdir(mode=0o1730)
        self.boot()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.switch_off()

    def boot(self) -> None:
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (self.folder / "up").unlink(missing_ok=True)
        namespaces = ["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            ["unshare", *namespaces, "/bin/sh", "-ec", _INIT],
            env={**self._environment(), "MACHINE": str(self.folder)},
            stdin=subprocess.DEVNULL,
        )
        wait_until((self.folder / "up").exists, "the machine is up")

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None

    def switch_off(self) -> None:
        """As when the power is cut."""
        self._process.kill()
        self._process.wait()
        for process in self._started:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                with suppress(BrokenPipeError):
                    assert stream is not None
                    stream.close()
        self._started = []

    def start(
        self,
        command: Sequence[str],
        cwd: Path = REPOSITORY,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.Popen[bytes]:
        """A program in the machine; `more` goes into its environment."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        inside = ["nsenter", "--mount", "--pid", "--net", "-t", children.read_text().strip()]
        process = subprocess.Popen(
            # What it is given ends with it, also inside.
            [*inside, f"--wd={cwd}", "setpriv", "--pdeathsig", "KILL", *command],
            env={**self._environment(), **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(process)
        return process

    def says(
        self, program: str, *arguments: str, more: Mapping[str, str] = MappingProxyType({})
    ) -> str:
        """What a piece of Python with our modules prints there."""
        process = self.start([self.python, "-c", program, *arguments], more=more)
        said, troubles = process.communicate(timeout=60)
        assert process.returncode == 0, troubles.decode()
        return said.decode().strip()

    def stand_in(self, service: str, **state: object) -> Path:
        """A cloud's service (`imds`, `armlite`), as long as the machine is up; its state's file."""
        file = self.folder / f"{service}.json"
        write_state(file, **state)
        self.start([sys.executable, "-m", f"tests.clouds.{service}", str(file)])
        wait_until(file.with_name(f"{file.name}.up").exists, service)
        return file

    def ask(self, *calls: tuple[object, bytes] | object) -> list[Frame]:
        """What the agent answers to each, after its greeting, in a connection of its own."""
        sent = b"".join(map(packed, calls))
        has_package = (self.store / "agents").is_dir()
        given = bootstrap_input() + (b"" if has_package else package_input()) + sent
        process = self.start(["/bin/sh", "-c", bootstrap_command(self.python)], self.folder)
        said, troubles = process.communicate(given, timeout=60)
        assert troubles == b""
        frames = io.BytesIO(said.partition(MAGIC)[2])
        found = list(iter(lambda: read_frame(frames.read), None))
        self.hello = record.decode(Hello, found[0].head)
        return [frame for frame in found[1:] if frame.kind != "working"]

    def answer(self, cls: type[Answer], *calls: object) -> Answer:
        """That to the last call."""
        frame = self.ask(*calls)[-1]
        assert frame.kind == RESULT, record.decode(No, frame.head)
        return record.decode(cls, frame.head)

    def keep(self, **terms: Any) -> Kept:  # noqa: ANN401  # as `Keep` has them
        return self.answer(Kept, Keep(**{"session": "s1", **terms}))

    def keep_until_off(self, **terms: Any) -> Kept:  # noqa: ANN401
        """With a command that switches this machine off, at once and wholly."""
        return self.keep(how="command", options=(("command", POWER_OFF),), **terms)

    def let_go(self, session: str = "s1") -> Frame:
        return self.ask(LetGo(session))[-1]

    def submit(self, command: str, run_id: str = "run", **fields: Any) -> RunFolder:  # noqa: ANN401
        """Start a run in an empty folder."""
        digest = digest_of(_EMPTY)
        request = RunRequest(
            run_id, "job", digest, command, gpus=0, slots=0, python=self.python, metrics=False
        )
        self.ask((Offer(digest), zlib.compress(_EMPTY)), Submit((request._replace(**fields),)))
        return RunFolder(self.store / "runs" / run_id)

    def guards(self) -> list[int]:
        """Process ids, as the test sees them, of the guards of this store."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[3:5] == [b"guard", bytes(self.guard.path)]:
                found.append(int(folder.name))
        return found

    def _environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH",)}
        return {**kept, "HOME": str(self.folder), "TRAINSHED_STORE": str(self.store)}


def packed(call: tuple[object, bytes] | object) -> bytes:
    """The frame of a call, or of one with a body."""
    body = b""
    if type(call) is tuple:
        call, body = call
    return pack(Frame(CALL, {"op": name_of(type(call)), "args": record.encode(call)}, body))


def state_of(folder: RunFolder) -> RunState:
    return record.from_bytes(RunState, folder.state.read_bytes())


def wait_for_state(folder: RunFolder, state: str) -> RunState:
    wait_until(lambda: folder.state.exists() and state_of(folder).state.value == state, state)
    return state_of(folder)


def write_state(file: Path, **state: object) -> None:
    """For a stand-in; whole at once, since it may be reading."""
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(state))
    temporary.rename(file)


def off_within(machine: Machine, limit_s: float) -> float:
    """Wait until the machine is off; how long that took, in seconds."""
    started = time.monotonic()
    wait_until(lambda: not machine.is_up, "the machine is off", limit_s)
    return time.monotonic() - started
