"""Which runs are moved, and how: a run belongs to one host for all its life, and what moves is its
work. Another run, with an id of its own, does it on another host.

1. The old run's folder gets the new one's id.
2. The new run is made, and recorded, as every run is before it is sent.
3. It is submitted.
4. The old run is settled, once it is known to have ended.

A host that answers gives back only what waits there: the run's supervisor alone decides whether it
has begun or is given back, and the new run is made when that end was seen. What a dead host had is
ended there when it answers again, before anything else is asked of it.

A gang is moved as a whole: where not all of its hosts took it, or where it cannot begin and none of
it has begun.

After a kill of this command between any two steps, the next one with the same work goes on:

    before 1    a run that was given back and has no successor: its work is placed anew
    before 2    the same: a successor that was never made is none
    before 3    the new run is one that no host has heard of, and is submitted
    before 4    a run with a successor is passed over, and settled when its end is known

Two commands that follow the same runs make one successor: steps 1 and 2 are done under the lock of
planning, and who comes second takes the one there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from orchestrator.errors import ConnectError, ConnectionLost, Refused
from orchestrator.pools.host import Host
from orchestrator.pools.hosts import Hosts
from orchestrator.pools.placing import begins_at_once, fits, taken
from orchestrator.pools.work import Work
from orchestrator.records.mirror import LOST, Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.source.snapshot import Snapshot
from remote.protocol import GiveBack

# So many runs of one job may leave a host within a command.
_MOST = 3


class Moving:
    """Attributes:
    old: runs that were moved and are not known to have ended.
    """

    def __init__(self, trip: RoundTrip, hosts: Hosts) -> None:
        self._trip = trip
        self._hosts = hosts
        self._gone_from: dict[tuple[Host, str], set[Mirror | str]] = {}
        self._asked_back: set[Mirror] = set()
        self.old = [
            mirror
            for mirror in trip.mirrors.unsettled()
            if mirror.successor is not None
            and trip.ledger.remote_of(mirror.run_id) in hosts.by_name
        ]

    def why(self, work: Work) -> str:
        """Why it is to be done elsewhere; empty where it is not."""
        if not work.is_gang:
            return self.why_of(work.chief)
        if work.chief.successor is not None:
            return "another command saw to that"
        if not work.is_accepted:
            return "not all of its hosts took it"
        if any(run.has_begun for run in work.runs):
            return ""
        return next(filter(None, map(self.why_of, work.runs)), "")

    def why_of(self, mirror: Mirror) -> str:
        """The same of a run without a gang."""
        host = self._hosts.of(mirror)
        if mirror.is_given_back:
            why = f"{host.name} gave it back"
            return why if mirror in self._asked_back else self._gone(mirror, host, why)
        if mirror.verdict == LOST and not mirror.has_begun:
            return self._gone(mirror, host, f"{host.name} lost it before it began")
        if mirror.ended:
            return ""
        if host.refusal is not None and not mirror.was_heard_of:
            return str(host.refusal)
        if not host.is_dead:
            return ""
        if mirror.restarts_left >= 0:
            return f"{host.name} does not answer"
        self._hosts.say_once(
            f"{mirror.run_id} has begun on {host.name}, which does not answer; its job may not be "
            "started again (restart), so it stays there"
        )
        return ""

    def _gone(self, mirror: Mirror, host: Host, why: str) -> str:
        """A host that lets go of all it gets would get the next one, for ever. What one reboot
        took is one loss, however many waited.
        """
        job = mirror.request.job
        gone = self._gone_from.setdefault((host, job), set())
        gone.add(mirror.rebooted_to or mirror)
        if len(gone) >= _MOST and host.refusal is None:
            host.refusal = Refused(f"{len(gone)} runs of {job} left it: {why}")
            self._hosts.say_once(f"{host.name} gets no more runs: {host.refusal}")
        return why

    def give(self, work: Work, hosts: Sequence[Host], snapshot: Snapshot, why: str) -> None:
        """Have the work done by new runs, one on each of these hosts."""
        orders = [replace(work.order, remote=host.remote) for host in hosts]
        others = [replace(work.order, remote=o.remote) for o in self._hosts if o not in hosts]
        old = work.runs
        if work.run_id and not old:
            work.move((self._trip.plan_named(orders[0], snapshot, work.run_id),))
            return
        addresses = [host.address for host in hosts] if work.is_gang else []
        work.move(
            self._trip.planning.make_once(
                orders, others, snapshot, addresses=addresses, instead=old
            )
        )
        if not old:
            return
        self.old += old
        for run in old:
            self._trip.tell.log_ends(run.request.label)
        say = self._trip.tell.step if old[0].is_given_back else self._trip.tell.warn
        on = ", ".join(self._hosts.of(run).name for run in work.runs)
        say(f"{old[0].run_id} goes on as {work.chief.run_id} on {on}: {why}")

    def ask_back(self, works: list[Work], gpus: dict[Work, int]) -> None:
        """For hosts that have nothing to do; and from those that are to take no runs, if another
        that answers is large enough.

        Args:
            works: those that wait.
        """
        places = {work: self._hosts.of(work.chief) for work in reversed(works)}
        queues = Counter(places.values())
        is_drained = any(not host.is_open for host in queues)
        asked = [host for host in self._hosts.open if is_drained or host not in queues]
        rooms = self._hosts.rooms(asked) if works else {}
        idle = {name: room for name, room in rooms.items() if self._hosts[name] not in queues}
        # The last of the longest queue waits longest.
        for work, host in sorted(places.items(), key=lambda place: -queues[place[1]]):
            need = gpus[work]
            to = next((name for name, room in idle.items() if begins_at_once(need, room)), None)
            if to is not None:
                idle[to] = taken(need, idle[to])
            is_drained = not host.is_open and any(fits(need, room) for room in rooms.values())
            is_wanted = host.answers and (to is not None or is_drained)
            if is_wanted and self._hosts.try_call(host, GiveBack(work.chief.run_id)):
                work.is_asked_back = True
                self._asked_back.add(work.chief)

    def end_old(self) -> None:
        """Before the command leaves: what goes on elsewhere is ended wherever the host answers, and
        does not keep its GPU until the next command.
        """
        for mirror in self.old:
            host = self._hosts.of(mirror)
            if host.is_ready:
                self._hosts.try_at(host, partial(host.end_over, mirrors=[mirror]))

    def settle_old(self) -> None:
        """Take leave of those of which the end is known; what they made comes home like any."""
        for mirror in tuple(self.old):
            host = self._hosts.of(mirror)
            if mirror.ended:
                if mirror.is_given_back or mirror.verdict == LOST:
                    self._trip.record_events(mirror)
                elif host.answers:
                    try:
                        with host.line() as link:
                            self._trip.take_home(link, mirror)
                    except (ConnectError, ConnectionLost):
                        continue
                    except Refused as no:
                        self._trip.leave_away(mirror, no)
                        self.old.remove(mirror)
                        continue
                else:
                    continue
            elif not host.knows_nothing_of(mirror):
                continue
            mirror.settle()
            self.old.remove(mirror)
