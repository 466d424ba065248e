"""What sessions and machines report, as tables for people and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.clouds.power import Power
from orchestrator.costs.cost import format_duration, format_money
from orchestrator.costs.sessions import Session, Tally
from orchestrator.screen.table import Cell, Table

if TYPE_CHECKING:
    from orchestrator.clouds.pricetable import Row
    from orchestrator.costs.machinecost import MachineCost
    from orchestrator.costs.paydesk import Seen
    from orchestrator.costs.quoting import Priced
    from remote.protocol import Kept

Json = dict[str, Any]

_RED = "bold red"


def tally_line(tally: Tally) -> str:
    """`session exam: 1 h 12 min for $0.60 of $5.00, 25 min of it idle; ends in 1 h 48 min`."""
    session, paid = tally.session, tally.paid
    parts = [f"{format_duration(paid.time.total_seconds())} for {amount_text(tally)}"]
    if session.budget is not None:
        parts[0] += f" of {format_money(session.budget, tally.currency)}"
    if paid.idle >= timedelta(minutes=1):
        parts.append(f"{format_duration(paid.idle.total_seconds())} of it idle")
    if tally.gained:
        points = "1 point" if tally.gained == 1 else f"{tally.gained} points"
        each = tally.per_point
        cost = f" at {format_money(each, tally.currency)} each" if each is not None else ""
        parts.append(f"{points} gained{cost}")
    end = _end_line(tally)
    return f"session {session.name}: {', '.join(parts)}" + (f"; {end}" if end else "")


def _end_line(tally: Tally) -> str:
    """What ends it first: its clock or its budget; and whether idleness does before that."""
    session = tally.session
    if session.ended_at is not None:
        return ""
    ends = []
    if session.ends_at is not None:
        left_s = (session.ends_at - datetime.now(UTC)).total_seconds()
        if left_s <= 0:
            return "its end has passed"
        ends.append((left_s, ""))
    if tally.budget_s is not None:
        ends.append((tally.budget_s, " by its budget"))
    told = [f"in {format_duration(left_s)}{why}" for left_s, why in sorted(ends)[:1]]
    told += filter(None, [_idle_text(session)])
    return f"ends {' or '.join(told)}" if told else ""


def _idle_text(session: Session) -> str:
    if session.idle_s is None:
        return ""
    return f"after {format_duration(session.idle_s)} without work"


def open_line(tally: Tally) -> str:
    """`k80: session exam: 12 min for $0.60 of $5.00; ends in 1 h 48 min; $4.40 left`."""
    left = _left(tally)
    return f"{tally.session.remote}: {tally_line(tally)}" + (f"; {left} left" if left else "")


def amount_text(tally: Tally) -> str:
    amount = tally.paid.amount
    if len(tally.paid.currencies) > 1:
        return f"amounts in {tally.currency}"
    if amount is None or not (tally.currency or amount == 0):
        return "an unknown price"
    text = format_money(amount, tally.currency or "USD")
    return f"{text} (estimated)" if tally.paid.is_estimated else text


def tally_json(tally: Tally) -> Json:
    session, paid = tally.session, tally.paid
    return {
        "session": session.id,
        "name": session.name,
        "remote": session.remote,
        "started_at": _time(session.started_at),
        "ended_at": _time(session.ended_at),
        "ends_at": _time(session.ends_at),
        "budget": _number(session.budget),
        "idle_stop_s": session.idle_s,
        "paid_s": paid.time.total_seconds(),
        "used_s": paid.used.total_seconds(),
        "setup_s": paid.setup.total_seconds(),
        "idle_s": paid.idle.total_seconds(),
        "cost": _number(paid.amount),
        "currency": tally.currency,
        "estimated": paid.is_estimated,
        "runs": tally.runs,
        "points_gained": tally.gained,
        "cost_per_point": _number(tally.per_point),
    }


def tally_table(tallies: Iterable[Tally]) -> Table:
    made = Table("session", "remote", "started", ">paid", ">used", ">setup", ">idle", ">runs",
                 ">points", ">cost", ">a point")  # fmt: skip
    for tally in tallies:
        session, paid = tally.session, tally.paid
        each = tally.per_point
        made.add_row(
            session.name if session.ended_at else f"{session.name} (open)",
            session.remote,
            f"{session.started_at.astimezone():%Y-%m-%d %H:%M}",
            # Without a remote it is an exam's, and all of these are of its machine.
            *(
                format_duration(time.total_seconds()) if session.remote else ""
                for time in (paid.time, paid.used, paid.setup, paid.idle)
            ),
            str(tally.runs) if session.remote else "",
            "" if tally.gained is None else f"+{tally.gained}",
            amount_text(tally) if session.remote else "",
            "" if each is None else format_money(each, tally.currency),
        )
    return made


def off_lines(costs: Mapping[str, MachineCost]) -> list[str]:
    """What disks cost while their machines were off, which is no session's."""
    return [
        f"{remote}: {format_money(cost.off, cost.currency)} for its disk while it was off"
        for remote, cost in costs.items()
        if cost.off
    ]


