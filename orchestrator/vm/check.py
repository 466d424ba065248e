"""What a doctor's look at one thing gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from orchestrator.errors import Refused


class Mark(Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and what to do when it is not well.

    Attributes:
        exit_code: what `train doctor` ends with when this fails.
    """

    name: str
    mark: Mark
    found: str
    fix: str = ""
    exit_code: int = Refused.exit_code

    def on(self, member: str) -> Check:
        """The same, where several machines are told of in one list."""
        return replace(self, name=f"{member}: {self.name}")

    def within(self, pool: str, member: str) -> Check:
        """The same, of a pool's host: what is said of an address is said of its pool, which has no
        address of its own, and nobody who rents it out.
        """
        if not member.startswith(f"{pool}."):
            return self
        command = f"train remote set {pool}"
        own = f"under remotes: a remote of its own for this host (list its name in {pool}): "
        fix = self.fix.replace(f"train remote set {member} ", f"{command} ")
        fix = fix.replace(f"{command} --host ADDRESS", command)
        return replace(self, fix=fix.replace(f"under remotes: {member}: ", own))
