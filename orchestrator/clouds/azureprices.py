"""Azure's list prices, which it tells anybody.

Source: Azure Retail Prices REST API, overview. Rows to drop as SkyPilot's fetch_azure.py has found
them: Windows by " Win" in the product's name, the old Cloud Services, and Low Priority.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from orchestrator.clouds.power import Quote
from orchestrator.clouds.rest import Rest

PRICES = "https://prices.azure.com"

# A size in a region has some ten rows, a page up to a thousand.
_MOST_PAGES = 5


def azure_quote(size: str, region: str, *, spot: bool, endpoint: str = PRICES) -> Quote | None:
    """The price of Linux on it, an hour; None where Azure lists none, or lists it as nothing."""
    if not size or not region:
        return None
    now = datetime.now(UTC)
    wanted = {
        "serviceName": "Virtual Machines",
        "priceType": "Consumption",
        "armRegionName": region,
        "armSkuName": size,
    }
    prices: dict[datetime, Decimal] = {}
    for row in _rows(Rest("Azure's price list", endpoint), wanted):
        price, start = row.get("retailPrice"), _time(row.get("effectiveStartDate"))
        if not isinstance(price, Decimal | int) or price <= 0 or start > now:
            continue
        if _counts(row, spot=spot):
            # Of two for the same thing, nobody is surprised by the higher.
            prices[start] = max(Decimal(price), prices.get(start, Decimal(0)))
    if not prices:
        return None
    return Quote(prices[max(prices)], "USD", "Azure Retail Prices", now, region, spot)


def _counts(row: Mapping[str, Any], *, spot: bool) -> bool:
    product, sku = str(row.get("productName", "")), str(row.get("skuName", ""))
    return (
        row.get("type") == "Consumption"
        and row.get("unitOfMeasure") == "1 Hour"
        and row.get("currencyCode", "USD") == "USD"
        and row.get("isPrimaryMeterRegion", True) is True
        and " Win" not in product
        and "Cloud Services" not in product
        and "CloudServices" not in product
        and "Low Priority" not in sku
        and (" Spot" in sku) is spot
    )


def _rows(service: Rest, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    terms = [f"{key} eq '{value.replace(chr(39), chr(39) * 2)}'" for key, value in wanted.items()]
    query = {"api-version": "2023-01-01-preview", "$filter": " and ".join(terms)}
    page = service.get("/api/retail/prices", query).body
    for _ in range(_MOST_PAGES):
        yield from (row for row in page.get("Items") or [] if isinstance(row, dict))
        link = page.get("NextPageLink")
        if not isinstance(link, str) or not link:
            return
        page = service.follow(link).body


def _time(text: object) -> datetime:
    """The far past where none is said."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
