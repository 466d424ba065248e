"""What a remote costs an hour, and who says so."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.clouds.power import Quote
from orchestrator.costs.payments import Payments
from orchestrator.costs.purse import hourly
from orchestrator.records.ledger import Ledger, StintFact
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Remote


@dataclass(frozen=True)
class Priced:
    """Attributes:
    quote: None where nobody knows.
    """

    remote: Remote
    quote: Quote | None


def price_known(ledger: Ledger, payments: Payments) -> Priced:
    """As the user said, or as it was when it was last asked."""
    remote = payments.remote
    return Priced(remote, payments.known_quote() or _frozen(ledger.last_stint(remote.name)))


def price_asked(payments: Payments, tell: Teller) -> Priced:
    """As its cloud says now, where there is one to ask.

    Raises:
        CloudError: it could not be asked.
    """
    remote = payments.remote
    if payments.provider is None:
        return Priced(remote, payments.known_quote())
    tell.doing(f"asking what {remote.name} costs")
    quote = payments.asked_quote()
    if quote is None:
        tell.warn(
            f"nobody but you knows what {remote.name} costs: "
            f"train remote set {remote.name} --price 0.50"
        )
    if quote is not None and remote.price is not None:
        _warn_of_other(tell, remote, quote)
    return Priced(remote, quote or payments.known_quote())


def _frozen(stint: StintFact | None) -> Quote | None:
    """The price that the last paid time began with; what the user said then he has taken back."""
    if stint is None or stint.price_per_hour is None or stint.fetched_at is None:
        return None
    if stint.price_source == "config":
        return None
    return Quote(
        stint.price_per_hour,
        stint.currency,
        stint.price_source,
        stint.fetched_at,
        stint.region,
        stint.spot,
        stint.disk_per_hour,
    )


def _warn_of_other(tell: Teller, remote: Remote, quote: Quote) -> None:
    assert remote.price is not None
    if (quote.per_hour, quote.currency) != (remote.price.per_hour, remote.price.currency):
        tell.warn(
            f"{remote.name} is {hourly(remote.price)} by your word, which counts; for the other: "
            f"train remote set {remote.name} --price {quote.per_hour:f} --currency {quote.currency}"
        )
