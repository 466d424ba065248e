"""The commands about machines that cost money, as `commands.py` has those about runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.commands import print_json
from orchestrator.errors import UsageError
from orchestrator.options import (
    InOrder,
    accept_option,
    any_name_argument,
    json_option,
    name_argument,
)

if TYPE_CHECKING:
    from orchestrator.costs.paydesk import Terms

_Command = TypeVar("_Command", bound=Callable[..., Any])

# A cloud may have no GPU machine to give for hours; by then a person wants to know.
_WAIT = "30m"


def terms_options(command: _Command) -> _Command:
    """What may be said of a session where one is opened."""
    for option in (
        click.option(
            "--allow-unknown-price",
            "any_price",
            is_flag=True,
            help="Even if a budget binds nothing.",
        ),
        click.option(
            "--idle", metavar="20m", default="", help="Stop it after so long without work."
        ),
        click.option("--budget", metavar="5", default="", help="Stop it when so much is spent."),
        click.option("--hours", metavar="3h", default="", help="Stop it after so long, whatever."),
        click.option("--name", "title", metavar="TEXT", default="", help="What to call it."),
    ):
        command = option(command)
    return command


def parse_terms(title: str, hours: str, budget: str, idle: str, *, any_price: bool) -> Terms:
    from orchestrator.costs.paydesk import Terms

    return Terms(
        title, _seconds("--hours", hours), parse_amount(budget), _seconds("--idle", idle), any_price
    )


def _seconds(option: str, text: str) -> float | None:
    from orchestrator.duration import parse_duration

    if not text:
        return None
    try:
        # The option says its unit: `--hours 5`, `--hours 0.5`.
        is_number = option == "--hours" and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text)
        seconds = float(text) * 3600 if is_number else parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}", fix=f"{option} 1h30m") from None
    if seconds <= 0:
        raise UsageError(f"{option} takes more than nothing", fix=f"{option} 20m")
    return seconds


def parse_amount(text: str) -> Decimal | None:
    if not text:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(0)
    if not amount.is_finite() or amount <= 0:
        raise UsageError(f"--budget takes an amount above 0, not {text!r}", fix="--budget 5")
    return amount


@click.command()
@name_argument
@terms_options
@click.option(
    "--wait", metavar="30m", default=_WAIT, show_default=True, help="While the cloud has none."
)
@accept_option
@json_option
def up(
    name: str,
    title: str,
    hours: str,
    budget: str,
    idle: str,
    any_price: bool,
    wait: str,
    accept: str,
    as_json: bool,
) -> None:
    """Start a rented machine, and a session on it.

    The session's end, its budget and idleness are kept on the machine itself, with the laptop off.

    Example: train up azure-k80 --hours 3 --budget 5 --idle 20m
    """
    from orchestrator.costs.paydesk import PayDesk
    from orchestrator.costs.statement import tally_json, tally_line
    from orchestrator.screen.console import Console

    terms = parse_terms(title, hours, budget, idle, any_price=any_price)
    with Console() as console, PayDesk.here(console, accept) as desk:
        tally = desk.up(name, terms, _seconds("--wait", wait) or 0.0).tally
    if as_json:
        print_json(tally_json(tally))
    else:
        console.result(f"{name} is up: {tally_line(tally)}")


@click.command()
@name_argument
@click.option("--force", is_flag=True, help="Even where runs go on.")
@accept_option
@json_option
def down(name: str, force: bool, accept: str, as_json: bool) -> None:
    """Stop a rented machine until it costs nothing, and end its session.

    Example: train down azure-k80
    """
    from orchestrator.costs.paydesk import PayDesk
    from orchestrator.costs.statement import tally_json, tally_line
    from orchestrator.screen.console import Console

    with Console() as console, PayDesk.here(console, accept) as desk:
        tally = desk.down(name, force=force)
    if as_json:
        print_json(None if tally is None else tally_json(tally))
    else:
        ended = f"; {tally_line(tally)}" if tally else ""
        console.result(f"{name} is down and costs nothing but its disk{ended}")


@click.group(cls=InOrder)
def session() -> None:
    """Periods of paid practice: a clock, a budget, what it cost.

    Example: train session status
    """


@session.command("start")
@name_argument
@terms_options
@accept_option
@json_option
def session_start(
    name: str,
    title: str,
    hours: str,
    budget: str,
    idle: str,
    any_price: bool,
    accept: str,
    as_json: bool,
) -> None:
    """Open a session on a machine that is on.

    Example: train session start azure-k80 --hours 5 --budget 3
    """
    from orchestrator.costs.paydesk import PayDesk
    from orchestrator.costs.statement import tally_json, tally_line
    from orchestrator.screen.console import Console

    terms = parse_terms(title, hours, budget, idle, any_price=any_price)
    with Console() as console, PayDesk.here(console, accept) as desk:
        tally = desk.begin(name, terms)
    if as_json:
        print_json(tally_json(tally))
    else:
        console.result(tally_line(tally))


@session.command("stop")
@name_argument
@accept_option
@json_option
def session_stop(name: str, accept: str, as_json: bool) -> None:
    """End the session of a machine; the machine goes on (`train down` stops both).

    Example: train session stop azure-k80
    """
    from orchestrator.costs.paydesk import PayDesk
    from orchestrator.costs.statement import tally_json, tally_line
    from orchestrator.screen.console import Console

    with Console() as console, PayDesk.here(console, accept) as desk:
        tally = desk.finish(name)
    if as_json:
        print_json(tally_json(tally))
    else:
        console.result(tally_line(tally))


@session.command("status")
@any_name_argument
@accept_option
@json_option
def session_status(name: str, accept: str, as_json: bool) -> None:
    """What is on, what it costs, and what will end it.

    Example: train session status
    """
    from orchestrator.costs.paydesk import PayDesk
    from orchestrator.costs.statement import seen_json, seen_table
    from orchestrator.screen.console import Console

    with Console() as console, PayDesk.here(console, accept) as desk:
        found = desk.look(name)
    if as_json:
        print_json([seen_json(seen) for seen in found])
    elif found:
        console.result(seen_table(found))
    else:
        console.result("no machine has an open session; to open one: train up NAME")


@session.command("list")
@json_option
def session_list(as_json: bool) -> None:
    """All sessions there were, with what each cost.

    Example: train session list
    """
    from datetime import UTC, datetime

    from orchestrator.costs.machinecost import remote_costs
    from orchestrator.costs.paydesk import PayDesk
    from orchestrator.costs.statement import off_lines, tally_json, tally_table
    from orchestrator.screen.console import Console

    with Console() as console, PayDesk.here(console) as desk:
        found = desk.sessions()
        costs = remote_costs(desk.ledger, datetime.now(UTC))
    if as_json:
        print_json([tally_json(tally) for tally in found])
    elif found:
        console.result(tally_table(found))
        for line in off_lines(costs):
            console.result(line)
    else:
        console.result("no session yet; to open one: train up NAME")


@click.command()
@any_name_argument
@click.option("--refresh", is_flag=True, help="Ask the cloud.")
@click.option("--gpu", metavar="K80", default="", help="List prices of machines with it instead.")
@json_option
def prices(name: str, refresh: bool, gpu: str, as_json: bool) -> None:
    """What remotes cost an hour, and who says so.

    An unknown price is unknown, never free.

    Example: train prices azure-k80 --refresh
    """
    from orchestrator.costs.statement import priced_json, prices_table, rows_table, source_lines
    from orchestrator.screen.console import Console

    if gpu:
        from orchestrator.clouds.pricetable import price_rows

        rows = [row for row in price_rows() if row.gpu.lower() == gpu.lower()]
        if not rows:
            known = ", ".join(sorted({row.gpu for row in price_rows()}))
            raise UsageError(f"the table has no machine with {gpu!r}", fix=f"one of: {known}")
        rows.sort(key=lambda row: row.per_hour)
        if as_json:
            print_json([{**vars(row), "per_hour": str(row.per_hour), "date": str(row.date.date())}
                        for row in rows])  # fmt: skip
        else:
            Console().result(rows_table(rows))
            for line in source_lines(rows):
                Console().result(line)
        return
    from orchestrator.costs.paydesk import PayDesk

    with Console() as console, PayDesk.here(console) as desk:
        found = desk.prices(name, refresh=refresh)
    if as_json:
        print_json([priced_json(priced) for priced in found])
    elif found:
        console.result(prices_table(found))
    else:
        console.result("no remotes yet; to add one: train remote add NAME --host ADDRESS")
