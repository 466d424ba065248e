"""Importing a library without what it imports for others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """Meanwhile, a module that is not imported yet cannot be: for libraries that try to.

    paramiko tries to import invoke, which costs as much time as paramiko itself, to run commands
    for `Match exec` in an ssh_config that it reads. We ask ssh to read it.
    """
    if name in sys.modules:
        yield
        return
    # Source: the import system's documentation; None makes an import of the name fail.
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
