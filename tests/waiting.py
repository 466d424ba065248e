"""Waiting for a program that starts to answer."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable

_LIMIT_S = 60.0


def wait_for(is_true: Callable[[], bool], what: str) -> None:
    """Ask again and again, also after a program has failed.

    Raises:
        AssertionError: it did not come.
    """
    end = time.monotonic() + _LIMIT_S
    while True:
        with contextlib.suppress(subprocess.SubprocessError):
            if is_true():
                return
        assert time.monotonic() < end, f"it does not come: {what}"
        time.sleep(0.05)
