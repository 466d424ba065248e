"""The connection: login over SSH, and commands as byte streams. The only door to paramiko.

Every failure leaves here as one of our errors. Where paramiko differs from what we need:

- It logs exceptions of its threads; its logger is silenced.
- `Transport.start_client(timeout=...)` returns as if all were well when the time is up.
- It asks for the login service again with each key; asyncssh hangs up at the second. Its other
  transport class does not, but can wait for ever.
- Waits inside `exec_command` and `send` have no end on a line that died.
- A failed handshake leaves a timer thread behind.
- It waits for an answer at each step; see `orchestrator.connection.flight`.
"""

from __future__ import annotations

import logging
import math
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.connection.channel import Channel, Stream, lost
from orchestrator.connection.dialing import TIMEOUT_S, Dialing
from orchestrator.connection.flight import FlyingTransport, Grounded, fly, start
from orchestrator.connection.hostkeys import Asker, HostKey, KnownKey, admit, known_keys
from orchestrator.connection.keyoffers import KEY_LIMIT_BYTES, Locked, Offers, Unusable
from orchestrator.connection.lean import without
from orchestrator.connection.line import Line, open_socket, through_command, why_unreachable
from orchestrator.connection.sshconfig import (
    Destination,
    Hop,
    Settings,
    ask_ssh,
    config_file,
    has_ssh,
    route,
)
from orchestrator.connection.way import FILE_NAME, PLAIN, Memory, Way, reach
from orchestrator.errors import ConnectError, ConnectionLost, LoginRefused

with without("invoke"):
    import paramiko

__all__ = ["Asker", "Channel", "Connection", "Destination", "connect", "host_key"]

# Three times the agent's heartbeat. A laptop that slept leaves a line that is dead but never says
# so; without this limit the next read would wait for ever.
SILENCE_LIMIT_S = 15.0

# A server may ask others (LDAP) whether to let us in.
LOGIN_LIMIT_S = 30.0

# A line that breaks so soon after the key exchange was broken by the server.
_YOUNG_S = 2.0

# Shorter than the shortest idle limit of a NAT or firewall on the way.
KEEPALIVE_S = 5

_LOOPBACK = "127.0.0.1"

# GCM encrypts and authenticates in one go. No CBC, no SHA-1, no MD5.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)

# What paramiko raises for a damaged key file or a server that talks nonsense, beside its own.
_NONSENSE = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    AssertionError,
    struct.error,
)
_BROKEN = (paramiko.SSHException, EOFError, OSError)
_FAILED = (*_BROKEN, *_NONSENSE)

_log = logging.getLogger("paramiko")
_log.addHandler(logging.NullHandler())
_log.propagate = False


@dataclass(frozen=True)
class _Flight:
    """A login put off to the first command.

    Attributes:
        way: what worked the last time.
        again: connects anew, and logs in the plain way.
    """

    hop: Hop
    asker: Asker | None
    way: Way
    again: Callable[[], Connection]


