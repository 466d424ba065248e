"""The first command of a connection, sent in one flight with all that has to come before it.

Stock paramiko waits for an answer nine times on the way from a TCP connection to a command's first
byte. With what worked the last time (a `Way`) two waits are left: one for the host key, one for
the answer. Nothing but public keys leaves before the host key was judged. Each liberty taken, and
what happens where a server does not grant it:

- The key exchange is begun before the server has spoken (`FlyingTransport`).
- The login is requested together with its service (`_Login`).
- A channel and a command on it are requested together with the login, before any of them is
  granted (`fly`). RFC 4252, section 5.1: what a client sends after the request that lets it in MUST
  be passed on to the service. OpenSSH does so; asyncssh 2.24 dismisses the client instead.

A server that answers otherwise than expected makes the flight `Grounded`: it is then certain that
no command has run, and the caller goes the plain way on a new connection. Where that is not
certain, the error is paramiko's own, and nothing may be repeated behind the user's back.
"""

from __future__ import annotations

import threading
from typing import Any

from orchestrator.connection.lean import without
from orchestrator.connection.line import Line
from orchestrator.connection.pipe import Pipe
from orchestrator.connection.way import WHOLE, Way

with without("invoke"):
    import paramiko
    from paramiko.auth_handler import AuthHandler
    from paramiko.common import (
        cMSG_CHANNEL_DATA,
        cMSG_CHANNEL_OPEN,
        cMSG_CHANNEL_REQUEST,
    )

# What may come before we say that we have read it. At the default of 2 MiB a line of 150 ms
# carries 14 MB/s at most; 16 MiB is 110 MB/s. A reader that is slow holds that much in memory.
WINDOW_BYTES = 16 * 2**20

# Each packet costs its share of Python's time: 128 KiB instead of 32 KiB.
PACKET_BYTES = 128 * 2**10

# paramiko's own margin for a packet's head.
_HEAD_BYTES = 64

# The methods used here are paramiko's own, which its type stubs leave out.
_Transport: Any = paramiko.Transport
_AuthHandler: Any = AuthHandler


class Grounded(Exception):
    """The server did not answer as the last time; the command has certainly not run."""


class FlyingTransport(_Transport):  # type: ignore[misc]
    """A transport that can begin the key exchange before the server has spoken.

    RFC 4253, section 7.1: a client may send its KEXINIT at once, and a guessed first packet of the
    exchange after it. By section 7 a guess is right only if both sides' most preferred algorithms
    are equal, and a server drops a packet announced as a guess otherwise. OpenSSH prefers sntrup761
    and its RSA key, so a guess of ours would always be dropped. The packet is therefore sent as
    what it is: not a guess, but the first packet of the exchange that the lists will agree on,
    since they did the last time. That takes the liberty of sending it before the server's list is
    there. If the agreement turns out to be another, the handshake breaks off; so far only public
    values have been sent, and the caller repeats it without `early`.

    Args:
        early: the key exchange the server agreed on the last time; "" waits for the server.

    Attributes:
        agreed: the key exchange agreed on.
        dismissed: whether the server said goodbye in so many words (DISCONNECT).
    """

    def __init__(self, line: Line, early: str) -> None:
        # Not a socket, but all that paramiko asks of one.
        super().__init__(
            line, default_window_size=WINDOW_BYTES, default_max_packet_size=PACKET_BYTES
        )
        self._early = self._kex_info[early](self) if early in self.preferred_kex else None
        self._is_said = False
        self.kex_engine: Any = None
        self.agreed = ""
        self.dismissed = False

    def _check_banner(self) -> None:
        if self._early is not None:
            self._send_kex_init()
            self._is_said = True
            self._early.start_kex()
            # What it now expects is expected again in its turn, after the server's KEXINIT.
            awaited = self._expected_packet
            self._early.start_kex = lambda: self._expect_packet(*awaited)
        super()._check_banner()

    def _send_kex_init(self) -> None:
        # paramiko says its own after the banner; once is enough. Later ones are for new keys.
        if self._is_said:
            self._is_said = False
        else:
            super()._send_kex_init()

    def _parse_kex_init(self, message: paramiko.Message) -> None:
        super()._parse_kex_init(message)
        kind = type(self.kex_engine)
        self.agreed = next(name for name, known in self._kex_info.items() if known is kind)
        early, self._early = self._early, None
        if early is not None:
            if type(early) is not kind:
                raise paramiko.SSHException("the server agrees on another key exchange now")
            self.kex_engine = early

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        self.dismissed = True
        super()._parse_disconnect(message)


class _Login(_AuthHandler):  # type: ignore[misc]
    """A login requested together with the service that grants it.

    RFC 4253, section 10, has the service requested before it is used; it does not say that the
    client waits for the answer. OpenSSH and asyncssh read the requests one after the other.
    """

    def request(self, user: str, key: paramiko.PKey) -> None:
        """Send both requests."""
        self.auth_publickey(user, key, threading.Event())
        accepted = paramiko.Message()
        accepted.add_string("ssh-userauth")
        accepted.rewind()
        # What paramiko does when the service is granted: it signs, and asks to be let in.
        super()._parse_service_accept(accepted)

    def _parse_service_accept(self, message: paramiko.Message) -> None:
        pass  # the grant, when it comes


