"""Large files over several connections at once.

One carries at most a window for each round trip: 2 MiB of a channel to OpenSSH, and what the system
gives a TCP connection, mostly 4 MiB. Further ones add up, and each begins slowly on its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.errors import (
    AgentBroken,
    ConnectError,
    ConnectionLost,
    HostKeyChanged,
    HostKeyUnknown,
    Refused,
)
from orchestrator.vm.link import Link
from remote.protocol import Span

# A connection costs four round trips and some processor time, and each has its slow start.
_LANE_BYTES = 3 * 2**20
_LANES_LIMIT = 8
# Small, so that all lanes end together; large, so that calls and files cost little.
LEAST_BYTES, _MOST_BYTES = 2**20, 8 * 2**20
# The next piece is asked for before one has come, so that the line never waits: at first one, then
# as much as has come, like a connection's slow start, so that none takes more than it can bring.
_AHEAD = 2
_AHEAD_BYTES = 4 * 2**20
_END_LIMIT_S = 20.0


@dataclass
class Piece:
    """A span of a file, with what has come of it cut off at its front."""

    name: str
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin


class Work:
    """Pieces of files that are to be brought over one connection or several.

    Args:
        spans: by the file's name. One of up to LEAST_BYTES is not cut, and may stand for several
            files; of no bytes, it is not brought.
        ask: begins to bring a piece over a link.
        bring: ends it; moves the piece's `begin` on as bytes are safe, so that after a cut of this
            link another brings only the rest.
    """

    def __init__(
        self,
        spans: Iterable[tuple[str, Span]],
        ask: Callable[[Link, Piece], None],
        bring: Callable[[Link, Piece], None],
    ) -> None:
        self._spans = tuple(spans)
        self._ask, self._bring = ask, bring
        self._left: deque[Piece] = deque()
        self._out = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False

    @property
    def size_bytes(self) -> int:
        return sum(span.end - span.begin for _, span in self._spans)

    def lanes(self, link: Link) -> int:
        """How many connections it is worth."""
        # Nearer, the processor is the limit: paramiko is Python, and all lanes share one
        # interpreter.
        if link.is_near:
            return 1
        return max(1, min(_LANES_LIMIT, self.size_bytes // _LANE_BYTES))

    def share(self, link: Link) -> None:
        """Have it all brought, over this link and at the same time over further ones.

        That a further one cannot be opened, or is lost, is no error; that another machine answers
        it is.

        Raises:
            Whatever else `ask` and `bring` raise, and all that they raise for `link`.
        """
        lanes = self.lanes(link)
        length = max(LEAST_BYTES, min(_MOST_BYTES, self.size_bytes // (4 * lanes)))
        self._left.extend(
            Piece(name, begin, min(begin + length, span.end))
            for name, span in self._spans
            for begin in range(span.begin, span.end, length)
        )
        opened: list[Link] = []
        for _ in range(lanes - 1):
            threading.Thread(
                target=self._help, args=(link, opened), daemon=True, name="lane"
            ).start()
        try:
            self._work(link)
        finally:
            with self._changed:
                self._ended = True
            for lane in tuple(opened):
                lane.close()  # also ends what it waits for
            with self._changed:
                # One that is not open yet has taken nothing, and will not.
                self._changed.wait_for(lambda: not self._out, _END_LIMIT_S)
        if self._error is not None:
            raise self._error

    def _help(self, link: Link, opened: list[Link]) -> None:
        try:
            lane = link.another()
        except (HostKeyUnknown, HostKeyChanged) as error:
            self._fail(error)
            return
        except (ConnectError, ConnectionLost, Refused):
            return
        except BaseException as error:  # noqa: BLE001  # raised in the thread that shares
            self._fail(error)
            return
        try:
            with lane:
                opened.append(lane)
                self._work(lane)
        except ConnectionLost:
            pass
        except BaseException as error:  # noqa: BLE001  # raised in the thread that shares
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._ended = True
            self._changed.notify_all()

    def _work(self, link: Link) -> None:
        asked: deque[Piece] = deque()
        asked_bytes = brought_bytes = 0
        try:
            while True:
                while (len(asked) < _AHEAD or asked_bytes < min(brought_bytes, _AHEAD_BYTES)) and (
                    piece := self._take(wait=not asked)
                ):
                    asked.append(piece)
                    asked_bytes += piece.size_bytes
                    self._ask(link, piece)
                if not asked:
                    return
                size_bytes = asked[0].size_bytes
                self._bring(link, asked[0])
                self._give_back(asked.popleft())
                asked_bytes -= size_bytes
                brought_bytes += size_bytes
        except (ConnectionLost, AgentBroken):
            raise
        except Exception:
            # The line goes on to be used, and what comes next over it was asked for here.
            link.skip_answers()
            raise
        finally:
            while asked:
                self._give_back(asked.pop())

    def _take(self, *, wait: bool) -> Piece | None:
        """The next piece; None when there is none.

        Args:
            wait: for what others may give back.
        """
        with self._changed:
            while wait and not self._left and self._out and not self._ended:
                self._changed.wait()
            if not self._left or self._ended:
                return None
            self._out += 1
            return self._left.popleft()

    def _give_back(self, piece: Piece) -> None:
        with self._changed:
            self._out -= 1
            if piece.size_bytes:
                self._left.appendleft(piece)
            self._changed.notify_all()
