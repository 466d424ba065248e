"""The agent: answers the laptop's calls over standard input and output, one after the other.

It ends with the line. What must outlive it (a run) is started as a supervisor; what must survive a
cut (a content, a request) is on the disk before it is answered. What few laptops ask for is
imported when they do, since each connection waits for the imports.
"""

from __future__ import annotations

import io
import os
import pwd
import shutil
import signal
import sys
import time
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Callable,
    Dict,
    Iterator,
    Mapping,
    NoReturn,
    Optional,
    Tuple,
    Type,
)

from remote import clock, protocol, record
from remote.lease import Lease
from remote.parts import gaps
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
from remote.runs import (
    Refusal,
    cancel,
    give_back,
    list_runs,
    open_artifact,
    run_folder,
    start_runs,
    watch,
)
from remote.slots import look_for_room
from remote.store import Store, StoreTrouble
from remote.tree import (
    BadTree,
    check_folders,
    content_sizes,
    decode_tree,
    digest_of,
    encode_tree,
    is_digest,
)
from remote.trouble import explain
from remote.wanted import pack_wanted

if TYPE_CHECKING:
    from remote.board import OwnBoard

# A laptop that has said nothing for so long is gone, even where the system has not noticed.
_IDLE_LIMIT_S = 1800
# Shorter inside an upload, because it holds the lock that the next attempt needs.
_UPLOAD_SILENCE_LIMIT_S = 60

