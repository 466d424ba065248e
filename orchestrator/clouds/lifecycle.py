"""Starting a rented machine until it lets one in, and stopping it until it costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.clouds.power import Machine, Power, Provider
from orchestrator.costs.cost import format_duration
from orchestrator.errors import (
    CloudError,
    CloudRefused,
    ConnectError,
    ConnectionLost,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    NoCapacity,
)
from orchestrator.screen.tell import Teller

_POLL_S = 3.0
_CAPACITY_POLL_S = 20.0
# A machine behind a gateway has none of its own.
_ADDRESS_LIMIT_S = 15.0
# Azure takes two minutes to start a GPU machine, and up to ten to deallocate one.
START_LIMIT_S = 900.0
STOP_LIMIT_S = 900.0
LOGIN_LIMIT_S = 300.0
# A cloud that cannot be asked for a moment may well be starting or stopping the machine.
_UNASKED_LIMIT_S = 120.0


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Clock:
    """How time goes by; a simulation has its own.

    Attributes:
        monotonic: seconds that only go forward.
    """

    now: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, limit_s: float, every_s: float) -> Iterator[float]:
        """Again and again until the time is up; gives the seconds that have passed."""
        start = self.monotonic()
        while (passed := self.monotonic() - start) < limit_s:
            yield passed
            self.sleep(every_s)


class Lifecycle:
    """One machine's way up and down.

    Args:
        see: told each thing the cloud said of it, and when; keeps the account.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        see: Callable[[Machine, datetime], None],
        tell: Teller,
        clock: Clock | None = None,
    ) -> None:
        self._name = name
        self._provider = provider
        self._see = see
        self._tell = tell
        self._clock = clock or Clock()

    def describe(self) -> Machine:
        """What the cloud says of it now, kept.

        Raises:
            CloudError: it could not be asked, or refused.
        """
        machine = self._provider.describe()
        self._see(machine, self._clock.now())
        return machine

    def start(self, capacity_limit_s: float) -> Machine:
        """Until it runs by the cloud's word.

        Args:
            capacity_limit_s: for so long is a cloud asked again that has no such machine to give.

        Raises:
            NoCapacity: it had none all that time.
            CloudError: the cloud refused, or the machine did not come up in time.
        """
        machine = self.describe()
        if machine.power is Power.STOPPING:
            machine = self._wait(lambda m: m.power is not Power.STOPPING, STOP_LIMIT_S, "stops")
        if machine.power is Power.DELETED:
            raise CloudRefused(f"{self._name} was deleted", fix=f"train remote remove {self._name}")
        if machine.power is not Power.RUNNING:
            self._order(machine, capacity_limit_s)
        machine = self._wait(lambda m: m.power is Power.RUNNING, START_LIMIT_S, "starts")
        if not self._provider.tells_address:
            return machine
        for _ in self._clock.until(_ADDRESS_LIMIT_S, _POLL_S):
            if machine.address:
                break
            machine = self.describe()
        return machine

    def stop(self, ordered: Callable[[], None]) -> Machine:
        """Until the cloud says that it costs nothing.

        Args:
            ordered: done once the cloud has taken the order, and the machine may still answer.

        Raises:
            CloudError: it did not stop, or nobody can say; it may still cost money.
        """
        machine = self.describe()
        if machine.power.is_down:
            return machine
        self._provider.stop()
        self._tell.step(f"asked the cloud to stop {self._name}")
        ordered()
        return self._wait(lambda m: m.power.is_down, STOP_LIMIT_S, "stops")

    def _order(self, machine: Machine, limit_s: float) -> None:
        """Ask until the cloud takes the order.

        Args:
            machine: off, as it was found.
        """
        refusal: NoCapacity | None = None
        for passed in self._clock.until(max(limit_s, 0.001), _CAPACITY_POLL_S):
            asked_at = self._clock.now()
            try:
                self._provider.start()
            except NoCapacity as no:
                if refusal is None:
                    self._tell.warn(f"{no}; asking again for {format_duration(limit_s)}")
                refusal = no
                # Its cloud may call it stopped anew since then; it was not on between.
                self._see(Machine(machine.power), self._clock.now())
                left = format_duration(max(0.0, limit_s - passed))
                self._tell.doing(f"no capacity for {self._name}, asking for {left} more")
            else:
                # What is billed from the order on is counted from there.
                self._see(Machine(Power.STARTING, started_at=asked_at), asked_at)
                self._tell.step(f"the cloud starts {self._name}")
                return
        assert refusal is not None
        refusal.fix = refusal.fix or "try again later, or another size or region"
        raise refusal

    def _wait(self, is_there: Callable[[Machine], bool], limit_s: float, what: str) -> Machine:
        unasked: CloudError | None = None
        machine: Machine | None = None
        last_answer_s = 0.0
        for passed in self._clock.until(limit_s, _POLL_S):
            try:
                machine = self.describe()
            except CloudRefused:
                raise
            except CloudError as error:
                unasked = error
                if passed - last_answer_s > _UNASKED_LIMIT_S:
                    raise
            else:
                last_answer_s = passed
                if is_there(machine):
                    return machine
                self._tell.doing(f"{self._name} {what}: {machine.power}")
        state = f"it is {machine.power}" if machine else "nobody can say what it is"
        billed = ", STILL BILLED" if machine and machine.power is Power.STOPPED_BILLED else ""
        raise CloudError(
            f"{self._name} did not come so far in {format_duration(limit_s)}: {state}{billed}",
            cause=(machine.reason if machine else str(unasked or "")),
            fix=f"look at it in the cloud's own console; then: train session status {self._name}",
        )


def wait_for_login(
    try_once: Callable[[], None], name: str, tell: Teller, clock: Clock | None = None
) -> None:
    """Until the machine lets us in: a cloud calls it running long before.

    Raises:
        HostKeyUnknown, HostKeyChanged: waiting does not help.
        ConnectError, ConnectionLost: it did not in time.
    """
    clock = clock or Clock()
    trouble: ConnectError | ConnectionLost | None = None
    for passed in clock.until(LOGIN_LIMIT_S, _POLL_S):
        try:
            return try_once()
        except (HostKeyUnknown, HostKeyChanged):
            raise
        except LoginRefused as no:
            # Keys are put in place while a machine starts for the first time.
            trouble = no
            if passed > LOGIN_LIMIT_S / 5:
                raise
        except (ConnectError, ConnectionLost) as no:
            trouble = no
        tell.doing(f"waiting for {name} to let us in")
    assert trouble is not None
    raise trouble
