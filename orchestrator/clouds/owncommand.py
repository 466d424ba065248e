"""Machines that are started by the user's own command lines, and those that nothing here starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from orchestrator.clouds import program
from orchestrator.clouds.power import Machine, Power, Quote, SelfStop, Tariff
from orchestrator.errors import CloudError, CloudRefused

# The user's command may well wait until the machine is there.
_ORDER_LIMIT_S = 600.0
_STATUS_LIMIT_S = 60.0
_ADDRESS = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9.:\]-]*")

# Of a cloud that is not known, all that may cost does. No rounding: also not known.
_TARIFF = Tariff(
    0.0,
    0.0,
    frozenset((Power.STARTING, Power.RUNNING, Power.STOPPING, Power.STOPPED_BILLED)),
)


@dataclass(frozen=True)
class Command:
    """Lines for the shell, which know the remote's name by TRAINSHED_REMOTE.

    Attributes:
        status: prints a word of `Power` first in its last line; `running` may be followed by the
            address.
        stop_itself: runs on the machine; empty where it cannot stop itself.
        limits_s: how long an order and a status may take.
    """

    name: str
    start_line: str
    stop_line: str
    status_line: str
    stop_itself: str = ""
    limits_s: tuple[float, float] = (_ORDER_LIMIT_S, _STATUS_LIMIT_S)

    @property
    def tariff(self) -> Tariff:
        return _TARIFF

    @property
    def tells_address(self) -> bool:
        return False

    @cached_property
    def self_stop(self) -> SelfStop:
        if not self.stop_itself:
            return SelfStop("")
        return SelfStop("command", (("command", self.stop_itself),))

    def describe(self) -> Machine:
        done = self._run("status", self.status_line, self.limits_s[1])
        last = program.last_line(done.out)
        words = last.split()
        if not words or words[0] not in {power.value for power in Power}:
            known = ", ".join(Power)
            shown = repr(last[:80]) if last else "nothing"
            reason = f"the status command printed {shown}; expected one of {known}"
            return Machine(Power.UNKNOWN, reason=reason)
        power, address = Power(words[0]), words[1] if len(words) > 1 else ""
        if address and not _ADDRESS.fullmatch(address):
            reason = f"the status command printed {address[:80]!r}, which is no address"
            return Machine(power, reason=reason)
        return Machine(power, address=address, reason=last)

    def start(self) -> None:
        self._run("start", self.start_line, self.limits_s[0])

    def stop(self) -> None:
        self._run("stop", self.stop_line, self.limits_s[0])

    def quote(self) -> Quote | None:
        return None

    def _run(self, what: str, line: str, limit_s: float) -> program.Outcome:
        # The line itself is in no message: it may hold a key.
        where = f"see cloud.{what} of the remote {self.name}"
        try:
            done = program.run(line, limit_s, {"TRAINSHED_REMOTE": self.name})
        except OSError as error:
            raise CloudError(f"cannot run the {what} command of {self.name}") from error
        if done.code is None:
            message = f"the {what} command of {self.name} was stopped"
            cause = f"it took longer than {limit_s:.0f} s, or wrote without end"
            raise CloudError(message, cause=cause, fix=where)
        if done.code:
            raise CloudRefused(
                f"the {what} command of {self.name} ended with exit code {done.code}",
                code=str(done.code),
                cause=done.last_error,
                fix=where,
            )
        return done


@dataclass(frozen=True)
class Nothing:
    """A machine that has a price, and is started and stopped by hand."""

    name: str

    @property
    def tariff(self) -> Tariff:
        return _TARIFF

    @property
    def tells_address(self) -> bool:
        return False

    @property
    def self_stop(self) -> SelfStop:
        return SelfStop("")

    def describe(self) -> Machine:
        return Machine(Power.UNKNOWN, reason="its cloud has provider: none, which asks nobody")

    def start(self) -> None:
        raise self._refusal("start")

    def stop(self) -> None:
        raise self._refusal("stop")

    def quote(self) -> Quote | None:
        return None

    def _refusal(self, what: str) -> CloudRefused:
        return CloudRefused(
            f"{self.name} has provider: none, so it cannot be made to {what} from here",
            code="none",
            fix=f"{what} it by hand; or name its cloud (azure, aws, gcp), or provider: command "
            "with the lines that start, stop and show it",
        )
