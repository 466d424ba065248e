"""A VM for one test: a server of servers.py, with a store of its own behind it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from orchestrator.connection.channel import Channel, Stream
from orchestrator.connection.ssh import Connection, connect
from orchestrator.errors import ConnectionLost, TrainshedError
from orchestrator.plan import Overrides, make_request
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.screen.tell import Silence, Teller
from orchestrator.settings.spec import EnvSpec, Job, Remote, Workspace
from orchestrator.source.snapshot import Snapshot, take_snapshot
from orchestrator.vm.follow import Follower
from orchestrator.vm.link import Call, Link
from orchestrator.vm.sync import submit
from remote.protocol import Fetch, RunReport
from remote.runfolder import RunFolder, RunState
from tests.servers import SshServer

REPOSITORY = Path(__file__).resolve().parent.parent
# Long enough for a machine that has much else to do; only what never comes waits for so long.
WAIT_LIMIT_S = 60.0


class Told(Silence):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []
        self.logs: dict[str, bytes] = {}
        self.doings: list[str] = []

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        self.doings.append(text)

    def step(self, text: str) -> None:
        self.steps.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def log(self, job: str, data: bytes) -> None:
        self.logs[job] = self.logs.get(job, b"") + data


class Wire:
    """A connection that counts what goes through the one command on it.

    Attributes:
        calls: names of the calls that were sent.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: Channel | None = None
        self.sent_bytes = 0
        self.received_bytes = 0
        self.calls: list[str] = []
        self.others: list[Wire] = []
        self.refused = 0

    def execute(self, command: str, first: bytes = b"") -> Wire:
        self._channel = self._connection.execute(command, first)
        self.sent_bytes += len(first)
        return self

    @property
    def round_trip_s(self) -> float:
        return self._connection.round_trip_s

    def another(self) -> Wire:
        """Counted by itself, as one of `others`, or of those that were refused."""
        try:
            self.others.append(Wire(self._connection.another()))
        except TrainshedError:
            self.refused += 1
            raise
        return self.others[-1]

    @property
    def host_key_fingerprint(self) -> str:
        return self._connection.host_key_fingerprint

    def open_port(self, port: int) -> Stream:
        return self._connection.open_port(port)

    def close(self) -> None:
        self._connection.close()

    def write(self, data: bytes) -> None:
        self.channel.write(data)
        self.sent_bytes += len(data)
        if b'{"kind": "call"' in data[:30]:
            self.calls.append(data.partition(b'"op": "')[2].partition(b'"')[0].decode())

    def read(self, size: int) -> bytes:
        data = self.channel.read(size)
        self.received_bytes += len(data)
        return data

    def exit_status(self) -> int | None:
        return self.channel.exit_status()

    def stderr_tail(self) -> bytes:
        return self.channel.stderr_tail()

    @property
    def channel(self) -> Channel:
        assert self._channel is not None
        return self._channel