def fly(
    transport: Any,  # noqa: ANN401
    line: Line,
    user: str,
    key: paramiko.PKey,
    way: Way,
    command: bytes,
    first: bytes,
) -> tuple[paramiko.Channel, int]:
    """Log in and start the first command, as far ahead of the server's answers as `way` says.

    Returns:
        The command's channel, and how much of `first` has been sent to it.

    Raises:
        Grounded: not let in, or not as the last time; the command has not run.
        SSHException, EOFError, OSError: the line broke, and whether the command ran is not known;
            or it is there, and the server runs no commands.
    """
    # paramiko would end the wait as if we had been refused. The caller ends it with the line.
    transport.auth_timeout = None
    transport.auth_handler = login = _Login(transport)
    channel: Any = None
    opened = threading.Event()
    broken: Exception | None = None
    try:
        with line.together():
            login.request(user, key)
            if way.ahead == WHOLE:
                channel, opened = _open_ahead(transport, way)
                first = first[: way.window]
                _send_command(transport, channel, command, first)
    except paramiko.SSHException as error:
        raise Grounded("the key does not sign") from error  # an agent that was asked in vain
    except (EOFError, OSError) as error:
        broken = error  # what the server said before it hung up is still to be read
    _await_login(transport, login)
    if channel is not None:
        _await_channel(transport, channel, opened, way)
    if broken is not None:
        raise broken
    if channel is None:
        return start(transport, command, first)
    _await_start(transport, channel, len(first))
    return channel, len(first)


def start(
    transport: Any,  # noqa: ANN401
    command: bytes,
    first: bytes,
    timeout_s: float | None = None,
) -> tuple[paramiko.Channel, int]:
    """Start a command; what the server's window takes of `first` is sent right after the request.

    Returns, Raises:
        As `fly`, but never Grounded.
    """
    channel: Any = transport.open_session(timeout=timeout_s)
    channel.in_buffer = Pipe()
    first = first[: channel.out_window_size]
    _send_command(transport, channel, command, first)
    _await_start(transport, channel, len(first))
    return channel, len(first)


def _open_ahead(transport: Any, way: Way) -> tuple[Any, threading.Event]:  # noqa: ANN401
    """A channel that is requested, and held to be the one the server gave the last time.

    RFC 4254, section 5.1, lets the server choose the channel's number, and section 5.2 lets nothing
    be sent beyond its window; both are in an answer that we do not wait for. Servers number a
    connection's channels from 0. OpenSSH opens a session with a window of 0 and widens it to 2 MiB
    as it starts the command, before it reads the data behind that request; what it gave the last
    time by then is the remembered window. Source: OpenSSH's serverloop.c, server_request_session;
    session.c, session_set_fds; channels.c, channel_input_data.

    Returns:
        The channel, and an event for the server's answer.
    """
    number = transport._next_channel()
    channel: Any = paramiko.Channel(number)
    channel.in_buffer = Pipe()
    channel._set_transport(transport)
    channel._set_window(WINDOW_BYTES, PACKET_BYTES)
    channel.remote_chanid, channel.out_max_packet_size = way.channel, way.packet
    transport._channels.put(number, channel)
    transport.channels_seen[number] = True
    transport.channel_events[number] = answered = threading.Event()
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_OPEN)
    message.add_string("session")
    for value in (number, WINDOW_BYTES, PACKET_BYTES):
        message.add_int(value)
    transport._send_user_message(message)
    return channel, answered


def _send_command(transport: Any, channel: Any, command: bytes, first: bytes) -> None:  # noqa: ANN401
    """Ask for the command, and send the start of its input, without waiting for the answer."""
    channel._event_pending()
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exec")
    message.add_boolean(True)
    message.add_string(command)
    transport._send_user_message(message)
    most = channel.out_max_packet_size - _HEAD_BYTES
    for begin in range(0, len(first), most):
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_DATA)
        message.add_int(channel.remote_chanid)
        message.add_string(first[begin : begin + most])
        transport._send_user_message(message)


def _await_login(transport: Any, login: Any) -> None:  # noqa: ANN401
    try:
        wanted = login.wait_for_response(login.auth_event)
    except paramiko.SSHException as error:
        # A server that refuses, or says goodbye, before it lets us in has run nothing. A line that
        # merely ended may have lost the answer.
        if transport.is_active() or (transport.dismissed and not login.is_authenticated()):
            raise Grounded("not let in") from error
        raise
    if wanted:
        raise Grounded("let in by half")


def _await_channel(
    transport: Any,  # noqa: ANN401
    channel: Any,  # noqa: ANN401
    answered: threading.Event,
    way: Way,
) -> None:
    while not answered.wait(0.1) and transport.is_active():
        pass
    if channel.active and channel.remote_chanid != way.channel:
        raise Grounded("the command went to a channel that does not exist")
    # A server that has not said yes to the channel has not run anything in it.
    if not channel.active and (transport.is_active() or transport.dismissed):
        raise Grounded("no channel")


def _await_start(transport: Any, channel: Any, sent: int) -> None:  # noqa: ANN401
    """Wait until the server says that the command runs; then count what was sent to it."""
    channel._wait_for_event()
    with channel.lock:
        channel.out_window_size -= sent
    if channel.out_window_size < 0:
        # RFC 4254, section 5.2: the server may have dropped what was too much. The command runs,
        # so this is a connection lost in the middle of its input.
        transport.close()
        raise EOFError("the server takes less than the last time")
