"""The ledger's costs, grouped and filtered as the user asks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.config import load_workspace
from orchestrator.cost import By, CostRow
from orchestrator.duration import parse_duration
from orchestrator.errors import ConfigError, UsageError
from orchestrator.home import ledger_file
from orchestrator.ledger import Ledger
from orchestrator.money import recorded_costs


def bill(folder: Path, *, by: str, since: str, everywhere: bool) -> tuple[CostRow, ...]:
    """Rows of cost for the workspace of `folder`, or for all.

    Raises:
        UsageError: no such grouping or date, or no workspace here; then all is still to be had.
    """
    if by not in set(By):
        raise UsageError(f"--by takes {', '.join(By)}, not {by!r}", fix="train cost --by run")
    start = _start(since, datetime.now(UTC))
    root = None if everywhere else _root(folder)
    with Ledger.open(ledger_file()) as ledger:
        return recorded_costs(ledger, By(by), root, start)


def _root(folder: Path) -> str:
    try:
        return str(load_workspace(folder).root)
    except ConfigError:
        raise
    except UsageError as error:
        error.fix = "go to your workspace, or for all of them: train cost --all"
        raise


def bill_csv(by: str, rows: Iterable[CostRow]) -> str:
    """One line for each row and currency."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([by, "runs", "seconds", "currency", "amount", "unknown_runs", "estimated"])
    for row in rows:
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
                ]
            )
    return text.getvalue()


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
