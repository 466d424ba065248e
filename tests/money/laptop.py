"""The user's side: the product's own desk, with a line that is a simulation's."""

from __future__ import annotations

from random import Random
from typing import Self, cast

from orchestrator.clouds.lifecycle import Clock
from orchestrator.costs.paydesk import PayDesk
from orchestrator.errors import ConnectError, ConnectionLost
from orchestrator.screen.console import Console
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Remote
from orchestrator.vm.link import Link
from remote.protocol import Done, HowKept, Keep, Kept, LetGo
from tests.money.machine import Machine
from tests.money.stage import Stage

_ROUND_TRIP_S = 0.3
_TIME_OUT_S = 8.0


class Ear(Silence):
    """Hears what a user is warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def asker(self) -> None:
        return None


class Line:
    """A link to the machine's agent.

    Args:
        breaks: how probable it is at each call that the line is lost, before it or after.
    """

    def __init__(self, stage: Stage, machine: Machine, chance: Random, breaks: float) -> None:
        self._stage, self._machine, self._chance = stage, machine, chance
        self._breaks = breaks
        if not machine.is_open:
            stage.sleep(_TIME_OUT_S)
            raise ConnectError("cannot reach it: timed out")
        stage.sleep(_ROUND_TRIP_S)
        if not machine.is_open:
            raise ConnectionLost("it went away")
        self.hello = machine.hello()
        self.clock_off_s = self.hello.clock_s - stage.now().timestamp()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, call: object, _: type[object]) -> object:
        self._break()
        self._stage.sleep(_ROUND_TRIP_S)
        if not self._machine.is_open:
            raise ConnectionLost("it went away")
        answer = self._answer(call)
        self._break()
        return answer

    def _answer(self, call: object) -> Kept | Done:
        match call:
            case Keep():
                return self._machine.keep(call)
            case HowKept():
                return self._machine.kept()
            case LetGo():
                self._machine.let_go()
                return Done()
            case _:
                raise AssertionError(call)

    def _break(self) -> None:
        if self._chance.random() < self._breaks:
            raise ConnectionLost("the line was cut")


class Desk(PayDesk):
    """One command."""

    def __init__(self, ear: Ear, stage: Stage, machine: Machine, chance: Random) -> None:
        clock = Clock(stage.now, stage.monotonic, stage.sleep)
        super().__init__(None, cast("Console", ear), clock=clock)
        self._all = (stage, machine, chance)

    def _link(self, remote: Remote) -> Link:
        return cast("Link", Line(*self._all, 0.01))
