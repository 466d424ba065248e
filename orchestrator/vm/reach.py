"""The way to a remote: reached, logged in to, spoken with; begun early where that can be done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from orchestrator.connection.dialing import Dialing
from orchestrator.connection.sshconfig import Destination
from orchestrator.errors import ConnectError, ConnectionLost, TrainshedError
from orchestrator.settings.home import config_folder
from orchestrator.settings.spec import Remote

if TYPE_CHECKING:
    from orchestrator.connection.hostkeys import Asker
    from orchestrator.connection.ssh import Connection
    from orchestrator.vm.link import Call, Link

# A server waits for a login for two minutes (OpenSSH's LoginGraceTime), a careful one for less.
_FRESH_S = 20.0


class HeadStart:
    """A connection begun in the background, while the laptop still works out what to send.

    It goes as far as no user is needed: the server is reached and keys are agreed on.

    Args:
        accept: a host key's fingerprint trusted beforehand.
    """

    def __init__(self, remote: Remote, accept: str = "") -> None:
        self.remote = remote
        self._begun_at = time.monotonic()
        self._connection: Connection | None = None
        self._trouble: BaseException | None = None
        self._lock = threading.Lock()
        self._dropped = False
        dialing = Dialing(_destination(remote))
        # Most of what the laptop has to do, and the first thing needed when the line is up.
        import orchestrator.connection.ssh  # noqa: F401

        self._thread = threading.Thread(target=self._begin, args=(accept, dialing), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def take(self) -> Connection | None:
        """The connection; None where it has to be made anew, with the user or because it is old.

        Raises:
            TrainshedError: there is no way to the server.
        """
        self._thread.join()
        if self._trouble is not None:
            raise self._trouble
        if time.monotonic() - self._begun_at > _FRESH_S:
            self.drop()
        taken, self._connection = self._connection, None
        return taken

    def drop(self) -> None:
        """Close what nobody took, without waiting for what is still on its way."""
        with self._lock:
            self._dropped = True
            taken, self._connection = self._connection, None
        if taken is not None:
            taken.close()

    def _begin(self, accept: str, dialing: Dialing) -> None:
        try:
            dialing.wait()
            connection = _connect(self.remote, None, accept, dialing)
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits for it
            # A server that was reached may be content with what the user says, who is there then.
            if dialing.is_in_vain or not isinstance(error, TrainshedError):
                self._trouble = error
            return
        with self._lock:
            if not self._dropped:
                self._connection = connection
                return
        connection.close()


def open_link(
    remote: Remote,
    asker: Asker | None,
    accept: str = "",
    ahead: Iterable[Call] = (),
    begun: HeadStart | None = None,
) -> Link:
    """Log in and start the agent.

    Args:
        ahead: calls sent along, as `Link` has them.
        begun: a connection to this remote that may be there already.

    Raises:
        ConnectError: nothing that was sent ahead has taken effect.
        ConnectionLost: it may have.
    """
    from orchestrator.vm.link import Link

    early = begun.take() if begun is not None else None
    connection = early or _connect(remote, asker, accept)
    ahead = tuple(ahead)
    try:
        return Link(connection, remote.name, remote.python, ahead)
    except (ConnectError, ConnectionLost) as error:
        if early is None:
            raise
        first = error
    # It may have died while nobody looked: the laptop slept, the server lost patience. Or its login
    # needs a passphrase.
    try:
        return open_link(remote, asker, accept, ahead)
    except ConnectError as error:
        if ahead and isinstance(first, ConnectionLost):
            # What was sent ahead may have taken effect, and nobody may say that it did not.
            raise first from error
        raise


def check_host_key(remote: Remote, asker: Asker | None, accept: str = "") -> tuple[str, str]:
    """Type and fingerprint of its host key, once it is trusted."""
    from orchestrator.connection.ssh import host_key

    own = config_folder() / "known_hosts"
    return host_key(_destination(remote), asker=asker, known_hosts=own, accept=accept or None)


def _connect(
    remote: Remote, asker: Asker | None, accept: str, dialing: Dialing | None = None
) -> Connection:
    from orchestrator.connection.ssh import connect

    try:
        return connect(
            _destination(remote),
            asker=asker,
            known_hosts=config_folder() / "known_hosts",
            accept=accept or None,
            dialing=dialing,
        )
    except ConnectError as error:
        # Not where it was reached, and refused us.
        if type(error) is ConnectError and remote.is_rented:
            error.fix = f"if it is off: train up {remote.name}; else: {error.fix}"
        raise


def _destination(remote: Remote) -> Destination:
    return Destination(remote.name, remote.host, remote.user, remote.port, remote.key)
