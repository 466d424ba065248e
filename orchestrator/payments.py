"""One remote's machine and money: what is seen of it is kept, and turned into what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from orchestrator.account import Account, stints
from orchestrator.billing import Moment, Sight, length
from orchestrator.errors import CloudError
from orchestrator.ledger import Ledger
from orchestrator.lifecycle import Clock
from orchestrator.power import Machine, Power, Provenance, Provider, Quote, Tariff
from orchestrator.pricetable import freshest_quote
from orchestrator.provider import open_provider
from orchestrator.spec import Remote
from orchestrator.tell import Teller
from remote.protocol import Hello, Kept

# A machine of the user's own, by no cloud's rules: what it is on is what it costs.
PLAIN = Tariff(0.0, 1.0, frozenset({Power.STARTING, Power.RUNNING, Power.STOPPING}))

# A guard counts time over a reboot as on, for 300 s at most; it may have been off.
_COUNTS_OFF_S = 330.0


class Payments:
    """Attributes:
    provider: None where nothing is said of the machine's cloud; then only what lies in a
        session is counted.
    """

    def __init__(
        self, ledger: Ledger, remote: Remote, tell: Teller, clock: Clock | None = None
    ) -> None:
        provider = open_provider(remote)
        if remote.cloud is not None and remote.cloud.provider == "none":
            provider = None
        self.remote = remote
        self.provider: Provider | None = provider
        self._ledger = ledger
        self._tell = tell
        self._now = (clock or Clock()).now
        self._machine: Machine | None = None
        self._account = Account(ledger, remote, provider.tariff if provider else PLAIN)

    def by_cloud(self, machine: Machine, at: datetime) -> None:
        """Keep what the cloud said."""
        self._machine = machine
        stopped = Moment(machine.stopped_at, Provenance.CLOUD) if machine.stopped_at else None
        sight = Sight(
            at,
            machine.power,
            Provenance.CLOUD,
            since=machine.since,
            started_at=machine.started_at,
            went_off_at=stopped,
            reason=machine.reason,
        )
        self._account.see(sight, self.quote)

    @property
    def is_spot(self) -> bool:
        """Whether the machine may be taken away, as far as its cloud was asked."""
        return self._machine is not None and self._machine.spot

    def by_login(self, hello: Hello, clock_off_s: float, kept: Kept | None = None) -> None:
        """Keep that it answered, with what it and its guard know of its boots."""
        now = self._now()

        def here(at_s: float) -> datetime:
            return min(now, datetime.fromtimestamp(at_s - clock_off_s, UTC))

        booted_at = now - timedelta(seconds=hello.up_s) if hello.up_s else None
        offs, last = self._signs(hello, kept, here)
        sight = Sight(
            now,
            Power.RUNNING,
            Provenance.VM,
            started_at=booted_at,
            went_off_at=last,
            offs=offs,
            boot=hello.boot_id,
        )
        self._account.see(sight, self.quote)

    def _signs(
        self, hello: Hello, kept: Kept | None, here: Callable[[float], datetime]
    ) -> tuple[tuple[Moment, ...], Moment | None]:
        """When its guard turned it off, and its last sign of life before this boot."""
        booted_s = hello.clock_s - hello.up_s
        stops = sorted(stop.at_s for stop in kept.stops if not stop.trouble) if kept else []
        signs = [hello.last_sign_s, kept.seen_s if kept else None, *stops]
        before = [sign for sign in signs if sign is not None and sign < booted_s]
        if not before:
            return (), None
        last = here(max(before))
        if kept is not None:
            on_s = kept.on_s - hello.up_s - _COUNTS_OFF_S
            if self._counted_s(kept.session, last) < on_s:
                # Its clock was set since then; by how much, nobody knows.
                return (), None
        offs = tuple(Moment(here(stop), Provenance.VM) for stop in stops if stop < booted_s)
        return offs, Moment(last, Provenance.VM)

    def _counted_s(self, session_id: str, until: datetime) -> float:
        """For how long the machine was on in a session until then, as far as it is counted here."""
        session = next(
            (s for s in self._ledger.sessions(self.remote.name) if s.id == session_id), None
        )
        if session is None:
            return math.inf
        counted = stints(self._ledger, self.remote.name, self._now())
        spans = [
            (max(stint.started_at, session.started_at), min(stint.ended_at, until))
            for stint in counted
        ]
        return length((start, end) for start, end in spans if start < end).total_seconds()

    def open_here(self, at: datetime) -> None:
        """Count from now on, for a machine whose cloud nobody asks: a session begins."""
        self._account.open(Moment(at, Provenance.VM), self.quote)

    def close(self, at: datetime, source: Provenance, reason: str) -> None:
        self._account.close(Moment(at, source, reason))

    def quote(self) -> Quote | None:
        """The price from now on: the user's, else the cloud's, else the table's; else None."""
        return self._quoted(self.provider.quote if self.provider else None)

    def asked_quote(self) -> Quote | None:
        """What the cloud, else the table says now, whatever the user said.

        Raises:
            CloudError: it could not be asked.
        """
        assert self.provider is not None
        self.by_cloud(self.provider.describe(), self._now())
        provider = self.remote.cloud.provider if self.remote.cloud else ""
        return freshest_quote(None, provider, self._machine, self.provider.quote)

    def known_quote(self) -> Quote | None:
        """Likewise, without asking the cloud."""
        return self._quoted(None)

    def _quoted(self, ask: Callable[[], Quote | None] | None) -> Quote | None:
        remote = self.remote
        provider = remote.cloud.provider if remote.cloud else ""
        try:
            return freshest_quote(remote.price, provider, self._machine, ask)
        except CloudError as error:
            self._tell.warn(f"the price of {remote.name} could not be asked: {error}")
            return freshest_quote(remote.price, provider, self._machine)