class Vm:
    """A store behind a server, and a workspace on the laptop's side.

    Attributes:
        store: what TRAINSHED_STORE says there.
        python: starts the agent over that store.
        wire: of the link opened last.
    """

    def __init__(self, server: SshServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.store = folder / "the VM's store é"
        self.python = self.program(
            "python", f"TRAINSHED_STORE={shlex.quote(str(self.store))} exec {quoted_python()} "
        )
        self.root = folder / "my exam"
        self.root.mkdir()
        self.remote = Remote("practice", server.host, gpus=0, env=EnvSpec(sys.executable))
        self.mirrors = Mirrors(self.root / ".train")
        self.told: Teller = Silence()
        self._links: list[Link] = []

    def program(self, name: str, command: str) -> str:
        """A program on the VM: a shell script that ends in `command` and its own arguments."""
        file = self.folder / f"a {name}"
        file.write_text(f'#!/bin/sh\n{command} "$@"\n')
        file.chmod(0o755)
        return str(file)

    def fake(self, body: str) -> str:
        """A program that takes the agent's place, says hello, and then does what `body` says.

        In `body` all of the protocol can be used, `say(kind, head, body)` and `hear()`.
        """
        script = self.folder / "fake.py"
        script.write_text(
            f"""\
import json, os, sys, time, zlib
sys.path.insert(0, {str(REPOSITORY)!r})
from remote.protocol import *
from remote import record
from remote.runfolder import *

def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()

def say(kind, head, body=b""):
    write(pack(Frame(kind, head, body)))

def hear():
    frame = read_frame(sys.stdin.buffer.read)
    if frame is None:
        raise SystemExit
    return frame

hello = record.encode(
    Hello(VERSION, "3.8.0", "python", "fake", "nobody", "nowhere", "boot", 0.0, 2**40, 1)
)
read = sys.stdin.buffer
read.read(int(read.readline()))
read.read(int(read.readline().split()[1]))
"""
            + ("" if "MAGIC" in body else "write(MAGIC)\nsay(RESULT, hello)\n")
            + body
        )
        return self.program("fake", f"exec {quoted_python()} {shlex.quote(str(script))}")

    def connect(self, *, python: str = "", port: int = 0, ahead: Iterable[Call] = ()) -> Link:
        """A link; closed at the test's end if not before."""
        destination = replace(self.server.destination, port=port or self.server.port)
        known_hosts = self.server.trusted(self.folder)
        if port:
            text = known_hosts.read_text()
            known_hosts.write_text(text.replace(f":{self.server.port} ", f":{port} "))
        self.wire = Wire(connect(destination, asker=None, known_hosts=known_hosts))
        link = Link(self.wire, "practice", python or self.python, ahead)
        self._links.append(link)
        return link

    def write(self, path: str, content: bytes | str = "") -> Path:
        """A file of the workspace."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def freeze(self, *jobs: Job) -> Snapshot:
        return take_snapshot(Workspace(self.root, jobs), jobs, self.told)

    def start(
        self,
        link: Link,
        command: str,
        run_id: str = "run",
        overrides: Overrides | None = None,
        grace_s: float = 30.0,
        **fields: object,
    ) -> Mirror:
        """Submit a run of `command`; the other arguments are the job's."""
        values = {"outputs": (), "gpus": 0, "metrics": False, **fields}
        job = Job("job", command, **values)  # type: ignore[arg-type]  # the job's own fields
        snapshot = self.freeze(job)
        request = make_request(job, self.remote, snapshot, overrides or Overrides(), run_id)
        mirror = self.mirrors.make(request._replace(grace_s=grace_s))
        submit(link, snapshot, (mirror.request,), self.told)
        return mirror

    def finish(self, link: Link, *mirrors: Mirror) -> tuple[RunReport, ...]:
        """Follow the runs to their ends; their last reports."""
        Follower(_no_way_back, mirrors, self.told, lambda *_: None).follow(link)
        return tuple(mirror.seen.report for mirror in mirrors if mirror.seen)

    def run(self, link: Link, command: str, **fields: object) -> RunState:
        """`start` and `finish`; how it ended."""
        mirror = self.start(link, command, **fields)  # type: ignore[arg-type]  # as they come
        (report,) = self.finish(link, mirror)
        assert report.state is not None
        return report.state

    def run_folder(self, run_id: str = "run") -> RunFolder:
        """As it lies on the VM."""
        return RunFolder(self.store / "runs" / run_id)

    def log(self, run_id: str = "run") -> bytes:
        return self.run_folder(run_id).log.read_bytes()

    def pids(self, word: str = "") -> list[int]:
        """Processes that work on this store: agents, supervisors and jobs.

        Args:
            word: that stands in their command line.
        """
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                mine = os.fsencode(self.store) in (folder / "environ").read_bytes()
                if mine and word.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        """Hang up.

        Raises:
            AssertionError: a process is left; it is ended.
        """
        for link in self._links:
            link.close()
        try:
            wait_until(lambda: not self.pids(), "no process is left")
        finally:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def practice(server: SshServer, folder: Path) -> Iterator[Vm]:
    """A new VM, with nothing left of it at the end."""
    vm = Vm(server, folder)
    try:
        yield vm
    finally:
        vm.close()


def wait_until(is_true: Callable[[], object], what: str, limit_s: float = WAIT_LIMIT_S) -> None:
    """Return when it is."""
    deadline = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline, f"not so within {limit_s:g} s: {what}"
        time.sleep(0.02)


def quoted_python() -> str:
    return shlex.quote(sys.executable)


def _no_way_back() -> Link:
    raise ConnectionLost("the test's line was lost")


def fetch(link: Link, call: Fetch) -> bytes:
    """All that the answer brings."""
    link.begin_call(call)
    return b"".join(link.end_fetch())
