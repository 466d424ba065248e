"""The work of one command, spread over a pool: each on the host where it begins first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from orchestrator.errors import ConnectionLost, Forbidden, Refused
from orchestrator.plan import Order
from orchestrator.pools.host import Host
from orchestrator.pools.hosts import Hosts
from orchestrator.pools.moving import Moving
from orchestrator.pools.placing import Want, place
from orchestrator.pools.sending import Sending, no_other_gang
from orchestrator.pools.work import Work
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.settings.pool import Pool
from orchestrator.settings.spec import Job
from orchestrator.source.snapshot import Snapshot
from remote.protocol import Room

# Between two looks at what the feeds have brought.
PACE_S = 0.5
# How often hosts with nothing to do are asked for their room: it may cost them an nvidia-smi.
_STEAL_S = 2.0
# How long runs are waited for of which only hosts know that do not answer.
_LIMIT_S = 600.0
_FEW = 5


class Spread:
    """Args:
        check: given an order before anything of it is sent; raises where that may not be.

    Attributes:
        works: what is to be done; what is home of it is passed over.
        is_under_way: whether work that fits on no host is told and waits; else it is refused.
    """

    def __init__(self, trip: RoundTrip, pool: Pool, check: Callable[[Order], object]) -> None:
        self._trip = trip
        self._tell = trip.tell
        self._pool = pool
        self._check = check
        self._steal_s = 0.0
        self._went_on_s = float("-inf")
        self.hosts = Hosts(pool, trip)
        self.sending = Sending(trip, self.hosts)
        self.moving = Moving(trip, self.hosts)
        self.works: list[Work] = []
        self.is_under_way = False

    @property
    def open(self) -> list[Work]:
        return [work for work in self.works if not work.is_home]

    @property
    def is_shut(self) -> bool:
        """Whether no host takes runs, nor will one when it answers again."""
        return all(not host.is_open or host.refusal for host in self.hosts)

    def homeless(self) -> dict[Work, str]:
        """Work that has no host, or not any more, and why."""
        found = {}
        for work in self.open:
            if why := self.moving.why(work) if work.runs else "new":
                found[work] = why
        return found

    def follow(self, runs: Iterable[Mirror]) -> None:
        """Keep these fresh, and what was moved, and no others."""
        followed: dict[Host, list[Mirror]] = {host: [] for host in self.hosts}
        for mirror in (*runs, *self.moving.old):
            followed.setdefault(self.hosts.of(mirror), []).append(mirror)
        for host, mirrors in followed.items():
            host.follow(mirrors)

    def record(self, runs: Iterable[Mirror]) -> None:
        """In the ledger, what became of these, and of what was moved."""
        for mirror in (*runs, *self.moving.old):
            self._trip.record_events(mirror)

    def go_on(self, snapshot: Snapshot) -> None:
        """Once more: as the config has the hosts by now, have all sent to where it begins first."""
        self.hosts.read_config()
        if time.monotonic() >= self._steal_s:
            self._steal_s = time.monotonic() + _STEAL_S
            waiting = [work for work in self.open if work.runs and work.waits]
            self.moving.ask_back(waiting, {work: work.gpus for work in waiting})
        self.place(snapshot)
        self.send(snapshot)

    def send(self, snapshot: Snapshot) -> None:
        """Whatever has a host that has not accepted it yet. A gang is sent where it is placed."""
        chiefs = [work.chief for work in self.open if work.runs and not work.is_gang]
        self.sending.send(snapshot, chiefs)

    def place(self, snapshot: Snapshot) -> None:
        """Raises:
        Refused: for one there are too few hosts, or too small ones, and it is not under way yet.
        Forbidden: on no host may it be run, and nothing is under way yet.
        """
        homeless = self.homeless()
        rooms = self.hosts.rooms(self.hosts.open) if homeless else {}
        while rooms:
            chosen = self._choose(homeless, rooms)
            refused = self._refused(chosen)
            rooms = {name: room for name, room in rooms.items() if name not in refused}
            if not refused:
                self._give(snapshot, chosen, homeless)
                return
            if not rooms and not self.is_under_way:
                raise next(iter(refused.values()))

    def _choose(
        self, homeless: Iterable[Work], rooms: Mapping[str, Room]
    ) -> dict[Work, tuple[str, ...]]:
        """The hosts' names for each; none for what is under way and fits on none."""
        wanted = [Want(work.gpus, work.job.nodes) for work in homeless]
        chosen = dict(zip(homeless, place(wanted, rooms), strict=True))
        for work, names in chosen.items():
            if names:
                continue
            if work.is_accepted or self.is_under_way:
                self.hosts.say_once(str(self._too_large(work)))
            else:
                self.sending.withdraw(work.runs)
                raise self._too_large(work)
        return chosen

    def _refused(self, chosen: Mapping[Work, tuple[str, ...]]) -> dict[str, Forbidden]:
        """The hosts whose budget does not allow what they were chosen for. The others' does."""
        refused: dict[str, Forbidden] = {}
        for name in dict.fromkeys(name for names in chosen.values() for name in names):
            host = self.hosts[name]
            no = self.forbids(host, [work for work, names in chosen.items() if name in names])
            if no is not None:
                refused[name] = host.refusal = no
                self.hosts.say_once(f"{name} gets no more runs: {no}")
        return refused

    def forbids(self, host: Host, works: Sequence[Work]) -> Forbidden | None:
        """Why these may not be run there, beside what goes on there."""
        # Each host of a gang has one of its runs.
        jobs = tuple(replace(work.job, nodes=1) for work in works)
        try:
            self._check(
                replace(works[0].order, remote=host.remote, jobs=(*jobs, *self._jobs_on(host)))
            )
        except Forbidden as no:
            return no
        return None

    def _jobs_on(self, host: Host) -> tuple[Job, ...]:
        return tuple(
            replace(work.job, nodes=1)
            for work in self.works
            for run in work.runs
            if not run.ended and self.hosts.of(run) is host
        )

    def _give(
        self,
        snapshot: Snapshot,
        chosen: Mapping[Work, tuple[str, ...]],
        homeless: Mapping[Work, str],
    ) -> None:
        for name in dict.fromkeys(name for names in chosen.values() for name in names):
            works = [work.name for work, names in chosen.items() if name in names]
            self._tell.step(f"{name} takes {few(works)}")
        for work, names in chosen.items():
            if names:
                hosts = [self.hosts[name] for name in names]
                with no_other_gang() if work.is_gang else nullcontext():
                    self.moving.give(work, hosts, snapshot, homeless[work])
                    self.sending.send(snapshot, work.runs if work.is_gang else ())

    def _too_large(self, work: Work) -> Refused:
        gpus, nodes = work.gpus, work.job.nodes
        if work.is_gang:
            has = f"{self._pool.name} has fewer that answer and are large enough ({gpus} GPUs)"
            what, fix = f"is to run on {nodes} hosts at once, and {has}", "--nodes with fewer"
        else:
            has = f"no host of {self._pool.name} that answers has so many"
            what, fix = f"wants {gpus} GPUs, and {has}", "--gpus with fewer"
        return Refused(
            f"{work.job.name} {what}",
            code="no-gpu",
            fix=f"{fix}, or see: train doctor {self._pool.name}",
        )

    def check_hope(self, runs: Sequence[Mirror]) -> None:
        """Args:
            runs: those that are waited for.

        Raises:
            ConnectionLost: their hosts have not answered for long.
            TrainshedError: no host takes what has none, and nothing else goes on.
        """
        homeless = self.homeless()
        if homeless and self.is_shut and len(homeless) == len(self.open):
            raise self.hosts.nobody()
        lost = {run for work in homeless for run in work.runs}
        if any(run not in lost for run in runs):
            self._went_on_s = time.monotonic()
        elif homeless and time.monotonic() >= self._went_on_s + _LIMIT_S:
            raise self.hosts.nobody()
        hosts = [self.hosts.of(run) for run in runs]
        if hosts and all(host.silent_s >= _LIMIT_S for host in hosts):
            names = few([run.run_id for run in runs])
            raise ConnectionLost(
                f"their hosts have not answered for {_LIMIT_S / 60:g} minutes: {names}",
                cause=", ".join(dict.fromkeys(host.name for host in hosts)),
                fix="the same command again goes on with them; one whose host is gone: "
                "train cancel RUN --forget",
            )


def few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
