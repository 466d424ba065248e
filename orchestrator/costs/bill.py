"""The ledger's costs, grouped and filtered as the user asks."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.costs.cost import By, CostRow, Total, sum_rows
from orchestrator.costs.money import recorded_costs
from orchestrator.duration import parse_duration
from orchestrator.errors import ConfigError, UsageError
from orchestrator.records.ledger import Ledger
from orchestrator.settings.config import load_workspace
from orchestrator.settings.home import ledger_file
from remote.runfolder import chief_id

if TYPE_CHECKING:
    from orchestrator.costs.machinecost import MachineCost

_COLUMNS = ("runs", "seconds", "currency", "amount", "unknown_runs", "estimated")
_MACHINE_COLUMNS = (
    *("paid_seconds", "used_seconds", "setup_seconds", "idle_seconds", "machine_currency"),
    *("machine_amount", "off_amount", "amount_per_point", "points_gained", "machine_estimated"),
)


@dataclass(frozen=True)
class Bill:
    """Attributes:
    rows: what the runs cost.
    machines: of remotes and sessions, by key: what these cost, idle time and all workspaces.
    names: what people call the rows, where that is not their key.
    """

    by: str
    rows: tuple[CostRow, ...]
    machines: Mapping[str, MachineCost] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def bill(folder: Path, *, by: str, since: str, everywhere: bool) -> Bill:
    """What was spent in the workspace of `folder`, or in all.

    Raises:
        UsageError: no such grouping or date, or no workspace here; then all is still to be had.
    """
    if by not in set(By):
        raise UsageError(f"--by takes {', '.join(By)}, not {by!r}", fix="train cost --by run")
    now = datetime.now(UTC)
    start = _start(since, now)
    root = None if everywhere else _root(folder)
    with Ledger.open(ledger_file()) as ledger:
        rows = recorded_costs(ledger, By(by), root, start, now)
        machines = _machines(ledger, By(by), now, start)
        sessions = ledger.sessions() if By(by) is By.SESSION else ()
    if By(by) is By.RUN:
        rows = sum_rows(replace(row, key=chief_id(row.key)) for row in rows)
    names = {session.id: session.name for session in sessions if session.name}
    known = {row.key for row in rows}
    if not everywhere:
        return Bill(by, rows, {key: cost for key, cost in machines.items() if key in known}, names)
    idle = (CostRow(key, 0, 0, Total((), 0)) for key in machines if key not in known)
    return Bill(by, tuple(sorted((*rows, *idle), key=lambda row: row.key)), machines, names)


def _machines(
    ledger: Ledger, by: By, now: datetime, since: datetime | None
) -> dict[str, MachineCost]:
    if by not in (By.REMOTE, By.SESSION):
        return {}
    from orchestrator.costs.machinecost import remote_costs, session_costs

    return (remote_costs if by is By.REMOTE else session_costs)(ledger, now, since)


def _root(folder: Path) -> str:
    try:
        return str(load_workspace(folder).root)
    except ConfigError:
        raise
    except UsageError as error:
        error.fix = "go to your workspace, or for all of them: train cost --all"
        raise


def bill_csv(bill: Bill) -> str:
    """One line for each row and currency; a machine's part is on the first line of its row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    has_machines = bill.by in (By.REMOTE, By.SESSION)
    more = _MACHINE_COLUMNS if has_machines else ()
    writer.writerow([bill.by, *_COLUMNS, *more])
    for row in bill.rows:
        machine = _machine_cells(bill.machines.get(row.key)) if has_machines else []
        for currency, amount in row.total.by_currency or (("", None),):
            writer.writerow(
                [
                    row.key,
                    row.runs,
                    f"{row.seconds:.3f}",
                    currency,
                    "" if amount is None else f"{amount:f}",
                    row.total.unknown_runs,
                    str(row.total.estimated).lower(),
                    *machine,
                ]
            )
            machine = [""] * len(machine)
    return text.getvalue()


def _machine_cells(cost: MachineCost | None) -> list[object]:
    if cost is None:
        return [""] * len(_MACHINE_COLUMNS)
    times = (cost.paid.time, cost.paid.used, cost.paid.setup, cost.paid.idle)
    amounts = (cost.paid.amount, cost.off, cost.per_point)
    return [
        *(f"{time.total_seconds():.3f}" for time in times),
        cost.currency,
        *("" if amount is None else f"{amount:f}" for amount in amounts),
        "" if cost.gained is None else cost.gained,
        str(cost.paid.is_estimated).lower(),
    ]


def _start(since: str, now: datetime) -> datetime | None:
    if not since:
        return None
    try:
        return now - timedelta(seconds=parse_duration(since))
    except (ValueError, OverflowError):
        pass  # then it is a date
    try:
        return datetime.fromisoformat(since).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since takes a date or a duration such as 7d, not {since!r}",
            fix="--since 2026-01-31",
        ) from None
