"""The life of one rented machine: sessions one after the other, and all that comes between."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from unittest.mock import patch

from orchestrator.costs import payments
from orchestrator.costs.meeting import Met
from orchestrator.costs.paydesk import Terms
from orchestrator.costs.sessions import all_sessions
from orchestrator.errors import Forbidden, LedgerError, NoCapacity, TrainshedError, UsageError
from orchestrator.records.ledger import Ledger, Sighting
from orchestrator.settings.home import OVERRIDE, ledger_file, remotes_file
from orchestrator.settings.remotes import add_remote
from orchestrator.settings.spec import CloudSpec, Price, Remote
from tests.clouds.world import Shortage, State, World
from tests.money.fronts import KINDS, Front
from tests.money.judge import (
    SLACK_S,
    STEP_S,
    Record,
    beyond_lease,
    guessed,
    overrun_s,
    said,
    under_s,
)
from tests.money.laptop import Desk, Ear
from tests.money.machine import Machine, Traits
from tests.money.stage import Stage

PER_HOUR = Decimal("0.90")
_MINUTE, _HOUR = 60.0, 3600.0
_CRASH_S = 20.0
_SUCH = ("CANNOT STOP ITSELF", "nothing ends", "would not stop itself", "nothing stops")


@dataclass(frozen=True)
class Cast:
    """Who plays: all that a life begins with, drawn by its seed."""

    seed: int
    provider: str
    sessions: int


class Life:
    """Args:
    folder: empty; of the ledger and the remotes.
    """

    def __init__(self, cast: Cast, folder: Path) -> None:
        self.chance = chance = Random(cast.seed)
        self.cast, self.folder = cast, folder
        self.stage = stage = Stage()
        kind = KINDS[cast.provider]
        spot = kind.rules.name != "command" and chance.random() < 0.3
        self.world = World(stage, kind.rules, spot=spot)
        no_right = chance.random()
        traits = Traits(no_right > 0.15, chance.random() > 0.1, chance.uniform(10, 60))
        self.machine = Machine(stage, self.world, traits)
        self.front = Front(kind, self.world, stage, chance)
        self.front.may_stop_itself = cast.provider == "command" or no_right > 0.05
        self.ear = Ear()
        self.record = Record()
        self.remote = Remote(
            "gpu",
            "gpu.example",
            price=Price(PER_HOUR),
            cloud=CloudSpec(cast.provider, kind.options),
        )
        self._left: set[int] = set()
        self._checks_s = 0.0
        self._error: TrainshedError | None = None
        stage.actors.append(self)

    def play(self) -> Record:
        with (
            patch.dict(os.environ, {OVERRIDE: str(self.folder)}),
            patch.object(payments, "open_provider", lambda _: self.front),
        ):
            add_remote(remotes_file(), self.remote)
            for _ in range(self.cast.sessions):
                self._session()
                self._rest()
            self._end()
        return self.record

    # A session.

    def _session(self) -> None:
        chance = self.chance
        terms = Terms(
            lasts_s=chance.choice((None, chance.uniform(0.3, 5) * _HOUR)),
            budget=chance.choice((None, Decimal(chance.randrange(20, 400)) / 100)),
            idle_s=chance.choice((None, chance.uniform(3, 40) * _MINUTE)),
        )
        self.record.sessions += 1
        if chance.random() < 0.15:
            self._shortage()
        for _ in range(4):
            if self._enter(terms):
                break
            self._wait(chance.uniform(10, 900))
        for _ in range(chance.randrange(1, 7)):
            chance.choices(_DOINGS, _WEIGHTS)[0](self)
        self._leave()

    def _enter(self, terms: Terms) -> bool:
        """Whether a session is open."""
        name = self.remote.name
        up: Callable[[Desk], object] = lambda desk: desk.up(name, terms, 600.0)  # noqa: E731
        if self.world.state is State.RUNNING and self.chance.random() < 0.5:
            up = lambda desk: desk.begin(name, terms)  # noqa: E731
        self.ear.warnings.clear()
        done = self._command("up", up)
        # What is refused begins nothing.
        is_refused = isinstance(self._error, UsageError | Forbidden | NoCapacity)
        if self._on() and not self._is_guarded() and not is_refused:
            self.record.needed += 1
            if any(such in warned for warned in self.ear.warnings for such in _SUCH):
                self.record.given += 1
            else:
                self._broke(f"not warned: {self.ear.warnings}")
        return done

    def _leave(self) -> None:
        name, luck = self.remote.name, self.chance.random()
        if luck < 0.6:
            self._command("down", lambda desk: desk.down(name, force=True))
        elif luck < 0.7:
            self._command("finish", lambda desk: desk.finish(name))
            self._wait(self.chance.uniform(1, 30) * _MINUTE)
            self._command("down", lambda desk: desk.down(name, force=True))
        else:
            self._count("left to its guard")

    def _rest(self) -> None:
        """Until the user comes back."""
        self._wait(self.chance.uniform(0.2, 14) * _HOUR)
        if self.chance.random() < 0.03:
            self._start_in_portal()
            self._wait(self.chance.uniform(0.1, 3) * _HOUR)
        if self.chance.random() < 0.5:
            self._look()

    def _end(self) -> None:
        """The user gives the machine up: sees to it that it is off."""
        self.front.closed_until_s = 0.0
        for _ in range(6):
            if self._command("down", lambda desk: desk.down(self.remote.name, force=True)):
                break
            self._wait(60.0)
        self._wait(_HOUR)
        self._command("look", lambda desk: desk.look(self.remote.name))
        with self._ledger() as ledger:
            amount, is_estimated = said(ledger, self.remote.name, self.stage.now())
            self._check_budgets(ledger)
            guess = guessed(ledger, self.remote.name, self.world, Fraction(PER_HOUR))
        from tests.clouds.meter import bill

        self.record.ledger += amount
        self.record.meter += bill(self.world, Fraction(PER_HOUR))
        self.record.guessed += guess[0]
        self.record.guessed_meter += guess[1]
        self.record.estimated += is_estimated

    # What users do, and what happens to them.

    def _look(self) -> None:
        self._command("look", lambda desk: desk.look(self.remote.name))

    def _run(self) -> None:
        self._count("run")
        lasts_s = self.chance.uniform(1, 60) * _MINUTE
        if not self.machine.is_open:
            return
        line = self._meet()
        if line is None:
            return
        self.machine.work(lasts_s, self.chance.uniform(0, 15))
        if self.chance.random() < 0.5:
            # It is followed to its end.
            self._wait(min(lasts_s, self.chance.uniform(1, 60) * _MINUTE))
            if self.machine.is_open:
                self._meet()

    def _meet(self) -> object:
        """Any command that talks to the machine: the account hears of it."""
        from tests.money.laptop import Line

        try:
            line = Line(self.stage, self.machine, self.chance, 0.0)
        except TrainshedError:
            return None
        met = Met(self.remote, line.hello, line.clock_off_s)
        with self._ledger() as ledger:
            _keep_account(ledger, met, self.ear, self.stage)
        self._check_ledger("meet")
        return line

    def _close_laptop(self) -> None:
        self._count("closed laptop")
        self._wait(self.chance.uniform(0.1, 4) * _HOUR)

    def _reboot(self) -> None:
        self._count("reboot")
        self.machine.reboot(self.chance.uniform(15, 500))
        self._wait(self.chance.uniform(1, 600))

    def _crash(self) -> None:
        self._count("crash")
        self.machine.crash_guard(self.chance.uniform(1, _CRASH_S))

    def _stop_in_portal(self) -> None:
        self._count("portal stop")
        self.world.stop_in_portal()
        self._wait(self.chance.uniform(1, 120) * _MINUTE)

    def _start_in_portal(self) -> None:
        if self.cast.provider == "command":
            return  # Neither its commands nor its guard would tell of a start by others.
        self._count("portal start")
        if self.world.state in (State.RELEASED, State.HALTED):
            self.world.shortage = None
            self.world.start()

    def _shut_down_from_within(self) -> None:
        if self.machine.is_open:  # While it boots, it has no system that could.
            self._count("shutdown")
            self.world.shut_down()
        self._wait(self.chance.uniform(1, 60) * _MINUTE)

    def _evict(self) -> None:
        if self.world.spot and self.world.state is State.RUNNING:
            self._count("eviction")
            self.world.evict()
        self._wait(self.chance.uniform(1, 60) * _MINUTE)

    def _shortage(self) -> None:
        self._count("no capacity")
        codes = {"azure": "AllocationFailed", "aws": "InsufficientInstanceCapacity"}
        code = codes.get(self.cast.provider, "ZONE_RESOURCE_POOL_EXHAUSTED")
        until = self.stage.now() + timedelta(seconds=self.chance.uniform(5, 2000))
        at_once = self.cast.provider == "aws" or self.chance.random() < 0.5
        self.world.shortage = Shortage(code, at_once, until)

    def _lose_login(self) -> None:
        self._count("lost login")
        self.front.closed_until_s = self.stage.s + self.chance.uniform(10, 3000)

    def _set_clock(self) -> None:
        self._count("clock jump")
        self.machine.offset_s = self.chance.choice((0.0, self.chance.uniform(-4, 4) * _HOUR))

    # How it is judged.

    def _command(self, what: str, work: Callable[[Desk], object]) -> bool:
        """One command of the user's; whether it did what it should."""
        self._count(what)
        self._error = None
        before = self._last_seen()
        try:
            with Desk(self.ear, self.stage, self.machine, self.chance) as desk:
                work(desk)
            done = True
        except LedgerError:
            raise
        except TrainshedError as error:
            self._count(f"{what}: {type(error).__name__}")
            self._error = error
            done = False
        # What was refused before anybody was asked has told the ledger nothing.
        if self._last_seen() != before:
            self._check_ledger(what)
        return done

    def _last_seen(self) -> Sighting | None:
        with self._ledger() as ledger:
            return ledger.last_sighting(self.remote.name)

    def _check_ledger(self, what: str) -> None:
        self.record.contacts += 1
        with self._ledger() as ledger:
            under = under_s(ledger, self.remote.name, self.world)
        if under > STEP_S:
            self._broke(f"{under:.3f} s too little after {what}")
        self.record.unmarked_s = max(self.record.unmarked_s, under)

    def _check_budgets(self, ledger: Ledger) -> None:
        for session in all_sessions(ledger, self.remote.name):
            if not self.machine.kept_by_guard.get(session.id):
                continue
            over = overrun_s(session, self.world, Fraction(PER_HOUR), self.machine.away)
            self.record.overrun_s = max(self.record.overrun_s, over)
            if over > SLACK_S:
                self._broke(f"{session.id} overran its budget by {over:.0f} s")

    def next_s(self) -> float:
        return self._checks_s

    def act(self) -> None:
        """Look once a minute whether the machine is on beyond its lease."""
        if self.stage.s < self._checks_s:
            return
        self._checks_s = self.stage.s + _MINUTE
        beyond = beyond_lease(self.machine, self.stage.s)
        if beyond and self.machine.disk.asked not in self._left:
            self._left.add(self.machine.disk.asked)
            self.record.left += 1
            self._broke(f"left on, {beyond}")

    def _on(self) -> bool:
        return self.world.state in (State.STARTING, State.RUNNING)

    def _is_guarded(self) -> bool:
        keep = self.machine.disk.keep
        return (
            keep is not None
            and not self.machine.disk.trouble
            and not self.machine.disk.fragile
            and (keep.ends_in_s, keep.paid_s, keep.idle_s) != (None, None, None)
        )

    def _broke(self, what: str) -> None:
        self.record.broken.append(f"{self.cast} at {self.stage.s:.1f} s: {what}")

    def _count(self, what: str) -> None:
        self.record.events[what] += 1

    def _wait(self, seconds: float) -> None:
        self.stage.sleep(seconds)

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        with Ledger.open(ledger_file()) as ledger:
            yield ledger


def _keep_account(ledger: Ledger, met: Met, ear: Ear, stage: Stage) -> None:
    from orchestrator.clouds.lifecycle import Clock

    clock = Clock(stage.now, stage.monotonic, stage.sleep)
    payments.Payments(ledger, met.remote, ear, clock).by_login(met.hello, met.clock_off_s)


_DOINGS: tuple[Callable[[Life], None], ...] = (
    Life._run, Life._look, Life._close_laptop, Life._reboot, Life._crash, Life._stop_in_portal,
    Life._start_in_portal, Life._shut_down_from_within, Life._evict, Life._lose_login,
    Life._set_clock,
)  # fmt: skip
# Most sessions have nothing odd, but one in three has.
_WEIGHTS = (40, 20, 14, 3, 2, 2, 2, 1, 2, 3, 2)
