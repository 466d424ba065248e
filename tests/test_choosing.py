"""`--remote cheapest` and `fastest`, by figures made up here."""

from __future__ import annotations

from decimal import Decimal

import pytest

from orchestrator.errors import UsageError
from orchestrator.measuring.choosing import Aim, choose, counting
from orchestrator.measuring.workload import Kept
from orchestrator.settings.spec import Price, Remote
from remote.measured import Measured, Repeat


def kept(
    remote: str, rate: int, price: str = "", *, workload: str = "digits", currency: str = "USD"
) -> Kept:
    """48,000 samples of `digits` are 5/5, and 64,000 of `photos`; nothing for the start."""
    at = "2026-11-20T10:00:00Z"
    measured = Measured(workload, at, 0.0, (Repeat(rate, 1.0),), "3.11.7", "2.21.0", (), 2)
    return Kept(remote, f"{remote}-{workload}", False, price, currency if price else "", measured)


def remote(name: str, price: str = "", currency: str = "USD") -> Remote:
    return Remote(name, "h", price=Price(Decimal(price), currency) if price else None)


# At $0.36 an hour 480 s are $0.048; at $3.60 an hour 80 s are $0.08.
BOOK = [kept("k80", 100, "0.36"), kept("t4", 600, "3.60")]
REMOTES = [remote("k80", "0.36"), remote("t4", "3.60")]


def test_the_old_one_is_the_cheapest_and_the_new_one_the_fastest() -> None:
    cheap = choose(Aim.CHEAPEST, BOOK, REMOTES, ["digits"]).offers
    assert [str(offer) for offer in cheap] == ["k80 $0.0480 in 480 s", "t4 $0.0800 in 80 s"]
    assert cheap[0].cost == Decimal("0.048")
    fast = choose(Aim.FASTEST, BOOK, REMOTES, ["digits"]).offers
    assert [offer.remote for offer in fast] == ["t4", "k80"]


def test_the_price_of_now_counts_and_where_there_is_none_that_of_then() -> None:
    dearer = [remote("k80", "0.72"), remote("t4")]
    offers = choose(Aim.CHEAPEST, BOOK, dearer, ["digits"]).offers
    assert [(offer.remote, offer.cost) for offer in offers] == [
        ("t4", Decimal("0.08")),
        ("k80", Decimal("0.096")),
    ]


def test_all_the_workloads_that_are_asked_for_count_together() -> None:
    # k80: 480 s and 640 s; t4: 80 s and 6400 s.
    book = [*BOOK, kept("k80", 100, workload="photos"), kept("t4", 10, workload="photos")]
    offers = choose(Aim.FASTEST, book, REMOTES, ["digits", "photos"]).offers
    assert [(offer.remote, offer.seconds) for offer in offers] == [("k80", 1120.0), ("t4", 6480.0)]


def test_a_remote_without_a_price_cannot_be_the_cheapest_but_the_fastest() -> None:
    book = [kept("k80", 100, "0.36"), kept("gift", 9999)]
    remotes = [REMOTES[0], remote("gift")]
    cheap = choose(Aim.CHEAPEST, book, remotes, ["digits"])
    assert [offer.remote for offer in cheap.offers] == ["k80"]
    assert cheap.lacking == ("gift: its price is unknown",)
    assert choose(Aim.FASTEST, book, remotes, ["digits"]).offers[0].remote == "gift"


def test_what_was_not_measured_is_named_and_not_compared() -> None:
    choice = choose(Aim.FASTEST, BOOK, [*REMOTES, remote("new")], ["digits"])
    assert choice.lacking == ("new: digits not measured",)
    with pytest.raises(UsageError) as caught:
        choose(Aim.FASTEST, BOOK, REMOTES, ["digits", "text"])
    assert caught.value.cause == "k80: text not measured; t4: text not measured"
    assert caught.value.fix == "train bench k80"


def test_where_only_prices_are_lacking_the_fix_is_a_price() -> None:
    with pytest.raises(UsageError) as caught:
        choose(Aim.CHEAPEST, [kept("gift", 10)], [remote("gift")], ["digits"])
    assert caught.value.fix == "train remote set gift --price 0.50"


def test_prices_in_two_currencies_are_not_compared() -> None:
    euros = [REMOTES[0], remote("t4", "3.60", "EUR")]
    with pytest.raises(UsageError, match="EUR and USD cannot be compared"):
        choose(Aim.CHEAPEST, BOOK, euros, ["digits"])
    assert choose(Aim.FASTEST, BOOK, euros, ["digits"]).offers[0].remote == "t4"


def test_of_two_that_cost_the_same_the_faster_one_is_taken() -> None:
    book = [kept("slow", 100, "1.00"), kept("fast", 200, "2.00")]
    offers = choose(Aim.CHEAPEST, book, [remote("slow"), remote("fast")], ["digits"]).offers
    assert [offer.remote for offer in offers] == ["fast", "slow"]


def test_categories_are_stood_for_by_the_workloads_like_them_and_others_by_all() -> None:
    assert counting(["category3", "category1"]) == ("regression", "photos")
    assert counting(["category3", "mine"]) == ("photos",)
    assert len(counting(["mine"])) == 5
