"""Prices of EC2: the list for machines on demand, the last of the market for spot.

Source: AWS Price List Query API, GetProducts; EC2 API, DescribeSpotPriceHistory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from orchestrator.clouds.power import Quote

# boto3 makes the classes of its clients when it runs.
Client = Any


def on_demand_quote(pricing: Client, size: str, region: str) -> Quote | None:
    """The price of Linux on it, shared and without software; None where none is listed.

    Args:
        pricing: boto3's client.
    """
    wanted = {
        "instanceType": size,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": key, "Value": wanted[key]} for key in wanted]
    answer = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters, MaxResults=20)
    prices = [price for product in answer["PriceList"] for price in _hourly(json.loads(product))]
    if not prices:
        return None
    # Of several for the same thing, nobody is surprised by the highest.
    return Quote(max(prices), "USD", "AWS Price List", datetime.now(UTC), region)


def _hourly(product: dict[str, Any]) -> Iterator[Decimal]:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            price = Decimal(dimension.get("pricePerUnit", {}).get("USD") or 0)
            if dimension.get("unit") == "Hrs" and price > 0:
                yield price


def spot_quote(ec2: Client, size: str, zone: str, region: str) -> Quote | None:
    """The market's price in its availability zone now; None where there is none."""
    now = datetime.now(UTC)
    answer = ec2.describe_spot_price_history(
        InstanceTypes=[size],
        ProductDescriptions=["Linux/UNIX"],
        AvailabilityZone=zone,
        StartTime=now,
    )
    found = [(row["Timestamp"], Decimal(row["SpotPrice"])) for row in answer["SpotPriceHistory"]]
    prices = [price for _, price in sorted(found) if price > 0]
    return Quote(prices[-1], "USD", "AWS spot price history", now, region, True) if prices else None
