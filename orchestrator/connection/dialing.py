"""The first steps to a server, taken while the SSH library is still being imported."""

from __future__ import annotations

import socket
import threading

from orchestrator.connection.line import open_socket
from orchestrator.connection.sshconfig import Destination, Hop, ask_ssh, has_ssh, route
from orchestrator.errors import TrainshedError

# For each step on the way to a server.
TIMEOUT_S = 10.0


class Dialing:
    """Asks ssh for the way, and calls the first server on it, in the background.

    Attributes:
        hops: the way; empty where it could not be found out. Whoever asks again is told why.
        took_s: how long the server took to answer.
    """

    def __init__(self, destination: Destination, timeout_s: float = TIMEOUT_S) -> None:
        self.hops: tuple[Hop, ...] = ()
        self.took_s = 0.0
        self._socket: socket.socket | None = None
        self._trouble: OSError | ValueError | None = None
        arguments = (destination, timeout_s)
        self._thread = threading.Thread(target=self._dial, args=arguments, daemon=True)
        self._thread.start()

    @property
    def is_in_vain(self) -> bool:
        """Whether it was waited for, and the server cannot be reached."""
        return self._trouble is not None

    def wait(self) -> None:
        """Until the server has answered, or will not."""
        self._thread.join()

    def take(self) -> socket.socket | None:
        """The connection; None where there is none to be had in this way.

        Raises:
            OSError, ValueError: the server cannot be reached.
        """
        if self._trouble is not None:
            raise self._trouble
        taken, self._socket = self._socket, None
        return taken

    def _dial(self, destination: Destination, timeout_s: float) -> None:
        try:
            if not has_ssh():
                return
            first, *_ = self.hops = route(destination, ask_ssh)
        except TrainshedError:
            return
        if first.proxy_command is not None:
            return
        try:
            self._socket, self.took_s = open_socket(first.host, first.port, timeout_s)
        except (OSError, ValueError) as error:
            self._trouble = error
