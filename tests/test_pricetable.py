"""The table of prices, and which of several prices counts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from orchestrator.clouds.power import Machine, Power, Quote
from orchestrator.clouds.pricetable import freshest_quote, price_rows, table_quote
from orchestrator.clouds.provider import PROVIDERS
from orchestrator.errors import CloudError
from orchestrator.settings.spec import Price

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NC6 = Machine(Power.RUNNING, size="Standard_NC6", region="westeurope")
ASKED = Quote(Decimal("0.71"), "USD", "Azure Retail Prices", NOW, "westeurope")


def test_every_row_is_dated_sourced_and_costs_something() -> None:
    rows = price_rows()

    assert len(rows) > 200
    for row in rows:
        assert row.cloud in PROVIDERS
        assert row.per_hour > 0
        assert row.count > 0
        assert row.gpu
        assert datetime(2020, 1, 1, tzinfo=UTC) < row.date <= NOW
        assert row.source.startswith(("https://", "apache-libcloud"))
    keys = [(row.cloud, row.size.lower(), row.region) for row in rows]
    assert len(set(keys)) == len(keys)


def test_more_gpus_of_a_kind_cost_more() -> None:
    """What a slip of a digit would break."""
    by_family: dict[tuple[str, str, str], list[tuple[int, Decimal]]] = {}
    for row in price_rows():
        by_family.setdefault((row.cloud, row.region, row.gpu), []).append((row.count, row.per_hour))
    for (cloud, region, gpu), found in by_family.items():
        each = [price / count for count, price in found]
        # Machines of one GPU differ in cores; the largest here have sixteen times the smallest's.
        assert max(each) < 10 * min(each), (cloud, region, gpu)


@pytest.mark.parametrize(
    ("provider", "size", "region", "price"),
    [
        ("azure", "Standard_NC6", "westeurope", "1.166"),
        ("azure", "standard_nc24ads_a100_v4", "EastUS", "3.673"),
        ("aws", "g4dn.xlarge", "us-east-1", "0.526"),
        ("aws", "g6.xlarge", "us-east-1", "0.8048"),
        ("gcp", "a2-highgpu-1g", "us-central1", "3.673385"),
        ("gcp", "g2-standard-4", "europe-west4", "0.742916046"),
        ("gcp", "n1-standard-4+1xnvidia-tesla-t4", "us-central1", "0.539999"),
    ],
)
def test_common_machines_are_in_it(provider: str, size: str, region: str, price: str) -> None:
    quote = table_quote(provider, size, region)

    assert quote is not None
    assert (quote.per_hour, quote.currency, quote.source) == (Decimal(price), "USD", "table")
    assert quote.fetched_at < NOW


def test_what_is_not_in_it_is_unknown() -> None:
    assert table_quote("azure", "Standard_NC6", "mars") is None
    assert table_quote("azure", "Standard_D2", "eastus") is None
    assert table_quote("aws", "Standard_NC6", "westeurope") is None
    assert table_quote("azure", "", "") is None
    assert table_quote("azure", "Standard_NC6", "westeurope", spot=True) is None


def test_the_users_word_goes_first_then_the_clouds_then_the_table() -> None:
    own = Price(Decimal("0.5"), "EUR", Decimal("0.01"))

    first = freshest_quote(own, "azure", NC6, lambda: ASKED, NOW)
    assert first == Quote(Decimal("0.5"), "EUR", "config", NOW, disk_per_hour=Decimal("0.01"))
    assert freshest_quote(None, "azure", NC6, lambda: ASKED) == ASKED
    listed = table_quote("azure", "Standard_NC6", "westeurope")
    assert listed is not None
    for silent in (None, lambda: None, lambda: Quote(Decimal(0), "USD", "x", NOW)):
        assert freshest_quote(None, "azure", NC6, silent) == listed
    assert freshest_quote(None, "azure", None) is None
    assert freshest_quote(None, "none", Machine(Power.UNKNOWN)) is None


def test_a_cloud_that_cannot_be_asked_is_not_passed_over() -> None:
    def ask() -> Quote | None:
        raise CloudError("no network")

    with pytest.raises(CloudError):
        freshest_quote(None, "azure", NC6, ask)
