"""The desktop that a user may sit at: whether there is one, and pages opened there."""

from __future__ import annotations

import os
import sys


def has_desktop() -> bool:
    """Whether a window could be shown."""
    return sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def open_page(address: str) -> bool:
    """Whether a browser took it. Where there is no desktop, and nobody has said in BROWSER what
    opens pages (as editors do for a machine that they are connected to), none is tried: Python
    would start one that takes the terminal.
    """
    # It looks for all browsers that it knows.
    import webbrowser

    return (has_desktop() or bool(os.environ.get("BROWSER"))) and webbrowser.open(address)
