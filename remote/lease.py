"""What an agent does for the guard: says that a laptop is here, and revives a guard that is gone;
and what it knows of it by itself: when it was last there before this boot.

Small, because each connection imports it; nearly all find no guard.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Tuple

from remote.protocol import Boot

# Well below what anybody would let a machine idle.
_RENEW_S = 10.0


class Lease:
    """Of one connection."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # `GuardFolder.laptop`, without importing all the records of that folder.
        self._file = root / "guard" / "laptop"
        self._beat = root / "guard" / "beat.json"
        self._renewed_at = float("-inf")

    def boots(self) -> Tuple[Boot, ...]:
        """The guard's records of those before this one, as far as they tell when it went off."""
        if not self._beat.exists():
            return ()
        from remote.guardfolder import guard_folder

        try:
            folder = guard_folder(self._root)
            terms, boots = folder.read_terms(), folder.read_boots()
        except (OSError, ValueError):
            return ()
        # One that does not come back after a crash may have gone long before the machine.
        comes_back = terms is not None and not terms.fragile
        return tuple(boot for boot in boots if boot.stopped or comes_back)

    def begin(self) -> None:
        """A laptop has come."""
        if self.renew():
            from remote.keeper import revive

            try:
                revive(self._root)
            except OSError:
                pass  # a full disk; this laptop has come for something else

    def renew(self) -> bool:
        """It is still here: noted now and then; whether it was noted now."""
        if time.monotonic() - self._renewed_at < _RENEW_S:
            return False
        self._renewed_at = time.monotonic()
        try:
            os.utime(self._file)
        except OSError:
            return False  # nobody guards
        return True
