"""One remote's machine and money: what is seen of it is kept, and turned into what it costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from orchestrator.clouds.lifecycle import Clock
from orchestrator.clouds.power import Machine, Power, Provenance, Provider, Quote, Tariff
from orchestrator.clouds.pricetable import freshest_quote, has_prices
from orchestrator.clouds.provider import open_provider
from orchestrator.costs.account import Account
from orchestrator.costs.billing import Boot, Moment, Sight
from orchestrator.errors import CloudError
from orchestrator.records.ledger import Ledger
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Remote
from remote.protocol import Hello

# A machine of the user's own, by no cloud's rules: what it is on is what it costs.
PLAIN = Tariff(
    0.0, 1.0, frozenset({Power.STARTING, Power.RUNNING, Power.STOPPING}), counts_all=False
)


class Payments:
    """Attributes:
    provider: None where nothing is said of the machine's cloud; then only what lies in a
        session is counted.
    """

    def __init__(
        self, ledger: Ledger, remote: Remote, tell: Teller, clock: Clock | None = None
    ) -> None:
        provider = open_provider(remote)
        if not remote.is_rented:
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
        self._see(sight)

    @property
    def is_spot(self) -> bool:
        """Whether the machine may be taken away, as far as its cloud was asked."""
        return self._machine is not None and self._machine.spot

    def by_login(self, hello: Hello, clock_off_s: float) -> None:
        """Keep that it answered, with what it and its guard know of its boots."""
        now = self._now()

        def here(at_s: float) -> datetime:
            return datetime.fromtimestamp(at_s - clock_off_s, UTC)

        sight = Sight(
            now,
            Power.RUNNING,
            Provenance.VM,
            started_at=now - timedelta(seconds=hello.up_s) if hello.up_s else None,
            boots=tuple(
                Boot(here(boot.last_s - boot.up_s), here(boot.last_s), boot.stopped, boot.id)
                for boot in hello.boots
            ),
            boot=hello.boot_id,
        )
        self._see(sight)

    def open_here(self, at: datetime) -> None:
        """Count from now on, for a machine whose cloud nobody asks: a session begins."""
        self._see(Sight(at, Power.RUNNING, Provenance.VM, since=at))

    def _see(self, sight: Sight) -> None:
        self._account.see(sight, self.quote)
        # The user may have said it since, and budgets are to bind from then on.
        if self._account.is_unpriced and (quote := self.known_quote()) is not None:
            self._account.price(sight.at, quote)

    def close(self, at: datetime, source: Provenance, reason: str) -> None:
        self._account.close(Moment(at, source, reason))

    def quote(self) -> Quote | None:
        """The price from now on: the user's, else the cloud's, else the table's; else None."""
        cloud, is_described = self.remote.cloud, self._machine is not None and self._machine.size
        if self.remote.price is None and self.provider and cloud and not is_described:
            # The table goes by its size. What is wrong with the cloud is told when it is asked.
            with suppress(CloudError):
                if has_prices(cloud.provider):
                    self._machine = self.provider.describe()
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
