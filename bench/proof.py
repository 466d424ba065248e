"""What a line does, measured: its round trip, and how much goes through it."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from dataclasses import dataclass

from bench.line import Line

_PINGS = 15
_SECONDS = 4.0
_MANY = 8
_BLOCK = bytes(2**20)


@dataclass(frozen=True)
class Proof:
    """Measured over TCP with the machine's defaults.

    Attributes:
        asked_ms, measured_ms: round trip; the median.
        one_mb_per_s: 10^6 bytes a second from the far end over one connection. Where there is a
            distance, TCP's own window limits this.
        many_mb_per_s: over several at once: at least this the line carries.
    """

    asked_ms: float
    measured_ms: float
    one_mb_per_s: float
    many_mb_per_s: float

    @property
    def holds(self) -> bool:
        """Whether the line is as long as asked."""
        return abs(self.measured_ms - self.asked_ms) <= 1 + self.asked_ms / 50


def prove(line: Line) -> Proof:
    """Takes some ten seconds."""
    with line.far():
        listener = socket.create_server((line.host, 0))
    server = threading.Thread(target=_serve, args=(listener,), daemon=True)
    server.start()
    address = (line.host, int(listener.getsockname()[1]))
    try:
        with line.near():
            return Proof(line.rtt_ms, _ping(address), _flood(address, 1), _flood(address, _MANY))
    finally:
        # close() alone does not wake the accept() of the other thread.
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
        listener.close()


def _ping(address: tuple[str, int]) -> float:
    """Milliseconds from a byte to its echo."""
    times = []
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_PINGS):
            started = time.perf_counter()
            connection.sendall(b"p")
            connection.recv(1)
            times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def _flood(address: tuple[str, int], connections: int) -> float:
    """10^6 bytes a second, after the first half of the time: slow start is not the line's."""
    counts = [0] * connections
    threads = [
        threading.Thread(target=_drink, args=(socket.create_connection(address), counts, number))
        for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    time.sleep(_SECONDS / 2)
    half, started = sum(counts), time.perf_counter()
    time.sleep(_SECONDS / 2)
    result = (sum(counts) - half) / (time.perf_counter() - started) / 1e6
    for thread in threads:
        thread.join()
    return result


def _drink(connection: socket.socket, counts: list[int], number: int) -> None:
    buffer, deadline = bytearray(2**20), time.perf_counter() + _SECONDS + 0.2
    with connection:
        connection.sendall(b"f")
        while time.perf_counter() < deadline:
            counts[number] += connection.recv_into(buffer)


def _serve(listener: socket.socket) -> None:
    """Echo each `p`; answer an `f` with all that goes through until the other hangs up."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while word := connection.recv(1):
            if word == b"p":
                connection.sendall(word)
            while word == b"f":
                connection.sendall(_BLOCK)
