"""Prices of common GPU machines, kept with the program, and which of several prices counts.

`prices.csv` holds list prices in one region each, without discounts, for Linux; every row with its
source. Its date is that of the source where the source has one, else the day it was read. What is
not in it is unknown, not free.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

from orchestrator.clouds.power import Machine, Quote
from orchestrator.settings.spec import Price

_FILE = Path(__file__).with_name("prices.csv")


@dataclass(frozen=True)
class Row:
    """Attributes:
    size, region: as the cloud names them.
    count: of its GPUs.
    source: an address, or what was put together from which.
    """

    cloud: str
    size: str
    region: str
    gpu: str
    count: int
    per_hour: Decimal
    currency: str
    date: datetime
    source: str


@cache
def price_rows() -> tuple[Row, ...]:
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Row(
                row["cloud"],
                row["size"],
                row["region"],
                row["gpu"],
                int(row["count"]),
                Decimal(row["per_hour"]),
                row["currency"],
                datetime.fromisoformat(row["date"]).replace(tzinfo=UTC),
                row["source"],
            )
            for row in csv.DictReader(file)
        )


def has_prices(provider: str) -> bool:
    return any(row.cloud == provider for row in price_rows())


def table_quote(provider: str, size: str, region: str, *, spot: bool = False) -> Quote | None:
    """The list price of just this size in just this region; None for spot, whose price moves."""
    if spot:
        return None
    for row in price_rows():
        if (row.cloud, row.size.lower(), row.region) == (provider, size.lower(), region.lower()):
            return Quote(row.per_hour, row.currency, "table", row.date, row.region)
    return None


def freshest_quote(
    price: Price | None,
    provider: str,
    machine: Machine | None,
    ask: Callable[[], Quote | None] | None = None,
    now: datetime | None = None,
) -> Quote | None:
    """What the machine costs: what the user said, else the cloud says, else the table does.

    Args:
        price: of the config.
        machine: as its cloud describes it; None where it was not asked.
        ask: `Provider.quote`, where the cloud shall be asked.

    Raises:
        CloudError: by `ask`.
    """
    if price is not None:
        return Quote(
            price.per_hour,
            price.currency,
            "config",
            now or datetime.now(UTC),
            disk_per_hour=price.disk_per_hour,
        )
    if ask is not None and (quote := ask()) is not None and quote.per_hour > 0:
        return quote
    if machine is None:
        return None
    return table_quote(provider, machine.size, machine.region, spot=machine.spot)