def seen_table(found: Iterable[Seen]) -> Table:
    made = Table("remote", "~is", "session", ">on for", ">cost", ">left", "~ends")
    for seen in found:
        tally = seen.tally
        made.add_row(
            seen.remote.name,
            power_cell(seen),
            tally.session.name if tally else "",
            format_duration(tally.paid.time.total_seconds()) if tally else "",
            amount_text(tally) if tally else "",
            _left(tally) if tally else "",
            _ends(seen) if tally else "",
        )
    return made


def power_cell(seen: Seen) -> Cell:
    """What is billed though it looks as if it were off is red."""
    match seen.power:
        case Power.STOPPED_BILLED:
            return Cell(f"stopped, STILL BILLED: train down {seen.remote.name}", _RED)
        case Power.UNKNOWN:
            return Cell(f"unknown: {seen.trouble}" if seen.trouble else "unknown")
        case Power.RUNNING if seen.kept is not None and seen.kept.trouble:
            return Cell(f"running, and cannot stop itself: {seen.kept.trouble}", _RED)
        case power:
            return Cell(str(power))


def prices_table(found: Iterable[Priced]) -> Table:
    made = Table("remote", ">an hour", "source", "of", "region", ">disk an hour")
    for priced in found:
        quote = priced.quote
        if quote is None:
            made.add_row(priced.remote.name, "unknown", "", "", "", "")
            continue
        disk = quote.disk_per_hour
        made.add_row(
            priced.remote.name,
            format_money(quote.per_hour, quote.currency),
            f"{quote.source}, spot" if quote.spot else quote.source,
            f"{quote.fetched_at:%Y-%m-%d}",
            quote.region,
            "" if disk is None else format_money(disk, quote.currency),
        )
    return made


def priced_json(priced: Priced) -> Json:
    quote = priced.quote
    return {
        "remote": priced.remote.name,
        "per_hour": _number(quote.per_hour) if quote else None,
        "currency": quote.currency if quote else None,
        "source": quote.source if quote else None,
        "fetched_at": _time(quote.fetched_at) if quote else None,
        "region": quote.region if quote else None,
        "spot": quote.spot if quote else None,
        "disk_per_hour": _number(quote.disk_per_hour) if quote else None,
    }


def rows_table(rows: Sequence[Row]) -> Table:
    """Of the list prices of one GPU; the last column is the number of a row's source."""
    made = Table("cloud", "size", "region", ">gpus", ">an hour", ">source")
    numbers = {source: str(number) for number, source in enumerate(_sources(rows), 1)}
    for row in rows:
        # Behind the `+` are the GPUs, where a cloud adds them to a size of its own.
        size, price = row.size.partition("+")[0], format_money(row.per_hour, row.currency)
        made.add_row(row.cloud, size, row.region, str(row.count), price, numbers[_source(row)])
    return made


def source_lines(rows: Sequence[Row]) -> list[str]:
    """The sources by their numbers, each with the day it was read."""
    return [f"{number}: {source}" for number, source in enumerate(_sources(rows), 1)]


def _sources(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(map(_source, rows)))


def _source(row: Row) -> str:
    return f"{row.date:%Y-%m-%d}, {row.source}"


def _left(tally: Tally) -> str:
    budget, amount = tally.session.budget, tally.paid.amount
    if budget is None or amount is None:
        return ""
    return format_money(max(Decimal(0), budget - amount), tally.currency)


def _ends(seen: Seen) -> str:
    assert seen.tally is not None
    stops = stops_at(seen.kept, seen.clock_off_s)
    if stops is not None and seen.kept is not None:
        what = "its runs" if seen.kept.trouble else "by itself"
        return f"{stops.astimezone():%H:%M} {what} ({seen.kept.why})"
    return _end_text(seen.tally.session)


def _end_text(session: Session) -> str:
    ends = (
        f"{session.ends_at.astimezone():%H:%M}" if session.ends_at else "",
        "by its budget" if session.budget is not None else "",
        _idle_text(session),
    )
    return " or ".join(filter(None, ends)) or "not by itself"


def stops_at(kept: Kept | None, clock_off_s: float) -> datetime | None:
    """When the guard would stop the machine, by the laptop's clock."""
    if kept is None or kept.stops_at_s is None:
        return None
    return datetime.fromtimestamp(kept.stops_at_s - clock_off_s, UTC)


def seen_json(seen: Seen) -> Json:
    stops = stops_at(seen.kept, seen.clock_off_s)
    return {
        "remote": seen.remote.name,
        "power": seen.power.value,
        "trouble": seen.trouble,
        "session": None if seen.tally is None else tally_json(seen.tally),
        "guard": None
        if seen.kept is None
        else {
            "stops_at": _time(stops),
            "why": seen.kept.why,
            "trouble": seen.kept.trouble,
            "fragile": seen.kept.fragile,
        },
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _number(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
