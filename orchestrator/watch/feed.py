"""Keeps the mirrors of one remote's runs fresh, over one connection, for as long as somebody looks.

There is a connection only while a run goes on there: one that is open keeps a rented machine from
going off by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from orchestrator.errors import (
    HOPELESS,
    TrainshedError,
)
from orchestrator.records.mirror import Mirror
from orchestrator.screen.printable import printable
from orchestrator.screen.tell import Silence
from orchestrator.vm.follow import look
from orchestrator.vm.link import Link
from orchestrator.watch.board import RemoteView

# Between two looks. A look is one question and one answer, and the VM does nothing in between.
PACE_S = 1.0
_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_HOPELESS_DELAY_S = 300.0
_CLOSE_LIMIT_S = 2.0


@dataclass(frozen=True)
class _Heard:
    """Attributes:
    at_s, retry_at_s: by the monotonic clock.
    """

    at_s: float | None = None
    trouble: str = ""
    retry_at_s: float = 0.0


class Feed:
    """Of one remote. Its thread sees only links and mirrors; the ledger is somebody else's.

    Args:
        connect: gives a new link; called in the feed's thread.
        first: called there before each look, with what is looked at.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Link],
        pace_s: float = PACE_S,
        first: Callable[[Link, Sequence[Mirror]], None] = lambda link, mirrors: None,
    ) -> None:
        self.name = name
        self._first = first
        self._connect = connect
        self._pace_s = pace_s
        self._mirrors: Sequence[Mirror] = ()
        self._heard = _Heard()
        self._bug: BaseException | None = None
        self._link: Link | None = None
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"feed {name}")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_at_work(self) -> bool:
        """Whether its thread still is there."""
        return self._thread.is_alive()

    def follow(self, mirrors: Sequence[Mirror]) -> None:
        """From now on these and no others; without any the connection is closed."""
        begins = bool(mirrors) and not self._mirrors
        if begins:
            self._heard = _Heard(self._heard.at_s)
        self._mirrors = tuple(mirrors)
        if begins:
            self._woken.set()

    def view(self) -> RemoteView | None:
        """None while nothing is asked of it."""
        if self._bug is not None:
            raise self._bug
        if not self._mirrors:
            return None
        heard, now_s = self._heard, time.monotonic()
        return RemoteView(
            self.name,
            None if heard.at_s is None else now_s - heard.at_s,
            heard.trouble,
            max(0.0, heard.retry_at_s - now_s),
        )

    def close(self) -> None:
        self._stop.set()
        self._woken.set()
        # It may wait for an answer that does not come.
        if (link := self._link) is not None:
            link.close()
        self._thread.join(_CLOSE_LIMIT_S)

    def _work(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._woken.clear()
            if not self._mirrors:
                self._woken.wait()
                continue
            before = self._heard.at_s
            try:
                self._look_on()
            except TrainshedError as error:
                failures = 1 if self._heard.at_s != before else failures + 1
                self._rest(error, failures)
            except BaseException as bug:  # noqa: BLE001  # raised where the view is asked for
                self._bug = bug
                return

    def _look_on(self) -> None:
        """Until there is nothing to look at, or the line is lost."""
        with self._connect() as self._link:
            while (mirrors := self._mirrors) and not self._stop.is_set():
                begun_s = time.monotonic()
                self._first(self._link, mirrors)
                look(self._link, mirrors, Silence(), beside=self._hear)
                self._hear()
                self._stop.wait(max(0.0, begun_s + self._pace_s - time.monotonic()))
        self._link = None

    def _hear(self, _: object = None) -> None:
        self._heard = _Heard(time.monotonic())

    def _rest(self, error: TrainshedError, failures: int) -> None:
        hopeless = isinstance(error, HOPELESS)
        delay_s = _HOPELESS_DELAY_S if hopeless else _DELAYS_S[min(failures, len(_DELAYS_S)) - 1]
        parts = (str(error), error.fix if hopeless else "")
        text = "; ".join(printable(part).strip() for part in parts if part)
        self._heard = _Heard(self._heard.at_s, text, time.monotonic() + delay_s)
        # A run that begins now began because somebody has mended it.
        self._woken.wait(delay_s)
