"""The bounds of a session while its runs are followed: its end, and the budgets on its remote.

Its guard on the machine keeps them. Here they are told, and where nobody there has ended the runs
soon after, they are ended from here: the machine's guard may be gone, or never have been let in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from orchestrator.costs.purse import WARN_AT
from orchestrator.costs.sessions import budgets, open_session
from orchestrator.errors import ConfigError, Refused
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirror
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Remote
from orchestrator.vm.link import Link
from remote.protocol import Cancel, Done
from remote.runfolder import SESSION_OVER

# How often the ledger is asked.
_LOOK_S = 5.0
# The guard ends runs at the end, or a boot's and the saving's graces later.
_GUARD_LIMIT = timedelta(seconds=60)


def past_end(ledger: Ledger, remote: Remote, now: datetime) -> str:
    """Which of its bounds the session that is open there has come to; empty for none."""
    session = open_session(ledger, remote.name)
    if session is None:
        return ""
    if session.is_past_end(now):
        return "the session's end"
    used_up = next((b for b in budgets(ledger, remote, now) if b.left <= 0), None)
    return f"the budget's end ({used_up})" if used_up else ""


class Bounds:
    """Of the runs that one command follows on a remote.

    Args:
        now: the time of day, for tests.
    """

    def __init__(
        self,
        ledger: Ledger,
        remote: Remote,
        mirrors: Sequence[Mirror],
        tell: Teller,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._remote = remote
        self._mirrors = mirrors
        self._tell = tell
        self._now = now
        self._look_at = float("-inf")
        # What was told before anything was started is not told again.
        self._told: set[str] = set()
        with suppress(ConfigError):
            self._told |= self._near().keys()
        self._past_since: datetime | None = None
        self._has_ended = False

    def look(self, link: Link) -> None:
        """While they are followed, with a link that works."""
        for mirror in self.overdue():
            with suppress(Refused):
                link.call(Cancel(mirror.run_id, why=SESSION_OVER), Done)

    def overdue(self) -> tuple[Mirror, ...]:
        """Tell what is new, every few seconds.

        Returns:
            Those of the runs that are to be ended from here; none before that, nor a second time.
        """
        if time.monotonic() < self._look_at:
            return ()
        self._look_at = time.monotonic() + _LOOK_S
        with suppress(ConfigError):  # somebody edits it just now
            return self._overdue()
        return ()

    def _overdue(self) -> tuple[Mirror, ...]:
        near = self._near()
        for what in near.keys() - self._told:
            self._tell.warn(near[what])
        self._told |= near.keys()
        why, now = past_end(self._ledger, self._remote, self._now()), self._now()
        if not why:
            self._past_since = None
            return ()
        self._past_since = self._past_since or now
        if now - self._past_since < _GUARD_LIMIT or self._has_ended:
            return ()
        self._has_ended = True
        self._tell.warn(f"{why} has passed and runs go on; they are asked to save and end")
        return tuple(mirror for mirror in self._mirrors if not mirror.ended)

    def _near(self) -> dict[str, str]:
        """The budgets that are nearly used up, in words for the user."""
        return {
            budget.what: f"the budget is nearly used up ({budget})"
            for budget in budgets(self._ledger, self._remote, self._now())
            if budget.spent >= budget.limit * WARN_AT
        }
