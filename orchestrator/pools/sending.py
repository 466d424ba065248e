"""How runs get to the hosts of a pool, and how what only some of a gang's hosts took is ended."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial

from orchestrator.errors import ConnectError, ConnectionLost, Refused, UsageError
from orchestrator.filelock import alone
from orchestrator.pools.host import Host
from orchestrator.pools.hosts import Hosts
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.screen.tell import Named
from orchestrator.settings.home import data_folder
from orchestrator.source.snapshot import Snapshot
from orchestrator.vm.link import Link
from orchestrator.vm.sync import submit


def no_other_gang() -> AbstractContextManager[None]:
    """For a block that sends one to all of its hosts. No other one of this laptop comes in between:
    so each of two that share hosts is behind the same one everywhere, and they do not wait for each
    other.
    """
    return alone(data_folder() / "gangs")


class Sending:
    """What one command sends."""

    def __init__(self, trip: RoundTrip, hosts: Hosts) -> None:
        self._trip = trip
        self._hosts = hosts

    def send(self, snapshot: Snapshot, mirrors: Sequence[Mirror]) -> None:
        """Submit those that no host has accepted yet, to all hosts side by side. What did not get
        there is told, and known by its mirror.
        """
        waiting: dict[Host, list[Mirror]] = {}
        for mirror in mirrors:
            if not mirror.was_heard_of:
                waiting.setdefault(self._hosts.of(mirror), []).append(mirror)
        sent = [
            (host, mine, self._submit(host, snapshot, mine))
            for host, mine in waiting.items()
            if host.is_ready and host.refusal is None and not host.is_silent
        ]
        for host, mine, answer in sent:
            try:
                self._trip.record_sent(mine, answer.result)
            except (ConnectError, ConnectionLost) as lost:
                self._hosts.say_once(f"{host.name} did not take its runs: {lost}")
            except (Refused, UsageError) as no:
                host.refusal = no
                self._hosts.say_once(f"{host.name} takes none of these runs: {no}")

    def withdraw(self, runs: Sequence[Mirror]) -> None:
        """Have these ended, as far as their hosts answer."""
        for run in runs:
            host = self._hosts.of(run)
            if host.is_ready and self._hosts.try_at(host, partial(host.take_back, mirror=run)):
                run.settle()

    def _submit(self, host: Host, snapshot: Snapshot, mirrors: list[Mirror]) -> Future[Link]:
        requests = tuple(mirror.request for mirror in mirrors)

        def send(link: Link) -> Link:
            submit(link, snapshot, requests, Named(self._trip.tell, host.name))
            return link

        return host.ask(send)
