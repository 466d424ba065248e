"""A command on the VM: its stdin, stdout and stderr as byte streams."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from orchestrator.errors import ConnectionLost

STDERR_TAIL_BYTES = 16 * 2**10
PACKET_BYTES = 32 * 2**10

# Silence is counted in this many short waits: the time this process was stopped (Ctrl-Z, a closed
# lid) then counts as one of them.
WAITS = 15

# More than the library's own sign of life, which leaves also where the far end is dead.
_MOVES_BYTES = 500


class Stream(Protocol):
    """What this module uses of the SSH library's channel."""

    status_event: threading.Event

    @property
    def eof_received(self) -> bool | int: ...
    @property
    def exit_status(self) -> int: ...
    @property
    def closed(self) -> bool: ...

    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def recv_stderr(self, size: int, /) -> bytes: ...
    def settimeout(self, timeout_s: float, /) -> None: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...


class Channel:
    """A command on the VM.

    One thread may write while another reads. Whether the command did what it was asked is not
    known when ConnectionLost comes, so callers must be able to do it again.

    Args:
        where: the server, for messages.
        limit_s: how much silence is a dead line.
        broken: what the library raises when the line breaks.
        unsent: how many bytes have not left for the server yet, or not arrived.
        received: how many came from the server so far, whatever they mean.
    """

    def __init__(
        self,
        stream: Stream,
        where: str,
        limit_s: float,
        broken: tuple[type[Exception], ...],
        unsent: Callable[[], int] = lambda: 0,
        received: Callable[[], int] = lambda: 0,
    ) -> None:
        self._stream = stream
        self._where = where
        self._limit_s = limit_s
        self._broken = broken
        self._unsent = unsent
        self._received = received
        self._is_dead = False
        stream.settimeout(limit_s / WAITS)
        self._stderr = bytearray()
        # Both outputs share one window: a stderr that nobody reads would stop stdout.
        # Source: https://github.com/paramiko/paramiko/issues/1778
        self._drain = threading.Thread(target=self._drain_stderr, daemon=True, name="ssh-stderr")
        self._drain.start()

    def write(self, data: bytes) -> None:
        """Send all of `data` to the command's stdin.

        Raises:
            ConnectionLost: the line or the command is gone, or nothing was taken for the whole
                limit; how much arrived is not known.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._send(bytes(rest[:PACKET_BYTES])) :]

    def _send(self, data: bytes) -> int:
        for _ in range(WAITS):
            try:
                sent = self._stream.send(data)
            except TimeoutError:
                continue
            except self._broken as error:
                raise lost(self._where, "the command takes no more input") from error
            if not sent:
                raise lost(self._where, "the command takes no more input")
            return sent
        self._is_dead = True
        raise lost(self._where, f"nothing was taken for {self._limit_s:g} s")

    def read(self, n: int) -> bytes:
        """1 to `n` bytes of the command's stdout, as soon as there are any; b"" at its end.

        Raises:
            ConnectionLost: the line broke before the end, or nothing came and nothing went for the
                whole limit.
        """
        silent, left, came = 0, self._unsent(), self._received()
        while silent < WAITS:
            try:
                data = self._stream.recv(n)
            except TimeoutError:
                # A slow line is not a dead one: the far end has nothing to say yet, or a packet
                # of 128 KiB is on its way, of which nothing can be read before it is whole.
                left, had = self._unsent(), left
                came, heard = self._received(), came
                moves = max(had - left, came - heard) > _MOVES_BYTES
                silent = 0 if moves else silent + 1
                continue
            except self._broken as error:
                raise lost(self._where, "the line broke") from error
            # Also a channel whose line broke reads as empty; only the far end's own word (end of
            # file, or how the command ended) is an end.
            if data or self._stream.eof_received or self._stream.exit_status >= 0:
                return data
            raise lost(self._where, "the line broke")
        self._is_dead = True
        raise lost(self._where, f"nothing came for {self._limit_s:g} s")

    def close_write(self) -> None:
        """End the command's stdin.

        Raises:
            ConnectionLost: the line is gone.
        """
        try:
            self._stream.shutdown_write()
        except self._broken as error:
            raise lost(self._where, "the line broke") from error

    def exit_status(self) -> int | None:
        """How the command ended; None when a signal ended it, or when the answer does not come.

        Waits for the limit at most. To be asked after stdout was read to its end: the server says
        it only then.
        """
        if not self._is_dead:  # else the limit is over already
            self._stream.status_event.wait(self._limit_s)
        status = self._stream.exit_status
        return status if status >= 0 else None

    def stderr_tail(self) -> bytes:
        """The last STDERR_TAIL_BYTES of stderr so far; all there is, once the command ended."""
        if self._stream.eof_received or self._stream.closed:
            self._drain.join(1)
        return bytes(self._stderr)

    def close(self) -> None:
        """Give the command up; the server closes its stdin and stdout."""
        try:
            self._stream.close()
        except self._broken:
            pass  # the line is gone, and the channel with it
        self._drain.join(self._limit_s)

    def _drain_stderr(self) -> None:
        while True:
            try:
                data = self._stream.recv_stderr(PACKET_BYTES)
            except TimeoutError:
                continue
            except self._broken:
                return
            if not data:
                return
            self._stderr += data
            del self._stderr[:-STDERR_TAIL_BYTES]


def lost(where: str, why: str) -> ConnectionLost:
    """The error for a line that broke."""
    return ConnectionLost(
        f"lost the connection to {where}: {why}",
        fix="the same command again goes on from there; runs on the VM are not touched by this",
    )
