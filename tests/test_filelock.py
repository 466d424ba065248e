"""One command at a time: others wait, also where the system gives up waiting."""

from __future__ import annotations

import errno
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.filelock import alone


def test_whoever_is_alone_keeps_others_waiting(tmp_path: Path) -> None:
    order = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with alone(tmp_path / "new" / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with alone(tmp_path / "new" / "lock"):
        thread.start()
        entered.wait()
        thread.join(0.05)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]


def test_on_windows_waiting_goes_on_where_the_system_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[OSError | None] = [
        OSError(errno.EDEADLK, "given up"),
        OSError(errno.EDEADLK, "given up"),
        None,
        OSError(errno.EBADF, "no such thing"),
    ]

    def locking(*_: object) -> None:
        if error := tries.pop(0):
            raise error

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_LOCK=1))
    monkeypatch.setattr(sys, "platform", "win32")
    with alone(tmp_path / "lock"):
        assert len(tries) == 1
    with pytest.raises(OSError, match="no such thing"), alone(tmp_path / "lock"):
        pass