# Of more than a million files.
_MANIFEST_LIMIT_BYTES = 2**28

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
        self.lease = Lease(root)
        self.store = Store(root, self.tick)
        self.board: Optional[OwnBoard] = None
        # Manifests by digest, each with what was lacking.
        self.offered: Dict[str, Tuple[bytes, Tuple[protocol.Lacking, ...]]] = {}

    def serve(self, ahead: bytes) -> None:
        """Answer until the laptop closes the line.

        Args:
            ahead: calls that came before we were there.
        """
        self.send(RESULT, record.encode(self.hello()))
        self.lease.begin()
        calls = io.BytesIO(ahead)
        while (frame := protocol.read_frame(calls.read)) is not None:
            self.answer(frame)
        while True:
            signal.alarm(_IDLE_LIMIT_S)
            frame = protocol.read_frame(self.source.read)
            signal.alarm(0)
            if frame is None:
                return
            self.answer(frame)

    def answer(self, frame: Frame) -> None:
        """One call, one result or refusal. A refusal leaves the conversation usable."""
        self.lease.renew()
        try:
            operation, arguments = self._parse(frame)
            value, body = operation(arguments, frame.body)
        except Refusal as refusal:
            self.refuse(refusal.code, str(refusal), refusal.fix)
        except (StoreTrouble, BadTree, record.Malformed) as error:
            self.refuse("damaged", str(error), "run the same command again")
        except OSError as error:
            self._refuse_os(error)
        except OverflowError as error:
            self.refuse("damaged", f"a number beyond all files: {error}")
        except protocol.Violation:
            raise  # nobody knows where the next call begins
        except Exception as bug:  # noqa: BLE001  # told to the laptop, which reports it as a bug
            import traceback

            self.refuse("bug", repr(bug), trace=traceback.format_exc())
        else:
            self.send(RESULT, record.encode(value), body)

    def hello(self) -> protocol.Hello:
        return protocol.Hello(
            version=protocol.VERSION,
            python=".".join(map(str, sys.version_info[:3])),
            executable=sys.executable,
            system=_system(),
            user=_user(),
            store=str(self.store.root),
            boot_id=clock.boot_id(),
            clock_s=time.time(),
            disk_free_bytes=shutil.disk_usage(str(self.store.root)).free,
            cpus=os.cpu_count() or 1,
            up_s=clock.up_s(),
            boots=self.lease.boots(),
        )

    def send(self, kind: str, head: Mapping[str, Any], body: bytes = b"") -> None:
        self.sink.write(protocol.pack(Frame(kind, head, body)))
        self.sink.flush()
        self.spoke_at = time.monotonic()

    def tick(self) -> None:
        """Say that we live, when nothing was said for a while."""
        self.lease.renew()
        if time.monotonic() - self.spoke_at >= HEARTBEAT_S:
            self.send(WORKING, {})

    def refuse(self, code: str, message: str, fix: str = "", trace: str = "") -> None:
        self.send(REFUSAL, record.encode(protocol.No(code, message, fix, trace)))

    def _parse(self, frame: Frame) -> Tuple[Callable[[_Args, bytes], _Answer], _Args]:
        operations: Dict[Type[_Args], Callable[[_Args, bytes], _Answer]] = {
            protocol.Submit: self._submit,
            protocol.Offer: self._offer,
            protocol.Upload: self._upload,
            protocol.Part: self._part,
            protocol.Complete: self._complete,
            protocol.Patch: self._patch,
            protocol.Watch: self._watch,
            protocol.Events: self._events,
            protocol.Board: self._board,
            protocol.ListRuns: self._list,
            protocol.Cancel: self._cancel,
            protocol.GiveBack: self._give_back,
            protocol.Capacity: self._capacity,
            protocol.Fetch: self._fetch,
            protocol.Examine: self._examine,
            protocol.Survey: self._survey,
            protocol.Tidy: self._tidy,
            protocol.Keep: self._keep,
            protocol.LetGo: self._let_go,
            protocol.HowKept: self._how_kept,
        }
        name = frame.head.get("op")
        call = next((call for call in operations if protocol.name_of(call) == name), None)
        if frame.kind != CALL or call is None:
            raise Refusal("unknown-call", f"no such call: {frame.kind} {name!r}")
        return operations[call], record.decode(call, frame.head.get("args"))

    def _submit(self, call: protocol.Submit, body: bytes) -> _Answer:
        return start_runs(self.store, call.requests, self.package), b""

    def _offer(self, call: protocol.Offer, body: bytes) -> _Answer:
        manifest = _unpacked(body)
        if digest_of(manifest) != call.digest:
            raise StoreTrouble("the manifest does not have the digest it was announced with")
        tree = decode_tree(manifest)
        lacking = self.store.lacking(tree)
        needed_bytes = sum(
            span.end - span.begin
            for wanted in lacking
            for span in gaps(wanted.parts, wanted.have_bytes, wanted.size_bytes)
        )
        free_bytes = shutil.disk_usage(str(self.store.root)).free
        if needed_bytes > free_bytes:
            raise Refusal(
                "disk-full",
                f"the disk has {free_bytes} bytes free, the upload needs {needed_bytes}",
                "see what the store holds: train gc NAME",
            )
        if lacking:
            self.offered[call.digest] = manifest, lacking
        else:
            self.store.complete(manifest, ())
        return pack_wanted(lacking, content_sizes(tree)), b""

    def _upload(self, call: protocol.Upload, body: bytes) -> _Answer:
        with self._stream() as chunks:
            self.store.receive(_checked(call.objects), chunks)
        return protocol.Done(), b""

    def _complete(self, call: protocol.Complete, body: bytes) -> _Answer:
        if call.digest not in self.offered:
            raise StoreTrouble("a tree that was not offered")
        self.store.complete(*self.offered.pop(call.digest))
        return protocol.Done(), b""

    def _patch(self, call: protocol.Patch, body: bytes) -> _Answer:
        if not is_digest(call.base):
            raise StoreTrouble("a change of something without a digest")
        gone = frozenset(call.gone)
        self.store.has_tree(call.base)  # so that it, and all that is in it, stays for now
        base = self.store.load_tree(call.base)
        changed = decode_tree(call.changed.encode("utf-8", "surrogatepass"))
        tree = {path: entry for path, entry in base.items() if path not in gone}
        tree.update(changed)
        manifest = encode_tree(tree)
        if digest_of(manifest) != call.digest:
            raise StoreTrouble("the changes do not lead to the tree they were announced for")
        # What fitted into either need not fit together.
        check_folders(tree)
        if call.objects:
            self.store.receive(_checked(call.objects), [body])
        # What the base has is there.
        self.store.complete(manifest, self.store.lacking(changed))
        return protocol.Done(), b""

    def _part(self, call: protocol.Part, body: bytes) -> _Answer:
        with self._stream() as chunks:
            if not is_digest(call.sha256) or not 0 <= call.span.begin < call.span.end:
                raise StoreTrouble("a part of something without a digest, or of no bytes")
            self.store.receive_part(call.sha256, call.span, chunks)
        return protocol.Done(), b""

    @contextmanager
    def _stream(self) -> Iterator[Iterator[bytes]]:
        """What follows a call, in chunks."""
        chunks = self._chunks()
        try:
            yield chunks
        finally:
            # What is still on its way belongs to this call, also when it is refused.
            for _ in chunks:
                self.tick()

    def _chunks(self) -> Iterator[bytes]:
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

    def _events(self, call: protocol.Events, body: bytes) -> _Answer:
        from remote.events import read_events

        return read_events(run_folder(self.store, call.run_id), call, self.tick)

    def _board(self, call: protocol.Board, body: bytes) -> _Answer:
        from remote.board import OwnBoard

        board = self.board = self.board or OwnBoard(self.store, self.package)
        return self._meanwhile(lambda: board.show(call)), b""

    def _list(self, call: protocol.ListRuns, body: bytes) -> _Answer:
        return list_runs(self.store), b""

    def _cancel(self, call: protocol.Cancel, body: bytes) -> _Answer:
        cancel(self.store, call.run_id, call.fallen, call.why)
        return protocol.Done(), b""

    def _give_back(self, call: protocol.GiveBack, body: bytes) -> _Answer:
        give_back(self.store, call.run_id, begun=call.begun)
        return protocol.Done(), b""

    def _capacity(self, call: protocol.Capacity, body: bytes) -> _Answer:
        from remote.gpu import GpuTrouble

        try:
            return look_for_room(self.store, call.slots), b""
        except GpuTrouble as trouble:
            why = f"the GPU driver does not answer: {trouble}"
            raise Refusal("no-gpu", why, "see: train doctor NAME") from trouble

    def _fetch(self, call: protocol.Fetch, body: bytes) -> _Answer:
        file, size_bytes = open_artifact(self.store, call.run_id, call.path)
        # No more than was recorded: the file may have grown since, and may still be growing.
        left = size_bytes - call.offset
        if call.size_bytes is not None:
            left = min(left, call.size_bytes)
        with file:
            file.seek(call.offset)
            while left > 0 and (block := file.read(min(left, protocol.CHUNK_BYTES))):
                self.send(DATA, {}, block)
                left -= len(block)
        return protocol.Done(), b""

    def _examine(self, call: protocol.Examine, body: bytes) -> _Answer:
        from remote.doctor import examine

        return examine(self.store, call), b""

    def _survey(self, call: protocol.Survey, body: bytes) -> _Answer:
        from remote.survey import survey

        return survey(self.store, call, self.package), b""

    def _tidy(self, call: protocol.Tidy, body: bytes) -> _Answer:
        from remote.tidy import tidy

        return tidy(self.store, call.keep_days, drop=call.drop, home=call.home), b""

    def _keep(self, call: protocol.Keep, body: bytes) -> _Answer:
        from remote.keeper import keep

        return self._meanwhile(lambda: keep(self.store.root, call, self.package)), b""

    def _let_go(self, call: protocol.LetGo, body: bytes) -> _Answer:
        from remote.keeper import let_go

        self._meanwhile(lambda: let_go(self.store.root, call.session))
        return protocol.Done(), b""

    def _how_kept(self, call: protocol.HowKept, body: bytes) -> _Answer:
        from remote.keeper import how_kept, revive

        revive(self.store.root)
        return how_kept(self.store.root), b""

    def _meanwhile(self, work: Callable[[], object]) -> object:
        """Do what may take long, and say that we live."""
        from concurrent.futures import ThreadPoolExecutor, wait

        with ThreadPoolExecutor(1) as pool:
            doing = pool.submit(work)
            while not wait([doing], timeout=1.0).done:
                self.tick()
            return doing.result()

    def _refuse_os(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        no = explain(error, self.store.root)
        self.refuse(no.code, no.message, no.fix)


def _unpacked(body: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        manifest = unpacking.decompress(body, _MANIFEST_LIMIT_BYTES)
    except zlib.error as error:
        raise StoreTrouble(f"the manifest came damaged: {error}") from error
    if not unpacking.eof:
        raise StoreTrouble(f"the manifest is cut, or has more than {_MANIFEST_LIMIT_BYTES} bytes")
    return manifest


def _checked(objects: Tuple[protocol.Lacking, ...]) -> Tuple[protocol.Lacking, ...]:
    if not all(is_digest(wanted.sha256) for wanted in objects):
        raise StoreTrouble("an upload of something without a digest")
    return objects


def _system() -> str:
    # Not platform.platform(), which looks into the interpreter's file for the version of its libc.
    system = os.uname()
    return f"{system.sysname} {system.release} {system.machine}"


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())  # a container without a line in /etc/passwd


def fail(code: str, message: str, fix: str) -> NoReturn:
    """Refuse before there is a conversation."""
    no = record.encode(protocol.No(code, message, fix))
    sys.stdout.buffer.write(MAGIC + protocol.pack(Frame(REFUSAL, no)))
    sys.stdout.buffer.flush()
    raise SystemExit(0)


def main(root: Path, package: bytes, ahead: bytes) -> None:
    """Speak for this machine until the laptop closes the line.

    Args:
        ahead: calls that came before we were there.
    """
    # Nothing that we make is for all to write; in the runs that we start, too.
    os.umask(os.umask(0) | 0o002)
    # Whatever a library prints must not fall between the frames.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        agent = Agent(sys.stdin.buffer, sink, root, package)
    except OSError as error:
        sys.stdout.flush()
        os.dup2(sink.fileno(), 1)
        no = explain(error, root)
        fix = no.fix or "let its user write to the home folder there"
        fail("store", f"cannot keep anything under {root}: {no.message}", fix)
    sink.write(MAGIC)
    try:
        agent.serve(ahead)
    except (BrokenPipeError, protocol.Violation):
        pass  # the laptop is gone, or no longer makes sense; either way there is nobody to tell
