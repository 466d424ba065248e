"""The agent: answers the laptop's calls over standard input and output, one after the other.

Nothing of it stays on the machine when the line ends. What must outlive it (a run) is started as
a supervisor; what must survive a cut (a content, a request) is on the disk before it is answered.
"""

from __future__ import annotations

import errno
import getpass
import os
import platform
import shutil
import signal
import sys
import time
import traceback
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Mapping, NoReturn, Tuple, Type

from remote import clock, protocol, record
from remote.doctor import examine
from remote.protocol import (
    CALL,
    DATA,
    END,
    HEARTBEAT_S,
    MAGIC,
    REFUSAL,
    RESULT,
    WORKING,
    Frame,
)
from remote.runs import Refusal, cancel, list_runs, open_artifact, start_runs, watch
from remote.store import Store, StoreTrouble
from remote.tidy import tidy
from remote.tree import BadTree, Tree, decode_tree, is_digest, tree_digest

# A laptop that has said nothing for so long is gone, even where the system has not noticed.
_IDLE_LIMIT_S = 1800
# Shorter inside an upload, because it holds the lock that the next attempt needs.
_UPLOAD_SILENCE_LIMIT_S = 60

_Args = Any
_Answer = Tuple[object, bytes]


class Agent:
    """One conversation.

    Args:
        package: zip file of the `remote` package, for the supervisors it starts.
    """

    def __init__(self, source: BinaryIO, sink: BinaryIO, root: Path, package: bytes) -> None:
        self.source = source
        self.sink = sink
        self.package = package
        self.spoke_at = time.monotonic()
        self.store = Store(root, self.tick)
        self.offered: Dict[str, Tree] = {}

    def serve(self) -> None:
        """Answer until the laptop closes the line."""
        self.send(RESULT, record.encode(self.hello()))
        while True:
            signal.alarm(_IDLE_LIMIT_S)
            frame = protocol.read_frame(self.source.read)
            signal.alarm(0)
            if frame is None:
                return
            self.answer(frame)

    def answer(self, frame: Frame) -> None:
        """One call, one result or refusal. A refusal leaves the conversation usable."""
        try:
            operation, arguments = self._parse(frame)
            value, body = operation(arguments, frame.body)
        except Refusal as refusal:
            self.refuse(refusal.code, str(refusal), refusal.fix)
        except (StoreTrouble, BadTree, record.Malformed) as error:
            self.refuse("damaged", str(error), "run the same command again")
        except OSError as error:
            self._refuse_os(error)
        except Exception as bug:  # noqa: BLE001  # told to the laptop, which reports it as a bug
            self.refuse("bug", repr(bug), trace=traceback.format_exc())
        else:
            self.send(RESULT, record.encode(value), body)

    def hello(self) -> protocol.Hello:
        return protocol.Hello(
            version=protocol.VERSION,
            python=platform.python_version(),
            executable=sys.executable,
            system=platform.platform(),
            user=_user(),
            store=str(self.store.root),
            boot_id=clock.boot_id(),
            clock_s=time.time(),
            disk_free_bytes=shutil.disk_usage(str(self.store.root)).free,
            cpus=os.cpu_count() or 1,
        )

    def send(self, kind: str, head: Mapping[str, Any], body: bytes = b"") -> None:
        self.sink.write(protocol.pack(Frame(kind, head, body)))
        self.sink.flush()
        self.spoke_at = time.monotonic()

    def tick(self) -> None:
        """Say that we live, when nothing was said for a while."""
        if time.monotonic() - self.spoke_at >= HEARTBEAT_S:
            self.send(WORKING, {})

    def refuse(self, code: str, message: str, fix: str = "", trace: str = "") -> None:
        self.send(REFUSAL, record.encode(protocol.No(code, message, fix, trace)))

    def _parse(self, frame: Frame) -> Tuple[Callable[[_Args, bytes], _Answer], _Args]:
        operations: Dict[str, Tuple[Type[_Args], Callable[[_Args, bytes], _Answer]]] = {
            protocol.Submit.OP: (protocol.Submit, self._submit),
            protocol.Offer.OP: (protocol.Offer, self._offer),
            protocol.Upload.OP: (protocol.Upload, self._upload),
            protocol.Watch.OP: (protocol.Watch, self._watch),
            protocol.ListRuns.OP: (protocol.ListRuns, self._list),
            protocol.Cancel.OP: (protocol.Cancel, self._cancel),
            protocol.Fetch.OP: (protocol.Fetch, self._fetch),
            protocol.Examine.OP: (protocol.Examine, self._examine),
            protocol.Tidy.OP: (protocol.Tidy, self._tidy),
        }
        name = frame.head.get("op")
        if frame.kind != CALL or name not in operations:
            raise Refusal("unknown-call", f"no such call: {frame.kind} {name!r}")
        cls, operation = operations[str(name)]
        return operation, record.decode(cls, frame.head.get("args"))

    def _submit(self, call: protocol.Submit, body: bytes) -> _Answer:
        return start_runs(self.store, call.requests, self.package), b""

    def _offer(self, call: protocol.Offer, body: bytes) -> _Answer:
        tree = decode_tree(zlib.decompress(body))
        if tree_digest(tree) != call.digest:
            raise StoreTrouble("the manifest does not have the digest it was announced with")
        lacking = self.store.lacking(tree)
        needed_bytes = sum(wanted.size_bytes - wanted.have_bytes for wanted in lacking)
        free_bytes = shutil.disk_usage(str(self.store.root)).free
        if needed_bytes > free_bytes:
            raise Refusal(
                "disk-full",
                f"the disk has {free_bytes} bytes free, the upload needs {needed_bytes}",
                "see what the store holds: train gc NAME",
            )
        self.offered[call.digest] = tree
        if not lacking:
            self.store.complete(tree)
        return protocol.Wanted(lacking), b""

    def _upload(self, call: protocol.Upload, body: bytes) -> _Answer:
        chunks = self._stream()
        try:
            if not is_digest(call.digest) or call.digest not in self.offered:
                raise StoreTrouble("an upload that was not offered")
            if not all(is_digest(wanted.sha256) for wanted in call.objects):
                raise StoreTrouble("an upload of something without a digest")
            self.store.receive(call.objects, chunks)
        finally:
            # What is still on its way belongs to this call, also when it is refused.
            for _ in chunks:
                self.tick()
        self.store.complete(self.offered.pop(call.digest))
        return protocol.Done(), b""

    def _stream(self) -> Iterator[bytes]:
        while True:
            signal.alarm(_UPLOAD_SILENCE_LIMIT_S)
            frame = protocol.read_frame(self.source.read)
            signal.alarm(0)
            if frame is None:
                raise SystemExit(0)  # the line was cut; what has come is kept for the next attempt
            if frame.kind == END:
                return
            if frame.kind != DATA:
                raise protocol.Violation(f"a {frame.kind} frame inside an upload")
            yield frame.body

    def _watch(self, call: protocol.Watch, body: bytes) -> _Answer:
        return watch(self.store, call)

    def _list(self, call: protocol.ListRuns, body: bytes) -> _Answer:
        return list_runs(self.store), b""

    def _cancel(self, call: protocol.Cancel, body: bytes) -> _Answer:
        cancel(self.store, call.run_id)
        return protocol.Done(), b""

    def _fetch(self, call: protocol.Fetch, body: bytes) -> _Answer:
        file, size_bytes = open_artifact(self.store, call.run_id, call.path)
        # No more than was recorded: the file may have grown since, and may still be growing.
        left = size_bytes - call.offset
        with file:
            file.seek(call.offset)
            while left > 0 and (block := file.read(min(left, protocol.CHUNK_BYTES))):
                self.send(DATA, {}, block)
                left -= len(block)
        return protocol.Done(), b""

    def _examine(self, call: protocol.Examine, body: bytes) -> _Answer:
        return examine(self.store, call), b""

    def _tidy(self, call: protocol.Tidy, body: bytes) -> _Answer:
        return tidy(self.store, call.keep_days, drop=call.drop, keep=call.keep), b""

    def _refuse_os(self, error: OSError) -> None:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some: train gc NAME, or remove files of yours"
            self.refuse("disk-full", f"no space left under {self.store.root}", fix)
        elif isinstance(error, BrokenPipeError):
            raise error
        else:
            self.refuse("system", f"{error.strerror or error}: {error.filename or ''}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())  # a container without a line in /etc/passwd


def fail(code: str, message: str, fix: str) -> NoReturn:
    """Refuse before there is a conversation."""
    no = record.encode(protocol.No(code, message, fix))
    sys.stdout.buffer.write(MAGIC + protocol.pack(Frame(REFUSAL, no)))
    sys.stdout.buffer.flush()
    raise SystemExit(0)


def main(package: bytes) -> None:
    """Speak for this machine until the laptop closes the line."""
    # Whatever a library prints must not fall between the frames.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    root = Path(os.environ.get("TRAINSHED_STORE") or Path.home() / ".trainshed")
    try:
        agent = Agent(sys.stdin.buffer, sink, root, package)
    except OSError as error:
        sys.stdout.flush()
        os.dup2(sink.fileno(), 1)
        reason = f"cannot keep anything under {root}: {error.strerror}"
        fail("store", reason, "make the home folder writable, or free disk space")
    sink.write(MAGIC)
    try:
        agent.serve()
    except (BrokenPipeError, protocol.Violation):
        pass  # the laptop is gone, or no longer makes sense; either way there is nobody to tell