class Connection:
    """A way to a server, through its jump hosts; `connect` opens it.

    Attributes:
        where: the remote's name, and the server's user, host and port.
        host_key: the server's, admitted.
        round_trip_s: what reaching the server took, which is hardly more; 0 if not known.
        another: opens a further connection to the same server, asking no questions.
    """

    host_key: HostKey
    round_trip_s = 0.0
    another: Callable[[], Connection]

    def __init__(self, where: str, memory: Memory) -> None:
        self.where = where
        self._memory = memory
        # The key that was let in, and the key exchange to begin early the next time.
        self._identity = self._kex = ""
        self._agreed_at = 0.0
        self._flight: _Flight | None = None
        self._first = threading.Lock()
        self._lines: list[Line] = []
        self._transports: list[FlyingTransport] = []
        self._channels: list[Channel] = []

    @property
    def host_key_fingerprint(self) -> str:
        return self.host_key.fingerprint

    def execute(self, command: str, first: bytes = b"") -> Channel:
        """Start a command line of the user's shell on the VM.

        Args:
            first: the start of its input, on its way before the server has answered where that is
                possible. That the command did not take all of it shows in the channel.

        Raises:
            ConnectError: the server opens no further channel, or runs no commands.
            ConnectionLost: the line is gone; whether the command was started is not known.
            LoginRefused, HostKeyChanged: as `connect`, where it put off the login.
        """
        line = command.encode("utf-8", "surrogateescape")
        # The first command logs in, and the others wait for it.
        with nullcontext() if self._identity else self._first:
            stream, sent = self._take_off(line, first) or self._start(line, first)
        first_line = self._lines[0]
        channel = Channel(
            stream,
            self.where,
            SILENCE_LIMIT_S,
            _BROKEN,
            unsent=first_line.unsent,
            received=lambda: first_line.received_bytes,
        )
        self._channels.append(channel)
        with suppress(ConnectionLost):
            channel.write(first[sent:])
        return channel

    def open_port(self, port: int) -> Stream:
        """Bytes to and from a port of the VM's own address 127.0.0.1, once a command has run.

        Its methods raise OSError when the line breaks, and `recv` gives b"" then.

        Raises:
            ConnectError: nobody listens there, or the server forwards no ports.
            ConnectionLost: the line is gone.
        """
        try:
            opened: Stream = self._transports[-1].open_channel(
                "direct-tcpip", (_LOOPBACK, port), (_LOOPBACK, 0), timeout=SILENCE_LIMIT_S
            )
        except paramiko.ChannelException as error:
            is_forbidden = error.code == paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
            raise ConnectError(
                f"{self.where} opens no way to its port {port}",
                cause=error.text,
                fix="allow this user AllowTcpForwarding in its sshd_config, and let its key's line "
                "in authorized_keys not say restrict or no-port-forwarding"
                if is_forbidden
                else "",
            ) from error
        except _BROKEN as error:
            raise lost(self.where, "the line broke") from error
        return opened

    def _start(self, command: bytes, first: bytes) -> tuple[paramiko.Channel, int]:
        with self._watched(SILENCE_LIMIT_S):
            stream, sent = start(self._transports[-1], command, first, SILENCE_LIMIT_S)
        self._learn(stream)
        return stream, sent

    def _take_off(self, command: bytes, first: bytes) -> tuple[paramiko.Channel, int] | None:
        """Log in and start the first command in one flight; None where it is to be started yet."""
        flight, self._flight = self._flight, None
        if flight is None:
            return None
        hop, way = flight.hop, flight.way
        # A line that breaks may be a server's way to refuse a flight. The next is a shorter one.
        shorter = way._replace(ahead=max(way.ahead - 1, PLAIN))
        with closing(paramiko.Agent()) as agent:
            key = _remembered(hop, agent, way.identity)
            if key is None:
                self._log_in(hop, self.where, flight.asker)
                return None
            try:
                with self._watched(LOGIN_LIMIT_S):
                    started = fly(
                        self._transports[-1], self._lines[-1], hop.user, key, way, command, first
                    )
            except Grounded:
                self._memory.keep(shorter)
            except ConnectionLost:
                # One that waited for its command may just have died of old age.
                if time.monotonic() - self._agreed_at < _YOUNG_S:
                    self._memory.keep(shorter)
                raise
            else:
                self._let_in(way.identity)
                self._memory.keep(way._replace(kex=self._kex))
                return started
        self.close()
        plain = flight.again()
        self.host_key, self._identity, self._kex = plain.host_key, plain._identity, plain._kex
        self._lines, self._transports = plain._lines, plain._transports
        return None

    def _let_in(self, identity: str) -> None:
        self._identity = identity
        # Not before: asyncssh dismisses a client who speaks of anything else before the login.
        self._transports[-1].set_keepalive(KEEPALIVE_S)

    def _learn(self, stream: paramiko.Channel) -> None:
        """Remember what the next connection can count on, as it was with the first channel."""
        if stream.chanid != 0:
            return
        before = self._memory.recall()
        same = before and before.identity == self._identity
        way = Way(
            kex=self._kex,
            identity=self._identity,
            ahead=before.ahead if before and same else reach(self._transports[-1].remote_version),
            channel=stream.remote_chanid,
            window=stream.out_window_size,
            packet=stream.out_max_packet_size,
        )
        self._memory.keep(way)

    @contextmanager
    def _watched(self, limit_s: float) -> Iterator[None]:
        """End the wait for a server that says nothing, and say in our words what went wrong."""
        # Closing the socket is the only thing that ends paramiko's wait for an answer.
        watch = threading.Timer(limit_s, self._lines[0].close)
        watch.start()
        transport = self._transports[-1]
        try:
            yield
        except paramiko.ChannelException as error:
            raise ConnectError(
                f"{self.where} opens no further channel",
                cause=error.text,
                fix="raise MaxSessions in its sshd_config, or do less at once",
            ) from error
        except _BROKEN as error:
            # Channels are told of a broken line a moment before the transport says so.
            transport.join(0.5)
            if not transport.is_alive():
                raise lost(self.where, "the line broke") from error
            raise ConnectError(
                f"{self.where} runs no commands",
                cause=str(error),
                fix="give this user a login shell, and lift the restrictions of this key",
            ) from error
        finally:
            watch.cancel()
            watch.join()

    def close(self) -> None:
        """End the connection at once; no thread of it is left. What was not yet read is lost."""
        # From the outermost on: then nothing says goodbye through a line that takes nothing more.
        for line, transport in zip_longest(self._lines, self._transports):
            line.close()
            if transport is not None:
                transport.close()
        for channel in self._channels:
            channel.close()
        for transport in self._transports:
            _end(transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _reach(
        self, hop: Hop, where: str, timeout_s: float, dialing: Dialing | None = None
    ) -> None:
        """Get bytes to and from the next server: from here, or from the last one reached."""
        started = time.monotonic()
        took_s = 0.0
        try:
            early = dialing.take() if dialing is not None else None
            if self._transports:
                channel = self._transports[-1].open_channel(
                    "direct-tcpip", (hop.host, hop.port), (_LOOPBACK, 0), timeout=timeout_s
                )
                line = Line(channel, SILENCE_LIMIT_S)
            elif hop.proxy_command is not None:
                line = through_command(hop.proxy_command, limit_s=SILENCE_LIMIT_S)
                started = math.inf  # it has started a program; how far that reaches is not known
            elif dialing is not None and early is not None:
                line, took_s = Line(early, SILENCE_LIMIT_S), dialing.took_s
            else:
                opened, took_s = open_socket(hop.host, hop.port, timeout_s)
                line = Line(opened, SILENCE_LIMIT_S)
        except _FAILED as error:
            if isinstance(error, paramiko.ChannelException):
                why, fix = (
                    f"its jump host says: {error.text}",
                    "check the address as seen from there",
                )
            else:
                why, fix = why_unreachable(error, hop.host, hop.port, timeout_s)
            raise ConnectError(f"cannot reach {where}: {why}", fix=fix) from error
        self._lines.append(line)
        self.round_trip_s = took_s or max(0.0, time.monotonic() - started)

    def _shake_hands(
        self, hop: Hop, where: str, known: Sequence[KnownKey], timeout_s: float, early: str = ""
    ) -> None:
        """Agree on keys with the server reached last; its host key is not judged yet."""
        line = self._lines[-1]
        transport = FlyingTransport(line, early)
        self._transports.append(transport)
        options = transport.get_security_options()
        options.ciphers = CIPHERS
        options.digests = MACS
        options.key_types = _known_first(options.key_types, known)
        transport.banner_timeout = transport.handshake_timeout = timeout_s
        try:
            transport.start_client(timeout=min(2 * timeout_s, SILENCE_LIMIT_S))
            key = transport.get_remote_server_key()
        except _FAILED as error:
            if transport.remote_version:
                why, cause = "the SSH handshake broke off", str(error) or type(error).__name__
            else:
                why = "what answers there is not an SSH server"
                silent = isinstance(error.__context__, TimeoutError)
                cause = f"it said nothing for {timeout_s:g} s" if silent else "it hung up at once"
                if line.said():
                    cause = f"it said: {line.said()}"
            raise ConnectError(
                f"cannot reach {where}: {why}",
                cause=cause,
                fix=f"check host and port of the remote; then: ssh -v -p {hop.port} {hop.host}",
            ) from error
        self.host_key = HostKey(key.get_name(), key.asbytes())
        self._identity, self._kex = "", transport.agreed
        self._agreed_at = time.monotonic()

    def _shake_hands_as_before(
        self, hop: Hop, where: str, known: Sequence[KnownKey], timeout_s: float, way: Way | None
    ) -> None:
        """As `_shake_hands`, but begun with the key exchange of the last time."""
        early = way.kex if way else ""
        try:
            self._shake_hands(hop, where, known, timeout_s, early)
        except ConnectError:
            if not early or not self._transports[-1].remote_version:
                raise
        else:
            if way and not early:
                self._kex = ""
            return
        # Only public values have been sent. Once more, and this time the server goes first.
        self._lines.pop().close()
        _end(self._transports.pop())
        self._reach(hop, where, timeout_s)
        self._shake_hands(hop, where, known, timeout_s)
        if self._kex == early:
            self._kex = ""  # the agreement is the same, so it was being early that this one minds

    def _log_in(self, hop: Hop, where: str, asker: Asker | None) -> None:
        """Offer keys to the server reached last until it takes one."""
        refused = f"cannot log in to {where}"
        tried: list[str] = []
        try:
            with closing(paramiko.Agent()) as agent:
                offers = _offers(hop, asker, agent)
                for name, key in offers:
                    tried.append(name)
                    if self._is_let_in(hop.user, key, refused, tried):
                        self._let_in(_identity(key))
                        return
        except _FAILED as error:
            kind = ConnectError if isinstance(error, (EOFError, OSError)) else LoginRefused
            raise kind(
                f"{refused}: the login broke off",
                cause=f"{str(error) or type(error).__name__}; tried: {', '.join(tried)}",
                fix=f"see where ssh gets: ssh -v -p {hop.port} {hop.user}@{hop.host}",
            ) from error
        raise offers.refusal(refused, tried)

    def _is_let_in(self, user: str, key: paramiko.PKey, refused: str, tried: list[str]) -> bool:
        transport = self._transports[-1]
        try:
            wanted = transport.auth_publickey(user, key)
        except paramiko.BadAuthenticationType as error:
            raise LoginRefused(
                f"{refused}: it takes no keys",
                cause=f"it takes: {', '.join(error.allowed_types)}",
                fix="allow PubkeyAuthentication in its sshd_config",
            ) from error
        except paramiko.AuthenticationException as error:
            if transport.is_active() and "timeout" not in str(error):
                return False
            # Without a word, and after one key only, it is rather the line that was cut.
            is_answer = transport.dismissed or len(tried) > 1
            kind = LoginRefused if is_answer else ConnectError
            raise kind(
                f"{refused}: it hung up",
                cause=f"tried: {', '.join(tried)}",
                fix="name the right key in the remote's `key`; then no other is tried",
            ) from error
        if wanted:
            raise LoginRefused(
                f"{refused}: it wants more than a key",
                cause=f"after {tried[-1]} it asks for: {', '.join(wanted)}",
                fix="let this user in with a key alone",
            )
        return True


def connect(
    destination: Destination,
    *,
    asker: Asker | None,
    known_hosts: Path,
    accept: str | None = None,
    timeout_s: float = TIMEOUT_S,
    dialing: Dialing | None = None,
) -> Connection:
    """Reach a server whose host key is admitted, through jump hosts where ssh_config names them.

    The login is done too, unless one is remembered that worked the last time: that one is left to
    the connection's first command, and so are its errors and its questions.

    Args:
        asker: who answers questions; None where there is no terminal.
        known_hosts: our own file; read beside the user's and the system's, and the one written.
        accept: a host key's fingerprint the user has checked beforehand.
        timeout_s: for each step on the way.
        dialing: to the same destination, and waited for.

    Raises:
        UsageError: host or user could be taken for an option of ssh.
        ConnectError: not reached, or a key file is at fault.
        HostKeyUnknown, HostKeyChanged, LoginRefused: reached, but no further.
    """
    return _open(destination, asker, known_hosts, accept, timeout_s, log_in=True, dialing=dialing)


def host_key(
    destination: Destination,
    *,
    asker: Asker | None,
    known_hosts: Path,
    accept: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> tuple[str, str]:
    """Type and fingerprint of the host key, admitted as by `connect`, without logging in there.

    Raises:
        As `connect`; LoginRefused only of a jump host.
    """
    with _open(destination, asker, known_hosts, accept, timeout_s, log_in=False) as connection:
        return connection.host_key.kind, connection.host_key_fingerprint


def _open(
    destination: Destination,
    asker: Asker | None,
    own: Path,
    accept: str | None,
    timeout_s: float,
    *,
    log_in: bool,
    may_fly: bool = True,
    dialing: Dialing | None = None,
) -> Connection:
    hops = dialing.hops if dialing is not None else ()
    hops = hops or route(destination, ask_ssh if has_ssh() else _parse_config)
    memory = Memory(own.with_name(FILE_NAME), " > ".join(str(hop) for hop in hops))
    way = memory.recall()
    connection = Connection(f"{destination.name} ({hops[-1]})", memory)
    connection.another = partial(connect, destination, asker=None, known_hosts=own)
    try:
        for number, hop in enumerate(hops, 1):
            last = number == len(hops)
            where = connection.where if last else f"{destination.name}'s jump host ({hop})"
            known = known_keys(hop.known_as, (own, *hop.known_hosts))
            connection._reach(hop, where, timeout_s, dialing if number == 1 else None)
            if last:
                connection._shake_hands_as_before(hop, where, known, timeout_s, way)
            else:
                connection._shake_hands(hop, where, known, timeout_s)
            key = connection.host_key
            admit(
                *(where, hop.known_as, key, known),
                asker=asker,
                accept=accept,
                own=own,
                may_replace=last,
            )
            if last and log_in and may_fly and way and way.ahead > PLAIN:
                again = partial(_open, destination, asker, own, accept, timeout_s)
                connection._flight = _Flight(
                    hop, asker, way, partial(again, log_in=True, may_fly=False)
                )
            elif log_in or not last:
                connection._log_in(hop, where, asker)
    except BaseException:
        connection.close()
        raise
    return connection


def _end(transport: paramiko.Transport) -> None:
    """Wait for the end of a transport's threads."""
    transport.close()
    if transport.ident is not None:
        transport.join(5)
    # Ends the timer of a handshake that failed.
    transport.packetizer.complete_handshake()


def _offers(hop: Hop, asker: Asker | None, agent: paramiko.Agent) -> Offers[paramiko.PKey]:
    held = {key.asbytes(): (key.comment or key.fingerprint, key) for key in agent.get_keys()}
    return Offers(hop, asker, held, _load_key)


def _identity(key: paramiko.PKey) -> str:
    """The fingerprint of what is offered: of the certificate, where there is one."""
    blob = key.public_blob.key_blob if key.public_blob else key.asbytes()
    return HostKey("", blob).fingerprint


def _remembered(hop: Hop, agent: paramiko.Agent, identity: str) -> paramiko.PKey | None:
    """The key that was let in the last time, if it can be had without a question."""
    try:
        keys = (key for _, key in _offers(hop, None, agent))
        return next((key for key in keys if _identity(key) == identity), None)
    except _FAILED:
        return None


def _known_first(kinds: Sequence[str], known: Sequence[KnownKey]) -> tuple[str, ...]:
    """Host key types in the order to ask for: a known host is then not taken for a changed one
    because it also has a key of a type paramiko likes better."""
    mine = {entry.key.kind for entry in known if not entry.marker}
    if "ssh-rsa" in mine:
        mine |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(sorted(kinds, key=lambda kind: kind not in mine))


def _parse_config(host: str, user: str | None, port: int | None) -> Settings:
    """ssh_config as far as paramiko understands it, where there is no ssh to ask.

    Raises:
        ConnectError: the file cannot be read or understood.
    """
    file = Path(config_file() or "~/.ssh/config").expanduser()
    try:
        found = paramiko.SSHConfig.from_path(str(file)).lookup(host)
    except FileNotFoundError:
        return {}
    except (*_FAILED, ImportError) as error:
        raise ConnectError(
            f"{file} cannot be read", fix="install OpenSSH's ssh, which is asked first"
        ) from error
    # Its values are strings, and lists of them where a keyword may come more than once.
    values: dict[str, str | list[str]] = dict(found)
    return {key: [value] if isinstance(value, str) else value for key, value in values.items()}


def _load_key(file: Path, passphrase: str | None) -> list[tuple[str, paramiko.PKey]]:
    """The private key in a file, with the certificate beside it first where there is one.

    Raises:
        FileNotFoundError: there is no such file.
        Locked: it needs a passphrase.
        Unusable: unreadable, not a key, or the passphrase is wrong.
    """
    certificate = Path(f"{file}-cert.pub")
    try:
        if not stat.S_ISREG((status := file.stat()).st_mode) or status.st_size > KEY_LIMIT_BYTES:
            raise Unusable("not a key file")
        key = _read_key(file, passphrase)
        certified = _read_key(file, passphrase) if certificate.is_file() else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unusable((error.strerror or str(error)).lower()) from error
    if certified is None:
        return [(str(file), key)]
    try:
        certified.load_certificate(str(certificate))
    except _FAILED:
        return [(str(file), key)]
    return [(str(certificate), certified), (str(file), key)]


def _read_key(file: Path, passphrase: str | None) -> paramiko.PKey:
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key_file(str(file), passphrase)
        except paramiko.PasswordRequiredException as error:
            raise Locked from error
        except (paramiko.SSHException, *_NONSENSE):
            continue
    raise Unusable("not an Ed25519, ECDSA or RSA private key in OpenSSH or PEM format")
