"""A world as its cloud's API tells of it, with no more knowledge than the real one has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random

from orchestrator.clouds.aws import Aws, _when
from orchestrator.clouds.azure import Azure, AzureMachine
from orchestrator.clouds.gcp import Gcp, GcpMachine
from orchestrator.clouds.owncommand import Command
from orchestrator.clouds.power import Machine, Power, Provider, Quote, SelfStop, Tariff
from orchestrator.errors import CloudError, CloudRefused, NoCapacity
from tests.clouds.world import AWS, AZURE, GCE, NoRoom, Order, Rules, State, World, WrongState
from tests.money.stage import Stage

# A machine that is started by a command of the user's own, which says on or off and no more; it is
# paid for until it is off.
OWN = Rules("command", frozenset((State.STARTING, State.RUNNING, State.HALTING,
                                  State.RELEASING)), 0, 1,
            halted_is_kept=False, notice_s=30.0)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Attributes:
    real: the product's own provider, for what it says without asking its cloud.
    powers: its words for the world's states.
    order_s: for how long it waits to hear that there is no room.
    """

    rules: Rules
    real: Provider
    powers: Mapping[State, Power]
    order_s: float
    options: tuple[tuple[str, str], ...]


_OPTIONS = {
    "azure": (("resource_group", "exam"), ("subscription", "0"), ("vm", "gpu")),
    "aws": (("instance", "i-0"), ("region", "eu-central-1")),
    "gcp": (("instance", "gpu"), ("project", "exam"), ("zone", "europe-west4-a")),
    "command": (("start", "up"), ("status", "is"), ("stop", "down"), ("stop_itself", "off")),
}
_ON_OFF = {State.STARTING: Power.STARTING, State.RUNNING: Power.RUNNING,
           State.HALTING: Power.STOPPING, State.RELEASING: Power.STOPPING,
           State.SUSPENDING: Power.STOPPING, State.RELEASED: Power.STOPPED_FREE,
           State.SUSPENDED: Power.HIBERNATED, State.DELETED: Power.DELETED,
           State.HALTED: Power.STOPPED_BILLED}  # fmt: skip
KINDS = {
    "azure": Kind(AZURE, Azure(AzureMachine("0", "exam", "gpu")), _ON_OFF, 20.0, _OPTIONS["azure"]),
    "aws": Kind(AWS, Aws("eu-central-1", "i-0"), _ON_OFF, 0.0, _OPTIONS["aws"]),
    "gcp": Kind(GCE, Gcp(GcpMachine("exam", "europe-west4-a", "gpu")), _ON_OFF, 60.0,
                _OPTIONS["gcp"]),
    "command": Kind(OWN, Command("gpu", "up", "down", "is", "off"), _ON_OFF, 60.0,
                    _OPTIONS["command"]),
}  # fmt: skip


class Front:
    """Attributes:
    closed_until_s: until then there is no login for it.
    may_stop_itself: whether the machine would survive being turned off from within.
    """

    def __init__(self, kind: Kind, world: World, stage: Stage, chance: Random) -> None:
        self.kind, self._world, self._stage, self._chance = kind, world, stage, chance
        self.closed_until_s = 0.0
        self.may_stop_itself = True

    @property
    def tariff(self) -> Tariff:
        return self.kind.real.tariff

    @property
    def tells_address(self) -> bool:
        return True

    @property
    def self_stop(self) -> SelfStop:
        if not self.may_stop_itself:
            raise CloudRefused("it deletes itself when it is turned off from within")
        if self.kind.rules is AWS:
            self._ask()
            return SelfStop("poweroff")
        return self.kind.real.self_stop

    def describe(self) -> Machine:
        self._ask()
        world = self._world
        power = self.kind.powers[world.state]
        since, started_at = self._times(power)
        up = power in (Power.STARTING, Power.RUNNING)
        stopped_at = world.last(State.RELEASED) if self.kind.rules is GCE and world.boots else None
        return Machine(power, since, started_at, stopped_at, address="gpu.example" if up else "",
                       size=world.size, region=world.region, spot=world.spot)  # fmt: skip

    def start(self) -> None:
        self._ask()
        try:
            order = self._world.start()
        except NoRoom as no:
            raise NoCapacity("there is no room", code=str(no)) from None
        except WrongState as no:
            raise CloudRefused(f"it cannot be started now: it is {no}", code="409") from None
        end_s = self._stage.s + self.kind.order_s
        while self._stage.s < end_s and not order.is_done(self._stage.now()):
            self._stage.sleep(1.0)
        if order.is_done(self._stage.now()):
            self._refuse_failed(order)

    def stop(self) -> None:
        self._ask()
        try:
            self._world.stop()
        except WrongState as no:
            raise CloudRefused(f"it cannot be stopped now: it is {no}", code="409") from None

    def quote(self) -> Quote | None:
        return None

    def _ask(self) -> None:
        self._stage.sleep(self._chance.uniform(0.1, 0.8))
        if self._stage.s < self.closed_until_s:
            raise CloudRefused("there is no login", code="401", fix="log in again")
        if self._chance.random() < 0.01:
            raise CloudError("it did not answer in time")

    def _refuse_failed(self, order: Order) -> None:
        if order.error:
            raise NoCapacity("there is no room", code=order.error)

    def _times(self, power: Power) -> tuple[datetime | None, datetime | None]:
        """Since when it is so, and when it was last started."""
        world, rules = self._world, self.kind.rules
        if rules is AWS:
            launched = _whole(world.last(State.STARTING))
            if power in (Power.STARTING, Power.RUNNING):
                return launched, launched
            # Of a shutdown from within no time is told.
            told = world.why in ("stop", "evicted") and world.last(State.RELEASING)
            return (_when(f"({told:%Y-%m-%d %H:%M:%S} GMT)") if told else None), launched
        if rules is GCE:
            started = world.last(State.RUNNING)
            since = {
                Power.STARTING: started,
                Power.RUNNING: started,
                Power.STOPPED_FREE: world.last(State.RELEASED),
            }
            return since.get(power), started
        if rules is AZURE and power.is_down:
            return world.since, None
        return None, None


def _whole(at: datetime | None) -> datetime | None:
    return None if at is None else at.replace(microsecond=0)
