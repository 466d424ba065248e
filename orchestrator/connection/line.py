"""The byte stream below SSH: a TCP socket, a ProxyCommand, or a channel through a jump host."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, Protocol

from orchestrator.screen.printable import one_line

# Linux has both. It may hold back an acknowledgement for 40 ms, and a server that waits for it
# (Nagle's algorithm) holds back its next words as long.
_ACKNOWLEDGE = getattr(socket, "TCP_QUICKACK", None)
_HOLD = getattr(socket, "TCP_CORK", None)

# Enough for the first words of whatever answered, for the message that says it is not SSH.
GREETING_LIMIT_BYTES = 200

# paramiko asks for each packet in two pieces; the system is asked for many at a time.
_READ_BYTES = 2**18


class Endpoint(Protocol):
    """What a socket and a forwarded channel have in common."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...
    def settimeout(self, timeout_s: float | None, /) -> None: ...
    def close(self) -> None: ...


class Line:
    """A socket to the SSH library, that gives up when the far end takes nothing any more.

    paramiko repeats a send that timed out for ever, also on a line that died with full buffers;
    only an exception other than TimeoutError gets it out of there.

    Attributes:
        greeting: the first bytes that came, at most GREETING_LIMIT_BYTES.
        received_bytes: of all that came.
    """

    def __init__(self, endpoint: Endpoint, limit_s: float, proxy: Proxy | None = None) -> None:
        self._endpoint = endpoint
        self._limit_s = limit_s
        self._proxy = proxy
        self._closed = False
        self._ahead = b""
        self._used = 0
        self._stuck_s = 0.0
        self.greeting = b""
        self.received_bytes = 0

    def recv(self, size: int) -> bytes:
        if self._used == len(self._ahead):
            self._ahead, self._used = self._endpoint.recv(_READ_BYTES), 0
            self.received_bytes += len(self._ahead)
            # The system takes it back by itself, so it is said again each time.
            self._set(_ACKNOWLEDGE, True)
            if len(self.greeting) < GREETING_LIMIT_BYTES:
                self.greeting = (self.greeting + self._ahead)[:GREETING_LIMIT_BYTES]
        data = self._ahead[self._used : self._used + size]
        self._used += len(data)
        return data

    def send(self, data: bytes) -> int:
        """As socket.send.

        Raises:
            TimeoutError: nothing was taken this time; the caller tries again.
            ConnectionAbortedError: nothing was taken for the whole limit.
        """
        started = time.monotonic()
        try:
            taken = self._endpoint.send(data)
        except TimeoutError:
            # A second at most for each attempt: the time this process was stopped (Ctrl-Z, a
            # closed lid) is not the line's silence.
            self._stuck_s += min(time.monotonic() - started, 1.0)
            if self._stuck_s > self._limit_s:
                raise ConnectionAbortedError(f"nothing taken for {self._limit_s:g} s") from None
            raise
        self._stuck_s = 0.0
        return taken

    def settimeout(self, timeout_s: float | None) -> None:
        self._endpoint.settimeout(timeout_s)

    def unsent(self) -> int:
        """How many bytes still wait here, or are on their way; 0 where the system does not tell.

        Source: tcp(7), SIOCOUTQ, which has the number of TIOCOUTQ.
        """
        if sys.platform != "linux" or not isinstance(self._endpoint, socket.socket):
            return 0
        import fcntl
        import termios

        with contextlib.suppress(OSError, ValueError):
            answer = fcntl.ioctl(self._endpoint.fileno(), termios.TIOCOUTQ, bytes(4))
            return int.from_bytes(answer, sys.byteorder)
        return 0

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is sent meanwhile leaves in as few packets as the system can make of it.

        A new TCP connection may send ten packets before it waits for an answer, whatever their
        size.  Source: RFC 6928.
        """
        self._set(_HOLD, True)
        try:
            yield
        finally:
            self._set(_HOLD, False)

    def _set(self, option: int | None, on: bool) -> None:
        if option is not None and isinstance(self._endpoint, socket.socket):
            # Not TCP (a ProxyCommand), or closed by another thread.
            with contextlib.suppress(OSError):
                self._endpoint.setsockopt(socket.IPPROTO_TCP, option, on)

    def close(self) -> None:
        """Close both ways at once, from any thread; never raises."""
        self._closed = True
        # A channel says goodbye when it is closed, and its own line may be broken.
        with contextlib.suppress(OSError, EOFError):
            if isinstance(self._endpoint, socket.socket):
                # Wakes the thread that waits in recv(); close() alone does not.
                self._endpoint.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, EOFError):
            self._endpoint.close()
        if self._proxy is not None:
            self._proxy.stop()

    def said(self) -> str:
        """What came from the far end, or what the proxy complained of, for a message; may be ""."""
        heard = self.greeting
        if not heard and self._proxy is not None:
            heard = self._proxy.complaint()
        return one_line(heard.decode("utf-8", "replace"))


class Proxy:
    """The process of a ProxyCommand."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        self._process = process
        self._stderr = stderr
        self._complaint = b""
        self._lock = threading.Lock()

    def complaint(self) -> bytes:
        """The end of its stderr; ends the process."""
        self.stop()
        return self._complaint

    def stop(self) -> None:
        """End the process, from any thread."""
        with self._lock:
            if self._stderr.closed:
                return
            self._process.terminate()
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._stderr.seek(-min(GREETING_LIMIT_BYTES, self._stderr.seek(0, 2)), 2)
            self._complaint = self._stderr.read()
            self._stderr.close()


def open_socket(host: str, port: int, timeout_s: float) -> tuple[socket.socket, float]:
    """A TCP connection, and the seconds that the machine took to answer.

    Raises:
        OSError: refused, timed out, unknown name (socket.gaierror), no route.
        ValueError: a name that cannot even be asked for.
    """
    trouble: OSError | None = None
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, proto)
        connection.settimeout(timeout_s)
        started = time.monotonic()
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            trouble = error
            continue
        took_s = time.monotonic() - started
        # Calls to the agent are small frames; Nagle's algorithm would hold each back for a round
        # trip.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, took_s
    raise trouble or OSError(f"no address for {host}")


def through_command(command: str, *, limit_s: float) -> Line:
    """The stdin and stdout of a ProxyCommand, run by the shell as OpenSSH does.

    Raises:
        OSError: the shell cannot be started, or this is Windows.
    """
    if sys.platform == "win32":
        raise OSError("ProxyCommand is not supported on Windows; ProxyJump is")
    ours, theirs = socket.socketpair()
    with theirs:
        # A file, because nobody would drain a pipe; Proxy.stop() closes it.
        stderr = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=stderr,
            )
        except OSError:
            ours.close()
            stderr.close()
            raise
    return Line(ours, limit_s, Proxy(process, stderr))


def why_unreachable(
    error: BaseException, host: str, port: int, timeout_s: float
) -> tuple[str, str]:
    """Why there is no line to a server, and what to do about it."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused", (
            f"check that the machine is up and that its SSH server listens on port {port}"
        )
    if isinstance(error, TimeoutError) or "Timeout" in str(error):
        return f"no answer for {timeout_s:g} s", (
            "check that the machine is on, that its address is still the same, and that its "
            f"firewall lets you in on port {port}"
        )
    # A name that cannot even be asked for (too long, empty part) is a UnicodeError.
    if isinstance(error, (socket.gaierror, ValueError)):
        return f"unknown host name {host}", "check the remote's `host`, and your network"
    why = (error.strerror if isinstance(error, OSError) else "") or str(error)
    return (why or type(error).__name__).lower(), "check your network, and the VPN if there is one"
