"""The main job on a pool: as `RoundTrip.train`, with each run on the host where it begins first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.costs.money import priced_runs
from orchestrator.errors import Interrupted, Refused
from orchestrator.grades.settling import Result
from orchestrator.plan import Order
from orchestrator.pools.host import Host
from orchestrator.pools.sending import no_other_gang
from orchestrator.pools.spread import PACE_S, Spread, few
from orchestrator.pools.work import Work
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.screen.tell import Silence
from orchestrator.settings.pool import Pool
from orchestrator.settings.spec import Job, Remote
from orchestrator.source.snapshot import take_snapshot
from orchestrator.vm.link import Link
from remote.runfolder import Ended, State, chief_id, worker_name


class PoolTrip:
    """Args:
    order: each of its runs is ordered on the host that gets it.
    check: given an order before anything of it is sent; raises where that may not be.
    """

    def __init__(
        self, trip: RoundTrip, pool: Pool, order: Order, check: Callable[[Order], None]
    ) -> None:
        self._trip = trip
        self._tell = trip.tell
        self._order = order
        self._spread = Spread(trip, pool, check)
        self._hosts, self._moving = self._spread.hosts, self._spread.moving
        self._works = [Work(replace(order, jobs=(job,))) for job in order.jobs]
        self._spread.works = self._works
        self._is_attached = False

    def train(self) -> Result:
        """Sync, place, queue, follow, pull, grade, promote.

        Raises:
            TrainshedError: as `RoundTrip.train`; where no host answers, with what each one said.
        """
        order, trip = self._order, self._trip
        for job in order.jobs:
            if job.nodes > 1 and job.restarts:
                trip.tell.warn(
                    f"{job.name} is to run on several hosts of a pool, and is not started again "
                    "after an interruption (restart)"
                )
        self._snapshot = take_snapshot(order.workspace, order.jobs, trip.tell)
        with self._at_work():
            self._resume()
            self._have_all_accepted()
            trip.keep_code(self._snapshot)
            if order.detach:
                self._moving.end_old()
                ids = {mirror.run_id for mirror in self._mirrors}
                return Result(self._mirrors, priced_runs(trip.ledger, ids))
            with trip.examining(self._mirrors):
                self._follow()
        return trip.settle(order.jobs, self._mirrors, best=order.best)

    def attach(self, runs: tuple[Mirror, ...]) -> None:
        """Follow those of the order's one job, wherever they are, and take them home."""
        self._works[0].runs = runs
        self._is_attached = True
        with self._at_work(), self._trip.examining(runs):
            while self._goes_on():
                time.sleep(PACE_S)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._hosts:
            try:
                yield
            except KeyboardInterrupt:
                raise self._detached() from None
            finally:
                self._spread.record(self._mirrors)

    @property
    def _mirrors(self) -> tuple[Mirror, ...]:
        return tuple(run for work in self._works for run in work.runs)

    def _resume(self) -> None:
        """Take up the runs of an interrupted command, as they stand by now."""
        with no_other_gang():
            # None that another command is just sending, and so has been torn only by its end.
            found = self._find_open()
        mirrors = [run for runs in found.values() for run in runs]
        met = self._hosts.rooms(list(self._hosts))
        for name in met:
            self._take_up(self._hosts[name], mirrors)
        # As after any interruption: one that was lost meanwhile is begun anew.
        found = self._find_open()
        for work in self._works:
            work.runs = found.get(work.job.name, ())

    def _take_up(self, host: Host, mirrors: Sequence[Mirror]) -> None:
        moved = [mirror for mirror in self._moving.old if self._hosts.of(mirror) is host]
        known = [m for m in mirrors if self._hosts.of(m) is host and m.was_heard_of]

        def look(link: Link) -> None:
            host.end_over(link, moved)
            self._trip.look(link, known, Silence())

        if moved or known:
            self._hosts.try_at(host, look)

    def _find_open(self) -> dict[str, tuple[Mirror, ...]]:
        orders = [replace(self._order, remote=host.remote) for host in self._hosts]
        found = self._trip.planning.find_open(orders, self._snapshot)
        return {job: self._trip.mirrors.gang(mirror) for job, mirror in found.items()}

    def _have_all_accepted(self) -> None:
        """So that the laptop may be closed."""
        while True:
            self._spread.place(self._snapshot)
            self._spread.send(self._snapshot)
            if all(work.is_accepted for work in self._works) and not self._spread.homeless():
                return
            if not self._mirrors or not self._hosts.open:
                raise self._hosts.nobody()
            self._watch()
            self._spread.check_hope(self._mirrors)
            self._moving.settle_old()
            time.sleep(PACE_S)

    def _follow(self) -> None:
        """Until all work is home."""
        self._spread.is_under_way = True
        while self._goes_on():
            self._spread.go_on(self._snapshot)
            time.sleep(PACE_S)

    def _goes_on(self) -> bool:
        """Take home what has ended; whether there is more."""
        self._watch()
        self._bring_home()
        self._leave_unheard()
        self._moving.settle_old()
        homeless = self._spread.homeless() if self._is_attached else {}
        if homeless:
            self._check_ends(*homeless.popitem())
        else:
            open_works = self._spread.open
            runs = [run for work in open_works for run in work.runs if run not in work.home]
            self._spread.check_hope(runs)
        return bool(self._spread.open)

    def _check_ends(self, work: Work, why: str) -> None:
        """Attached to, work that has no host any more is given none.

        Args:
            why: it has none, as far as its hosts have told by now.

        Raises:
            Refused: it will never end.
        """
        hosts = map(self._hosts.of, work.runs)
        if all(host.answers or host.is_dead for host in hosts):
            raise Refused(
                f"{work.chief.run_id} does not go on: {why}",
                fix="the command that began it begins it anew on the pool\n"
                f"train pull\ntrain cancel {work.chief.run_id}",
            )

    def _watch(self) -> None:
        """Have what goes on followed, and tell what came of it."""
        for work in self._spread.open:
            work.tell_log(self._tell)
            self._end_fallen(work)
        self._spread.follow(run for work in self._spread.open for run in work.runs)
        words = [mirror.verdict for mirror in self._mirrors]
        self._tell.doing(", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)))

    def _end_fallen(self, work: Work) -> None:
        """None of a gang goes on without the others."""
        if not work.is_gang or not work.is_accepted or self._moving.why(work):
            return
        going = [(rank, run) for rank, run in enumerate(work.runs) if not run.ended]
        dead = [rank for rank, run in going if self._hosts.of(run).is_dead]
        fallen = work.fallen
        if fallen is None and dead:
            fallen = Ended(f"the host of {worker_name(dead[0])}", State.FAILED)
            if len(dead) < len(going):
                self._hosts.say_once(f"{work.chief.run_id} is ended: {fallen.who} does not answer")
        if fallen is not None:
            for _, run in going:
                self._hosts.of(run).end_for(run, fallen)

    def _bring_home(self) -> None:
        for work in self._spread.open:
            if not work.runs or self._moving.why(work):
                continue
            for run in set(work.runs) - work.home:
                if run.ended and self._is_brought(work, run):
                    work.home.add(run)

    def _leave_unheard(self) -> None:
        """Wait no longer for a worker on a dead host when what its chief made is home: nothing that
        it did can change that.
        """
        for work in self._spread.open:
            if (
                work.is_gang
                and work.chief in work.home
                and work.chief.verdict == State.SUCCEEDED.value
            ):
                for run in set(work.runs) - work.home:
                    host = self._hosts.of(run)
                    if host.is_dead:
                        work.home.add(run)
                        self._tell.warn(
                            f"{run.run_id} was {run.verdict} when {host.name} last answered, and "
                            f"is not waited for: what {work.chief.run_id} made is here"
                        )

    def _is_brought(self, work: Work, run: Mirror) -> bool:
        def fetch(link: Link) -> None:
            # The end may have come before the last of the log.
            self._trip.look(link, [run], Silence())
            work.tell_log(self._tell)
            self._tell.log_ends(run.request.label)
            self._trip.take_home(link, run)

        if self._hosts.have_fetched(run, fetch):
            return True
        return self._hosts.of(run).is_dead and self._trip.is_home(run)

    def _detached(self) -> Interrupted:
        """What goes on, and what nobody sees to meanwhile."""
        going = [mirror.run_id for mirror in self._mirrors if mirror.goes_on]
        ids = list(dict.fromkeys(map(chief_id, going)))
        waiting = [work.name for work in self._spread.open if not work.is_accepted]
        if not ids and waiting:
            return Interrupted("interrupted; the same command goes on from there")
        if not ids:
            return Interrupted("interrupted; the runs have ended", fix="train pull")
        not_yet = f"; no host is known to have {few(waiting)}" if waiting else ""
        return Interrupted(
            f"detached; goes on, each on the host it has: {few(ids)}{not_yet}; the same command "
            "follows all of them again",
            fix=f"train status\ntrain attach {ids[0]}\ntrain cancel {ids[0]}",
        )


def follow_gang(trip: RoundTrip, runs: tuple[Mirror, ...], remotes: Sequence[Remote]) -> None:
    """Until all have ended and are home; when one fails, the others are ended.

    Args:
        remotes: where each of them is.

    Raises:
        Interrupted: the user pressed Ctrl-C; the runs go on.
    """
    request = runs[0].request
    job = Job(request.job, request.command, request.outputs, nodes=len(runs))
    order = Order(trip.workspace, (job,), remotes[0])
    PoolTrip(trip, Pool("", tuple(remotes)), order, lambda order: None).attach(runs)
