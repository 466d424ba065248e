"""A conversation with the agent: calls out, answers in, over one SSH channel."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, Self, TypeVar

from orchestrator.connection.channel import Stream
from orchestrator.errors import AgentBroken, ConnectionLost, NoPython, Refused, TrainshedError
from orchestrator.screen.printable import printable, printable_lines
from orchestrator.vm.deflate import Deflate
from orchestrator.vm.pace import Pace
from orchestrator.vm.package import bootstrap_command, bootstrap_input, package_input
from remote import protocol, record
from remote.bootstrap import WANTED
from remote.protocol import CALL, DATA, END, REFUSAL, RESULT, WORKING, Frame

Answer = TypeVar("Answer")
Call = tuple[object, bytes]

# A login message longer than this is no login message.
_NOISE_LIMIT_BYTES = 2**20
_READ_BYTES = 2**18
# A line that is worth its name brings an agent in this time, and a frame in one that grows with it;
# else a VM could keep us with a byte every few seconds, which is no silence.
_GREETING_LIMIT_S = 300.0
_FRAME_LIMIT_S = 60.0
_SLOWEST_BYTES_PER_S = 1000
# Beyond all that is ever asked for at once over one line.
_SKIP_LIMIT_BYTES = 64 * 2**20
# A machine within so many seconds is on this network, where the processor is mostly the limit.
NEAR_S = 0.015


class Channel(Protocol):
    """Bytes to and from one command on the VM. Every method may raise ConnectionLost."""

    def write(self, data: bytes) -> None: ...

    def read(self, n: int) -> bytes:
        """1 to `n` bytes; empty at the end of the stream."""

    def exit_status(self) -> int | None: ...

    def stderr_tail(self) -> bytes: ...


class Executor(Protocol):
    """A connection, as far as a link needs it."""

    @property
    def host_key_fingerprint(self) -> str: ...

    @property
    def round_trip_s(self) -> float: ...

    def execute(self, command: str, first: bytes = b"") -> Channel:
        """Start a command; `first` is what it reads first, sent along with the request."""

    def another(self) -> Executor:
        """A further connection to the same machine. May raise ConnectError, ConnectionLost."""

    def open_port(self, port: int) -> Stream:
        """Bytes to and from a port of the machine. May raise ConnectError, ConnectionLost."""

    def close(self) -> None: ...


class Link:
    """An agent that has said hello, over a connection that is closed if it does not.

    Every method may raise `ConnectionLost`; whether the call took effect is then not known, and
    doing it again does no harm. A `Refused` leaves the link usable.

    Args:
        ahead: calls, each with its body, that are sent before the agent is there. When one of them
            is made, its answer is on its way; nobody reads the answers to those that never are.

    Attributes:
        clock_off_s: how far the VM's clock is before ours, give or take a round trip.
        is_ahead_refused: whether the agent said no to a call that was sent ahead and not made.
    """

    def __init__(
        self, connection: Executor, name: str, python: str, ahead: Iterable[Call] = ()
    ) -> None:
        self.name = name
        self._connection = connection
        self._ahead = deque(ahead)
        self.is_ahead_refused = False
        # Answers that were not read yet; the first is the greeting.
        self._owed = 1 + len(self._ahead)
        first = bootstrap_input(b"".join(_pack_call(call, body) for call, body in self._ahead))
        self._ready = bytearray()
        self._python = python
        try:
            self._channel = connection.execute(bootstrap_command(python), first)
            self.hello = self._greet()
        except BaseException:
            connection.close()
            raise
        self.clock_off_s = self.hello.clock_s - time.time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host_key_fingerprint(self) -> str:
        """Of the machine we speak to: it was known, or is trusted now."""
        return self._connection.host_key_fingerprint

    @property
    def round_trip_s(self) -> float:
        """To the machine and back; 0 if not known."""
        return self._connection.round_trip_s

    @property
    def is_near(self) -> bool:
        """Whether the machine is on this network; False where nobody knows."""
        return 0 < self.round_trip_s < NEAR_S

    def another(self) -> Link:
        """A further agent on the same machine, over a connection of its own.

        Raises:
            ConnectError, ConnectionLost, Refused: there is none to be had.
        """
        return Link(self._connection.another(), self.name, self._python)

    def open_port(self, port: int) -> Stream:
        """A way to a port of the machine's own address 127.0.0.1; see `Connection.open_port`."""
        return self._connection.open_port(port)

    def close(self) -> None:
        self._connection.close()

    def call(self, call: object, answer: type[Answer], body: bytes = b"") -> Answer:
        """Ask, and wait for the answer; the line is dead only if the agent is silent.

        Raises:
            Refused: the agent said no.
            ConnectionLost: the line ended or fell silent.
        """
        return self.call_for_body(call, answer, body)[0]

    def call_for_body(
        self, call: object, answer: type[Answer], body: bytes = b""
    ) -> tuple[Answer, bytes]:
        """As `call`, for answers that bring bytes with them."""
        self.begin_call(call, body)
        frame = self._receive(RESULT)
        return self._decode(answer, frame), frame.body

    def begin_call(self, call: object, body: bytes = b"") -> None:
        """As `call`, without its answer; others may be begun before it is waited for."""
        while self._ahead:
            if self._ahead.popleft() == (call, body):
                return
            # Nobody made that call, whatever it brings.
            self.is_ahead_refused |= self._skip_answer()
        self._owed += 1
        self._channel.write(_pack_call(call, body))

    def end_call(self, answer: type[Answer]) -> Answer:
        """Wait for the answer to the first of those that were begun."""
        return self._decode(answer, self._receive(RESULT))

    def begin_upload(
        self, call: protocol.Upload | protocol.Part, chunks: Iterable[bytes], pace: Pace
    ) -> None:
        """As `begin_call`, and send what was announced, in its order; its answer is `Done`.

        Args:
            pace: of the whole transfer, of which this is a part.

        Raises:
            ConnectionLost: what had come by then is kept for the next attempt.
            Whatever `chunks` raises; the link is closed then.
        """
        self.begin_call(call)
        deflate = Deflate()
        try:
            for chunk in _gathered(chunks):
                if packed := deflate.compress(chunk, sparing=pace.is_processor_bound()):
                    self._send(DATA, {}, packed)
            self._send(DATA, {}, deflate.flush())
            self._send(END, {})
        except BaseException:
            # The agent waits for what was announced.
            self.close()
            self._owed = 0
            raise

    def end_fetch(self) -> Iterator[bytes]:
        """As `end_call`, for a `Fetch`: an artifact's bytes. They are not verified here."""
        while (frame := self._receive(DATA, RESULT)).kind == DATA:
            if not frame.body:
                raise AgentBroken(f"{self.name} sends a file in empty pieces")
            yield frame.body

    def skip_answers(self) -> None:
        """Read past what nobody waits for any more, so that the next call gets its own answer.

        Raises:
            AgentBroken: there is no end to it.
        """
        while self._owed:
            self._skip_answer()

    def _skip_answer(self) -> bool:
        """Read past one answer; says whether it was a refusal."""
        skipped_bytes = 0
        try:
            for block in self.end_fetch():
                skipped_bytes += len(block)
                if skipped_bytes > _SKIP_LIMIT_BYTES:
                    break
            else:
                return False
        except AgentBroken:
            raise
        except Refused:
            return True
        raise AgentBroken(f"{self.name} sends more than it was asked for")

    def _greet(self) -> protocol.Hello:
        try:
            self._skip_noise()
        except ConnectionLost:
            # A shell that could not start Python closes the channel while the agent is on its way.
            status = self._channel.exit_status()
            if status is None:
                raise
            raise self._no_agent(status) from None
        frame = self._receive(RESULT)
        if frame.head.get("version") != protocol.VERSION:
            raise AgentBroken(f"the agent on {self.name} speaks another protocol")
        return self._decode(protocol.Hello, frame)

    def _skip_noise(self) -> None:
        """Read past what a login shell says before the agent speaks; send the agent, if asked."""
        is_sent = False
        end = time.monotonic() + _GREETING_LIMIT_S
        while True:
            before, magic, rest = bytes(self._ready).partition(protocol.MAGIC)
            if magic:
                self._ready = bytearray(rest)
                return
            if WANTED in before and not is_sent:
                is_sent = True
                self._channel.write(package_input())
            if len(before) > _NOISE_LIMIT_BYTES or time.monotonic() > end:
                raise AgentBroken(
                    f"the login shell of {self.name} says too much to find the agent in it",
                    fix="let its start-up files print nothing when no terminal is there",
                )
            block = self._channel.read(_READ_BYTES)
            if not block:
                status = self._channel.exit_status()
                # None: it was killed, as by a VM without memory, and may well start the next time.
                raise self._ended() if status is None else self._no_agent(status)
            self._ready += block

    def _no_agent(self, status: int) -> TrainshedError:
        said = self._channel.stderr_tail().decode("utf-8", "replace")
        cause = printable(said.strip().rpartition("\n")[2])
        python = self._python
        if status == protocol.EXIT_OLD_PYTHON:
            return NoPython(
                f"{python} on {self.name} is older than 3.8",
                fix="install a newer one there (a cluster has modules: module load python; which "
                "python3) and name it: env: {python: /path/of/python3}",
            )
        if status in (126, 127):
            return NoPython(
                f"there is no {python} on {self.name}",
                cause=cause,
                fix="install Python 3.8 or newer there, or name the one it has: "
                "env: {python: /usr/bin/python3.8}",
            )
        return AgentBroken(
            f"the agent did not start on {self.name} (exit status {status})",
            cause=cause,
            fix=f"try by hand: ssh HOST {python} --version",
        )

    def _send(self, kind: str, head: dict[str, Any], body: bytes = b"") -> None:
        self._channel.write(protocol.pack(Frame(kind, head, body)))

    def _receive(self, *kinds: str) -> Frame:
        while True:
            try:
                frame = protocol.read_frame(self._read_exactly)
            except protocol.Violation as error:
                raise AgentBroken(f"what {self.name} sent makes no sense") from error
            assert frame is not None  # the end of the stream has been raised
            if frame.kind in (REFUSAL, RESULT):
                self._owed -= 1
            if frame.kind == REFUSAL:
                raise self._refusal(self._decode(protocol.No, frame))
            if frame.kind in kinds:
                return frame
            if frame.kind != WORKING:
                raise AgentBroken(f"{self.name} sent a {frame.kind[:20]!r} frame out of turn")

    def _read_exactly(self, count: int) -> bytes:
        pieces = [bytes(self._ready[:count])]
        del self._ready[:count]
        left = count - len(pieces[0])
        end = time.monotonic() + _FRAME_LIMIT_S + left / _SLOWEST_BYTES_PER_S
        while left:
            if time.monotonic() > end:
                raise AgentBroken(f"what {self.name} sends comes too slowly to ever be whole")
            block = self._channel.read(min(left, _READ_BYTES))
            if not block:
                raise self._ended()
            pieces.append(block)
            left -= len(block)
        return b"".join(pieces)

    def _ended(self) -> ConnectionLost:
        said = printable_lines(self._channel.stderr_tail().decode("utf-8", "replace"), 3)
        return ConnectionLost(
            f"the connection to {self.name} ended",
            cause=said,
            fix="run the same command again; what was done stays done",
        )

    def _decode(self, cls: type[Answer], frame: Frame) -> Answer:
        try:
            return record.decode(cls, dict(frame.head))
        except record.Malformed as error:
            raise AgentBroken(f"what {self.name} answered makes no sense") from error

    def _refusal(self, no: protocol.No) -> Refused:
        kind = AgentBroken if no.code == "bug" else Refused
        return kind(
            f"{self.name}: {printable(no.message)}",
            code=printable(no.code),
            cause=printable_lines(no.trace),
            # It does not know what it is called here.
            fix=printable(no.fix).replace("NAME", self.name),
        )


def _pack_call(call: object, body: bytes = b"") -> bytes:
    head = {"op": protocol.name_of(type(call)), "args": record.encode(call)}
    return protocol.pack(Frame(CALL, head, body))


def _gathered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are worth a frame each: most files are small."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        if len(waiting) >= protocol.CHUNK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)
