"""A line to a server on loopback that fails where it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from tests.servers import HOST

Way = Literal["up", "down"]
UP: Way = "up"
DOWN: Way = "down"
# cut: both ends see it closed. reset: both see a reset. stall: nothing comes any more, and nobody
# is told, as when a lid is shut. slow: it goes on at SLOW_BYTES_PER_S each way, for SLOW_S.
Kind = Literal["cut", "reset", "stall", "slow"]

# A packet of SSH holds up to 128 KiB, and nothing of it is seen before it is whole.
SLOW_BYTES_PER_S = 2_000
SLOW_S = 20.0
_BLOCK_BYTES = 64 * 2**10
_WINDOW_BYTES = 8 * 2**10


@dataclass(frozen=True)
class Fault:
    """Attributes:
    after_bytes: so many go through on that way, over all connections together, and not one more.
    meanwhile: is done just before it strikes, and what it gives just after.
    """

    kind: Kind
    way: Way
    after_bytes: int
    meanwhile: Callable[[], Callable[[], object]] | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.way} after {self.after_bytes}"


class FaultyLine:
    """A port whose bytes go to the server's port. One fault at a time; it strikes all connections
    that are open then, once, and those made later work.

    Attributes:
        port: where to connect.
        passed: how many bytes went through, by way.
        struck_at: when the last fault struck, by the monotonic clock.
        accepted_at: when each connection came.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        # Else what the line is too slow for would have left the laptop already.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW_BYTES)
        self._listener.settimeout(0.05)
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._open: list[_Pair] = []
        self._threads: list[threading.Thread] = []
        self._fault: Fault | None = None
        self._left = 0
        self._ended = False
        self.passed = {UP: 0, DOWN: 0}
        self.struck_at = 0.0
        self.accepted_at: list[float] = []
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def arm(self, fault: Fault | None) -> None:
        with self._lock:
            self._fault, self._left = fault, fault.after_bytes if fault else 0

    @property
    def has_struck(self) -> bool:
        with self._lock:
            return self._fault is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._listener.close()
        for pair in self._pairs:
            pair.strike("cut")
        for thread in self._threads:
            thread.join(5)
        for pair in self._pairs:
            pair.close()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            near.settimeout(None)
            self.accepted_at.append(time.monotonic())
            pair = _Pair(near, socket.create_connection((HOST, self._target)))
            with self._lock:
                self._pairs.append(pair)
                self._open.append(pair)
            self._start(self._forward, pair, pair.near, pair.far, UP)
            self._start(self._forward, pair, pair.far, pair.near, DOWN)

    def _forward(self, pair: _Pair, source: socket.socket, target: socket.socket, way: Way) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(pair.block_bytes):
                if not pair.flows.is_set():
                    continue  # what comes after a stall is lost
                passing, strikes = self._let_through(data, way)
                if pair.slow_until > time.monotonic():
                    time.sleep(len(passing) / SLOW_BYTES_PER_S)
                target.sendall(passing)
                if strikes is not None:
                    self._strike(strikes)
        with contextlib.suppress(OSError):
            if pair.flows.is_set():
                target.shutdown(socket.SHUT_WR)

    def _let_through(self, data: bytes, way: Way) -> tuple[bytes, Fault | None]:
        """What passes, and how the line fails behind it."""
        whole = data
        with self._lock:
            fault = self._fault
            if fault is not None and fault.way == way:
                data, spent = data[: self._left], len(data) > self._left
                self._left -= len(data)
                if spent:
                    self._fault = None
                    # A slow line loses nothing.
                    return whole if fault.kind == "slow" else data, fault
            self.passed[way] += len(data)
            return data, None

    def _strike(self, fault: Fault) -> None:
        then = fault.meanwhile() if fault.meanwhile else lambda: None
        with self._lock:
            struck, self._open = self._open, []
            self.struck_at = time.monotonic()
        for pair in struck:
            pair.strike(fault.kind)
        then()


class _Pair:
    """Both ends of a connection.

    Attributes:
        flows: cleared by a stall.
        slow_until: by the monotonic clock.
        block_bytes: what is read at once.
    """

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.flows = threading.Event()
        self.flows.set()
        self.slow_until = 0.0
        self.block_bytes = _BLOCK_BYTES

    def close(self) -> None:
        self.near.close()
        self.far.close()

    def strike(self, kind: Kind) -> None:
        if kind == "stall":
            self.flows.clear()
            return
        if kind == "slow":
            self.slow_until = time.monotonic() + SLOW_S
            self.block_bytes = SLOW_BYTES_PER_S // 10
            return
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                if kind == "reset":
                    # Closed with nothing to linger for, it is reset.  Source: socket(7).
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.close()
                else:
                    end.shutdown(socket.SHUT_RDWR)
