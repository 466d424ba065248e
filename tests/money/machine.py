"""The system on a rented machine: its boots, its clocks, its runs, and the guard by its own rules.

What the guard is to do is `remote.guardrules`, as it is. How it is driven, what it writes down and
when, and what its agent answers is told after here, without processes and files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from remote.guardfolder import was_stopped
from remote.guardrules import TICK_S, Act, Count, Limits, Look, advance, begin, decide
from remote.protocol import Boot, Hello, Keep, Kept, Stop
from tests.clouds.world import NoRoom, State, World, WrongState
from tests.money.stage import START, Stage, seconds_of

NEVER = float("inf")
_GUARD_STARTS_S = 5.0
_RETRY_S, _LAST_RETRY_S = 60.0, 600.0
_NOTICED = "the cloud takes this spot machine away"


@dataclass(frozen=True)
class Traits:
    """Attributes:
    may_stop: whether the right to end its own cost is there.
    comes_back: whether the guard is started again after a reboot or a crash.
    boot_s: from the power to a login.
    """

    may_stop: bool = True
    comes_back: bool = True
    boot_s: float = 25.0


@dataclass
class Disk:
    """What lasts over boots."""

    asked: int = 0
    keep: Keep | None = None
    at: Look = field(default_factory=lambda: Look("", 0.0, 0.0))
    before_s: float = 0.0
    trouble: str = ""
    fragile: str = ""
    beat: tuple[int, Count, str, float | None] | None = None
    stops: list[Stop] = field(default_factory=list)
    boots: tuple[Boot, ...] = ()
    noted: str = ""


class Machine:
    """Attributes:
    offset_s: of its clock; it is set at will.
    active_s: when a run or the laptop was last there, for the judge.
    on_s: since when it is on, for the judge; None while it is off.
    asked_s: when it was told the terms it keeps, for the judge.
    away: when it was paid for and no guard could be there, likewise.
    hidden_s: of the time since it was told its terms, what no clock of its own could show: its
        clock was set back while it rebooted.
    kept_by_guard: by session, whether its guard could keep all the terms it was told.
    """

    def __init__(self, stage: Stage, world: World, traits: Traits) -> None:
        self._stage, self.world, self.traits = stage, world, traits
        self.disk = Disk()
        self.offset_s = 0.0
        self.active_s = 0.0
        self.on_s: float | None = None
        self.asked_s = 0.0
        self.away: list[tuple[float, float]] = []
        self.hidden_s = 0.0
        self._ticked = (0.0, 0.0)
        self.kept_by_guard: dict[str, bool] = {}
        self._asked = count(1)
        self._boots = 0
        self._booted_s = 0.0
        self._busy_until_s = 0.0
        self._needs_s = 0.0
        self._is_touched = False
        self._guards_s = NEVER
        self._looks_s = NEVER
        self._count: Count | None = None
        self._guarded = 0
        self._ask_s = 0.0
        self._attempts = 0
        self._stopping: Stop | None = None
        stage.actors.append(self)

    # What is seen from outside.

    @property
    def is_open(self) -> bool:
        """Whether one can log in."""
        self.act()
        return self.on_s is not None and self._stage.s >= self._booted_s + self.traits.boot_s

    @property
    def is_busy(self) -> bool:
        return self.on_s is not None and self._stage.s < self._busy_until_s

    @property
    def wall_s(self) -> float:
        return START.timestamp() + self._stage.s + self.offset_s

    def hello(self) -> Hello:
        self._touch()
        if self.disk.keep is not None and self._guards_s > self._stage.s:
            self._guards_s = self._stage.s
            self.act()
        up_s = max(0.01, self._stage.s - self._booted_s)
        return Hello(1, "3.8", "python3", "Linux", "me", "~/.trainshed", self._boot_id,
                     self.wall_s, 10**11, 8, up_s, self._told_boots())  # fmt: skip

    def work(self, lasts_s: float, needs_s: float) -> None:
        """A run begins."""
        self._busy_until_s = max(self._busy_until_s, self._stage.s + lasts_s)
        self._needs_s = needs_s
        self.active_s = self._busy_until_s

    # What is done to it.

    def reboot(self, down_s: float) -> None:
        self.act()
        if self.on_s is not None:
            self.world.reboot()
            self._boot(self._stage.s, self._stage.s + down_s)

    def crash_guard(self, away_s: float) -> None:
        if self._guarded:
            self._guarded, self._looks_s = 0, NEVER
            self._guards_s = self._stage.s + away_s if self.traits.comes_back else NEVER
            self.away.append((self._stage.s, self._stage.s + away_s))

    # What its agent does.

    def keep(self, call: Keep) -> Kept:
        disk, at = self.disk, self._look()
        before_s = 0.0
        if disk.keep is not None and disk.keep.session == call.session:
            before_s = disk.before_s
            if disk.beat is not None and disk.beat[0] == disk.asked:
                before_s += advance(disk.beat[1], at, was_stopped(disk.boots, disk.beat[1])).on_s
        disk.asked, disk.keep, disk.at, disk.before_s = next(self._asked), call, at, before_s
        disk.trouble = "" if call.how and self.traits.may_stop else "it has no right to"
        disk.fragile = "" if self.traits.comes_back else "neither systemd nor cron is there"
        self.asked_s, self.hidden_s = self._stage.s, 0.0
        was_kept = self.kept_by_guard.get(call.session, True)
        self.kept_by_guard[call.session] = was_kept and not (disk.trouble or disk.fragile)
        self._touch()
        self._guards_s = self._stage.s
        self._guarded = 0
        self.act()
        return self.kept()

    def let_go(self) -> None:
        self.disk.keep = self.disk.beat = None
        self.disk.boots = ()
        self._guarded, self._guards_s, self._looks_s = 0, NEVER, NEVER

    def kept(self) -> Kept:
        disk = self.disk
        if disk.keep is None:
            return Kept(stops=tuple(disk.stops))
        kept = Kept(disk.keep.session, on_s=disk.before_s, trouble=disk.trouble,
                    fragile=disk.fragile, stops=tuple(disk.stops))  # fmt: skip
        if disk.beat is None or disk.beat[0] != disk.asked:
            return kept
        _, counted, why, left_s = disk.beat
        return kept._replace(
            stops_at_s=None if left_s is None else counted.wall_s + left_s,
            why=why,
            idle_s=counted.idle_s,
            on_s=disk.before_s + counted.on_s,
            seen_s=counted.wall_s,
        )

    # How time goes on for it.

    def next_s(self) -> float:
        change = self.world.next_change
        change_s = NEVER if change is None else seconds_of(change)
        if self.on_s is None:
            return change_s
        return min(change_s, self._looks_s, self._guards_s)

    def act(self) -> None:
        is_on = self.world.state is State.RUNNING
        if is_on and (self.on_s is None or self.world.boots != self._boots):
            ordered, since = self.world.last(State.STARTING), self.world.last(State.RUNNING)
            assert since is not None
            self._boot(seconds_of(ordered or since), seconds_of(since))
        elif not is_on and self.on_s is not None:
            self.on_s, self._guarded = None, 0
            self._guards_s = self._looks_s = NEVER
        if not is_on:
            return
        if self._guards_s <= self._stage.s:
            self._guards_s = NEVER
            self._take_up()
        if self._looks_s <= self._stage.s:
            self._tick()

    @property
    def _boot_id(self) -> str:
        return f"boot-{self._boots}"

    def _boot(self, from_s: float, at_s: float) -> None:
        self.away.append((from_s, at_s + self.traits.boot_s + _GUARD_STARTS_S))
        self._boots, self._booted_s = self.world.boots, at_s
        self.on_s = at_s
        self._note_boot()
        self._busy_until_s = min(self._busy_until_s, self._stage.s)
        self._guarded, self._looks_s, self._guards_s = 0, NEVER, NEVER
        if self.disk.keep is not None and self.traits.comes_back:
            self._guards_s = at_s + self.traits.boot_s + _GUARD_STARTS_S

    def _note_boot(self) -> None:
        """Once of each boot that was guarded."""
        disk = self.disk
        if disk.beat is None or disk.beat[1].boot_id == disk.noted:
            return
        last = disk.beat[1]
        booted_s = last.wall_s - last.mono_s
        stopped = any(s.at_s >= booted_s and not s.trouble for s in disk.stops)
        disk.boots = (*disk.boots, Boot(last.wall_s, last.mono_s, stopped, last.boot_id))[-20:]
        disk.noted = last.boot_id

    def _told_boots(self) -> tuple[Boot, ...]:
        comes_back = self.disk.keep is not None and not self.disk.fragile
        return tuple(boot for boot in self.disk.boots if boot.stopped or comes_back)

    def _touch(self) -> None:
        self._is_touched = True
        self.active_s = max(self.active_s, self._stage.s)

    def _look(self) -> Look:
        mono_s = max(0.0, self._stage.s - self._booted_s)
        needs_s = self._needs_s if self.is_busy else 0.0
        active = self.is_busy or self._is_touched
        return Look(self._boot_id, mono_s, self.wall_s, active, needs_s)

    # The guard.

    def _take_up(self) -> None:
        disk = self.disk
        if disk.keep is None:
            return
        is_beaten = disk.beat is not None and disk.beat[0] == disk.asked
        self._count = disk.beat[1] if disk.beat is not None and is_beaten else begin(disk.at)
        self._guarded = disk.asked
        self._stopping, self._attempts, self._ask_s = None, 0, 0.0
        self._looks_s = self._stage.s

    def _tick(self) -> None:
        disk = self.disk
        assert disk.keep is not None
        assert self._count is not None
        limits = Limits(disk.keep.ends_in_s, disk.keep.paid_s, disk.keep.idle_s)
        look = self._look()
        self._is_touched = False
        before, self._count = (
            self._count,
            advance(self._count, look, was_stopped(disk.boots, self._count)),
        )
        ticked_s, offset_s = self._ticked
        if look.boot_id != before.boot_id and self.offset_s < offset_s:
            counted_s = self._count.passed_s - before.passed_s
            self.hidden_s += max(0.0, self._stage.s - ticked_s - counted_s)
        self._ticked = self._stage.s, self.offset_s
        decision = decide(limits, self._count, look)
        disk.beat = (disk.asked, self._count, decision.why, decision.left_s)
        self._looks_s = self._stage.s + min(TICK_S, decision.look_in_s)
        notice = self.world.notice
        if notice is not None:
            self._note(Stop(disk.keep.session, self.wall_s, _NOTICED))
        if decision.act is not Act.WAIT or notice is not None:
            self._busy_until_s = min(self._busy_until_s, self._stage.s + self._needs_s)
        if decision.act is Act.STOP:
            self._stop(disk.keep, decision.why)

    def _note(self, stop: Stop) -> None:
        if not any(known.why == _NOTICED == stop.why for known in self.disk.stops[-1:]):
            self.disk.stops.append(stop)

    def _stop(self, keep: Keep, why: str) -> None:
        if self._attempts and self._stage.s < self._ask_s:
            return
        if self._stopping is None:
            self._stopping = Stop(keep.session, self.wall_s, why)
            self.disk.stops.append(self._stopping)
        trouble = self._order(keep.how)
        if trouble:
            self.disk.stops[-1] = self._stopping = self._stopping._replace(trouble=trouble)
        self._ask_s = self._stage.s + min(_RETRY_S * 2**self._attempts, _LAST_RETRY_S)
        self._attempts = min(self._attempts + 1, 10)

    def _order(self, how: str) -> str:
        if not how or not self.traits.may_stop:
            return "it has no right to"
        try:
            if how == "poweroff":
                self.world.shut_down("its guard turned it off")
            else:
                self.world.stop()
        except (WrongState, NoRoom) as no:
            return str(no)
        return ""
