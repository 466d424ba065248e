"""The hosts of a pool, as the config has them by now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Self

from orchestrator.errors import (
    ConnectError,
    ConnectionLost,
    Forbidden,
    Refused,
    TrainshedError,
    UsageError,
)
from orchestrator.pools.host import Host
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.settings.config import find_pool, find_remote, load_workspace
from orchestrator.settings.pool import Pool
from orchestrator.vm.link import Link
from remote.protocol import Done, Room

# How often the config is read anew.
_CONFIG_S = 5.0
# A login takes as long as ten round trips, nvidia-smi a second or two.
_WAIT_S = 15.0


class Hosts:
    """Attributes:
    by_name: all that are or were members since the command began.
    """

    def __init__(self, pool: Pool, trip: RoundTrip) -> None:
        self._name = pool.name
        self._trip = trip
        self._said: set[str] = set()
        self._troubles: dict[str, str] = {}
        self._late: dict[str, Future[Room]] = {}
        self._read_s = time.monotonic()
        self.by_name: dict[str, Host] = {}
        self._take(pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        return self.by_name[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.by_name.values())

    def of(self, mirror: Mirror) -> Host:
        """On which a run is."""
        name = self._trip.ledger.remote_of(mirror.run_id)
        if name not in self.by_name:
            # Another command has read the list before us, and moved it there.
            remote = find_remote(load_workspace(self._trip.workspace.root), name)
            self.by_name[name] = Host(remote, self._trip)
        return self.by_name[name]

    @property
    def open(self) -> list[Host]:
        """Those that take runs."""
        return [host for host in self if host.takes_runs]

    def try_at(self, host: Host, do: Callable[[Link], object]) -> bool:
        """Do over its line what the next look or the next command finds to be done again; whether
        it was done. That the host refuses is told.
        """
        try:
            with host.line() as link:
                do(link)
        except (ConnectError, ConnectionLost):
            return False
        except Refused as no:
            self.say_once(str(no))
            return False
        return True

    def try_call(self, host: Host, request: object) -> bool:
        """The same of a request that is answered with `Done`."""
        return self.try_at(host, lambda link: link.call(request, Done))

    def have_fetched(self, run: Mirror, fetch: Callable[[Link], object]) -> bool:
        """Over the line of the run's host; whether it is done, or refused for good, so that nobody
        needs to try again.
        """
        host = self.of(run)
        if not host.answers:
            return False
        try:
            with host.line() as link:
                fetch(link)
        except (ConnectError, ConnectionLost):
            return False
        except Refused as no:
            self._trip.leave_away(run, no)
        return True

    def close(self) -> None:
        for host in self:
            host.close()

    def read_config(self) -> None:
        """Hosts may have been added, drained or taken away; a config that is wrong just now changes
        nothing.
        """
        if time.monotonic() < self._read_s + _CONFIG_S:
            return
        self._read_s = time.monotonic()
        with suppress(TrainshedError):
            pool = find_pool(load_workspace(self._trip.workspace.root), self._name)
            if pool is not None:
                self._take(pool)

    def rooms(self, hosts: list[Host]) -> dict[str, Room]:
        """What those say that answer in time, all asked at once; why others do not is told once.

        One that did not answer the last time is asked, and not waited for.
        """
        for name, answer in tuple(self._late.items()):
            if answer.done():
                del self._late[name]
                if answer.exception() is None:
                    self._troubles.pop(name, None)
        asked = {host.name: host.ask_room() for host in hosts if host.is_ready}
        wait([asked[name] for name in asked if name not in self._troubles], timeout=_WAIT_S)
        found = {}
        for name, answer in asked.items():
            try:
                if answer.done():
                    found[name] = answer.result()
                    self._troubles.pop(name, None)
                    continue
                self._late[name] = answer
                trouble = f"no answer in {_WAIT_S:g} s"
            except TrainshedError as error:
                trouble = str(error)
            if self._troubles.setdefault(name, trouble) == trouble:
                self.say_once(f"{name} is left out: {trouble}")
        return found

    def nobody(self) -> TrainshedError:
        """What to say where none takes runs."""
        troubles = {name: self._troubles.get(name, "no answer") for name in self.by_name}
        troubles |= {h.name: str(h.refusal) for h in self if h.refusal}
        troubles |= {host.name: "drained" for host in self if not host.is_open}
        refusals = [host.refusal for host in self]
        kinds = (Refused, Forbidden, UsageError)
        kind = next((k for k in kinds if any(isinstance(no, k) for no in refusals)), ConnectError)
        undo = f"train remote drain {self._name} HOST --undo"
        is_drained = not any(host.is_open for host in self)
        return kind(
            f"no host of {self._name} takes these runs",
            cause="; ".join(f"{name}: {trouble}" for name, trouble in troubles.items()),
            fix=undo if is_drained else f"train doctor {self._name}",
        )

    def say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._trip.tell.warn(text)

    def _take(self, pool: Pool) -> None:
        members = {member.name: member for member in pool.members}
        known = set(self.by_name)
        for name, remote in members.items():
            if name not in known:
                self.by_name[name] = Host(remote, self._trip)
            self.by_name[name].remote = remote
        for name, host in self.by_name.items():
            is_open = name in members and name not in pool.drained
            if host.is_open and not is_open and name in known:
                self._trip.tell.step(f"{name} takes no runs any more; what has begun there goes on")
            host.is_open = is_open
