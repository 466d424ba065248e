"""A port of this laptop that leads to one of the VM's, as `ssh -L` makes one."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from orchestrator.connection.channel import PACKET_BYTES, Stream
from orchestrator.errors import TrainshedError


@contextmanager
def forwarded(open_far: Callable[[], Stream]) -> Iterator[int]:
    """Listen on a free port of 127.0.0.1, which is given, until the end; no thread is left then.

    Args:
        open_far: opens the way on for each that connects. Where it cannot, that one's connection is
            closed; whoever else uses the line learns why.
    """
    with _Forward(open_far) as forward:
        accepting = threading.Thread(target=forward.serve_forever, args=(0.1,), name="forward")
        accepting.start()
        try:
            yield int(forward.server_address[1])
        finally:
            forward.shutdown()
            accepting.join()
            forward.hang_up()


class _Forward(socketserver.ThreadingTCPServer):
    # As many as a page may ask for at once.
    request_queue_size = 128

    def __init__(self, open_far: Callable[[], Stream]) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._open_far = open_far
        self._pairs: set[_Pair] = set()
        self._is_over = False

    def finish_request(self, request: object, client_address: object) -> None:
        """Carry bytes both ways until both have ended; in a thread of its own."""
        assert isinstance(request, socket.socket)
        try:
            pair = _Pair(request, self._open_far())
        except TrainshedError:
            return
        self._pairs.add(pair)
        try:
            if not self._is_over:
                pair.carry()
        finally:
            pair.cut()
            self._pairs.discard(pair)

    def hang_up(self) -> None:
        self._is_over = True
        for pair in tuple(self._pairs):
            pair.cut()


class _Pair:
    """A connection here and its way on."""

    def __init__(self, near: socket.socket, far: Stream) -> None:
        self._near = near
        self._far = far

    def carry(self) -> None:
        back = threading.Thread(target=self._come, name="forward-back")
        back.start()
        self._go()
        back.join()

    def _go(self) -> None:
        try:
            while data := self._near.recv(PACKET_BYTES):
                _send_all(self._far, data)
            self._far.shutdown_write()
        except OSError:
            self.cut()

    def _come(self) -> None:
        try:
            while data := self._far.recv(PACKET_BYTES):
                self._near.sendall(data)
            self._near.shutdown(socket.SHUT_WR)
        except OSError:
            self.cut()

    def cut(self) -> None:
        """End both ways at once, from any thread."""
        with suppress(OSError):
            self._near.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._far.close()


def _send_all(far: Stream, data: bytes) -> None:
    while data:
        data = data[far.send(data) :]
