"""A provider that asks the stand-ins' world without HTTP, for simulations of many sessions.

It tells what the cloud of the world's rules tells through the real provider: tests/test_direct.py
holds the two next to each other.
"""

from __future__ import annotations

from datetime import datetime

from orchestrator.clouds.aws import Aws
from orchestrator.clouds.azure import Azure, AzureMachine
from orchestrator.clouds.gcp import Gcp, GcpMachine
from orchestrator.clouds.power import Machine, Power, Quote, SelfStop, Tariff
from orchestrator.errors import CloudError, CloudRefused, NoCapacity
from tests.clouds.world import NoRoom, Order, State, World, WrongState

_POWER = {
    State.STARTING: Power.STARTING,
    State.RUNNING: Power.RUNNING,
    State.HALTING: Power.STOPPING,
    State.HALTED: Power.STOPPED_BILLED,
    State.RELEASING: Power.STOPPING,
    State.RELEASED: Power.STOPPED_FREE,
    State.SUSPENDING: Power.STOPPING,
    State.SUSPENDED: Power.HIBERNATED,
    State.DELETED: Power.DELETED,
}


class Direct:
    """Attributes:
    unreachable: every question fails, as without a network or a login.
    """

    def __init__(self, world: World, quote: Quote | None = None) -> None:
        self.world = world
        self.unreachable = False
        self._quote = quote

    @property
    def tariff(self) -> Tariff:
        """The product's own: it is what a simulation judges."""
        match self.world.rules.name:
            case "azure":
                return Azure(AzureMachine("s", "g", "v")).tariff
            case "aws":
                return Aws("r", "i").tariff
            case _:
                return Gcp(GcpMachine("p", "z", "i")).tariff

    @property
    def tells_address(self) -> bool:
        return True

    @property
    def self_stop(self) -> SelfStop:
        return SelfStop("deallocate" if self.world.rules.halted_is_kept else "poweroff")

    def describe(self) -> Machine:
        self._ask()
        world, power = self.world, _POWER[self.world.state]
        if power is Power.DELETED:
            return Machine(power)
        return Machine(
            power,
            since=world.since,
            started_at=self._started_at(power),
            stopped_at=world.last(State.RELEASED) if world.rules.name == "gcp" else None,
            address=self._address(power),
            size=world.size,
            region=world.region,
            spot=world.spot,
            reason=world.why,
        )

    def start(self) -> None:
        self._ask()
        try:
            order = self.world.start()
        except NoRoom as short:
            raise NoCapacity("no room just now", code=str(short)) from None
        except WrongState as wrong:
            raise CloudRefused(f"cannot do this now ({wrong})", code="Conflict") from None
        self._wait(order)

    def stop(self) -> None:
        self._ask()
        self.world.stop()

    def quote(self) -> Quote | None:
        self._ask()
        return self._quote

    def _ask(self) -> None:
        if self.unreachable:
            raise CloudError("the cloud cannot be asked")

    def _wait(self, order: Order) -> None:
        """No longer than for the word that there is no room."""
        clock = self.world.clock
        if order.error:
            clock.sleep(max(0.0, (order.ends_at - clock.now()).total_seconds()))
            raise NoCapacity("no room just now", code=order.error)

    def _address(self, power: Power) -> str:
        """Azure is asked for it only where that could be of use."""
        up = power in (Power.STARTING, Power.RUNNING)
        return self.world.address if up or self.world.rules.name != "azure" else ""

    def _started_at(self, power: Power) -> datetime | None:
        """Azure keeps none but of what is running."""
        if self.world.rules.name == "azure" and power is not Power.RUNNING:
            return None
        return self.world.last(State.RUNNING)
