"""What has come for a channel and was not read yet."""

from __future__ import annotations

import threading
import time
from collections import deque


class Pipe:
    """What paramiko's channel asks of its buffer, handing on uncopied what it was fed.

    paramiko's own is one array, and all that is left of it is moved at each read: with a window of
    16 MiB that is most of the time a fast line costs.
    """

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def feed(self, data: bytes) -> None:
        if not data:
            return  # a packet may be empty, and is no end
        with self._changed:
            self._pieces.append(data)
            self._changed.notify_all()

    def read(self, size: int, timeout_s: float | None = None) -> bytes:
        """1 to `size` bytes; empty when it was closed and all is read.

        Raises:
            TimeoutError: nothing came.
        """
        with self._changed:
            deadline = time.monotonic() + timeout_s if timeout_s is not None else None
            while not self._pieces:
                if self._closed:
                    return b""
                left_s = deadline - time.monotonic() if deadline is not None else None
                if left_s is not None and left_s <= 0:
                    raise TimeoutError
                self._changed.wait(left_s)
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
            return piece[:size]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
