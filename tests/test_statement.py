"""What a session says of its end, what a GPU costs and where, and the doctor's words on money."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clouds.power import Power
from orchestrator.clouds.pricetable import price_rows
from orchestrator.costs.billing import Paid
from orchestrator.costs.checkup import money_checks
from orchestrator.costs.paydesk import Seen
from orchestrator.costs.purse import Budget
from orchestrator.costs.sessions import Session, Tally
from orchestrator.costs.statement import open_line, rows_table, seen_table, source_lines
from orchestrator.settings.spec import CloudSpec, Price, Remote
from orchestrator.vm.check import Check, Mark
from remote.protocol import Kept
from remote.runfolder import Slurm

HOUR = 3600.0
RENTED = Remote("k80", "h", price=Price(Decimal("0.60")), cloud=CloudSpec("azure"))
FILE = Path("/home/me/remotes.yaml")


def tally(
    lasts_s: float | None = None,
    budget: str = "",
    idle_s: float | None = None,
    per_hour: str = "0.60",
) -> Tally:
    """After half an hour at 0.60."""
    now = datetime.now(UTC)
    ends_at = None if lasts_s is None else now + timedelta(seconds=lasts_s + 1)
    limit = Decimal(budget) if budget else None
    session = Session("s", "exam", "k80", now, None, ends_at, limit, "USD", idle_s)
    time = timedelta(minutes=30)
    paid = Paid(time, time, amount=Decimal("0.30"), currencies=frozenset({"USD"}))
    return Tally(session, paid, "USD", 0, None, Decimal(per_hour) if per_hour else None)


@pytest.mark.parametrize(
    ("terms", "end"),
    [
        ((), ""),
        ((2 * HOUR,), "; ends in 2 h 00 min"),
        ((2 * HOUR, "0.90"), " of $0.90; ends in 1 h 00 min by its budget; $0.60 left"),
        ((2 * HOUR, "5"), " of $5.00; ends in 2 h 00 min; $4.70 left"),
        ((None, "0.90"), " of $0.90; ends in 1 h 00 min by its budget; $0.60 left"),
        # It is off, or nobody knows what it costs: its budget is not being used.
        ((2 * HOUR, "0.90", None, ""), " of $0.90; ends in 2 h 00 min; $0.60 left"),
        ((None, "", 1200.0), "; ends after 20 min without work"),
        ((2 * HOUR, "", 1200.0), "; ends in 2 h 00 min or after 20 min without work"),
        ((-60.0, "0.90", 1200.0), " of $0.90; its end has passed; $0.60 left"),
    ],
)
def test_a_session_names_what_ends_it_first(terms: tuple[Any, ...], end: str) -> None:
    assert open_line(tally(*terms)) == f"k80: session exam: 30 min for $0.30{end}"


def test_a_budget_in_no_known_currency_is_a_number() -> None:
    made = tally(None, "5")
    unpriced = replace(
        made,
        session=replace(made.session, currency=""),
        paid=replace(made.paid, amount=None, currencies=frozenset()),
        currency="",
        per_hour=None,
    )
    said = "k80: session exam: 30 min for an unknown price of 5.00"
    assert open_line(unpriced) == said
    said = "k80: session exam: 30 min for $0.00 of 5.00; 5.00 left"
    assert open_line(replace(unpriced, paid=replace(unpriced.paid, amount=Decimal(0)))) == said


def test_terms_that_no_guard_was_asked_about_are_told_as_they_are() -> None:
    def ends(made: Tally) -> str:
        (row,) = seen_table([Seen(RENTED, Power.UNKNOWN, made)]).rows
        return row[-1].text

    assert ends(tally()) == "not by itself"
    assert ends(tally(None, "5", 1200.0)) == "by its budget or after 20 min without work"


def test_the_list_prices_of_a_gpu_fit_a_narrow_screen_and_name_their_sources() -> None:
    for gpu in sorted({row.gpu for row in price_rows()}):
        rows = [row for row in price_rows() if row.gpu == gpu]
        told, sources = rows_table(rows), source_lines(rows)
        assert max(map(len, told.lines())) <= 80
        for row, made in zip(rows, told.rows, strict=True):
            number = made[-1].text
            assert f"{number}: {row.date:%Y-%m-%d}, {row.source}" in sources


def checks(
    power: Power = Power.RUNNING,
    kept: Kept | None = None,
    remote: Remote = RENTED,
    bounds: tuple[Budget, ...] = (),
    trouble: str = "",
) -> dict[str, Check]:
    made = None if kept is None else tally()
    found = money_checks(Seen(remote, power, made, kept, 0.0, trouble), bounds, FILE)
    return {check.name: check for check in found}


def test_the_doctor_tells_who_rents_it_out_and_what_stops_it() -> None:
    at = datetime(2026, 8, 1, 12, tzinfo=UTC)
    kept = Kept("s", stops_at_s=at.timestamp(), why="idle for 20 min")
    found = checks(kept=kept)
    assert found["cloud"].found == "azure: running"
    told = f"stops it at {at.astimezone():%H:%M} as things stand (idle for 20 min)"
    assert found["guard"].found == told
    assert {check.mark for check in found.values()} == {Mark.OK}


def test_the_doctor_does_not_ask_who_rents_out_a_cluster() -> None:
    cluster = replace(RENTED, cloud=None, slurm=Slurm())
    assert list(checks(remote=cluster)) == ["budget"]


def test_the_doctor_warns_of_what_goes_on_to_cost() -> None:
    assert checks()["guard"].fix == "train session start k80 --hours 3 --idle 20m"
    assert checks(Power.STOPPED_FREE)["guard"].mark is Mark.OK
    assert checks(Power.STOPPED_BILLED)["cloud"].found == "azure: stopped, STILL BILLED"
    assert checks(Power.UNKNOWN, trouble="no login")["cloud"].found == "azure: no login"
    assert checks(kept=Kept("s", trouble="no right"))["guard"].found == "cannot stop it: no right"
    assert checks(kept=Kept("s"))["guard"].mark is Mark.WARN
    budget = Budget("k80 this month", Decimal(10), Decimal(8), "USD")
    assert checks(bounds=(budget,))["budget"] == Check("budget", Mark.WARN, str(budget))


def test_the_doctor_names_the_file_in_which_a_cloud_is_said() -> None:
    priced = Remote("own", "h", price=Price(Decimal("0.60")))
    assert str(FILE) in checks(remote=priced)["cloud"].fix
    assert checks(remote=Remote("own", "h")) == {}
    priced_only = Remote("own", "h", price=Price(Decimal("0.60")), cloud=CloudSpec("none"))
    assert checks(remote=priced_only)["cloud"].mark is Mark.OK
