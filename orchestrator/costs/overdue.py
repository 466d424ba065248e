"""The machine is stopped from here when its session came to its end while a command followed it.

Mostly its guard has stopped it by then. Where it has no right to, or its line is lost, nobody else
does. Small, because each run imports it before its line is up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import Interrupted, TrainshedError
from orchestrator.settings.spec import Workspace


@contextmanager
def until_end(workspace: Workspace, name: str, accept: str) -> Iterator[None]:
    """Within, runs are followed on a remote; who goes away with Ctrl-C leaves it to the guard.

    Args:
        accept: a host key's fingerprint trusted beforehand.
    """
    try:
        yield
    except Interrupted:
        raise
    except TrainshedError:
        try:
            _stop_if_over(workspace, name, accept)
        except TrainshedError as no:
            _warn(f"{name} could not be stopped, and costs money: {no}; again: train down {name}")
        raise
    _stop_if_over(workspace, name, accept)


def _stop_if_over(workspace: Workspace, name: str, accept: str) -> None:
    """Raises:
    CloudError: it may still be on.
    """
    from datetime import UTC, datetime

    from orchestrator.costs.bounds import past_end
    from orchestrator.records.ledger import Ledger
    from orchestrator.settings.config import find_remote
    from orchestrator.settings.home import ledger_file

    with Ledger.open(ledger_file()) as ledger:
        if not ledger.open_sessions(name):
            return
        remote = find_remote(workspace, name)
        why = past_end(ledger, remote, datetime.now(UTC))
    if not why or not remote.is_rented:
        return
    from orchestrator.costs.paydesk import PayDesk
    from orchestrator.costs.statement import tally_line
    from orchestrator.screen.console import Console

    with Console() as console, PayDesk(workspace, console, accept) as desk:
        console.step(f"{why} has come: {name} is to be off")
        tally = desk.down(name, force=True)
        if tally is not None:
            console.step(tally_line(tally))


def _warn(text: str) -> None:
    from orchestrator.screen.console import Console

    with Console() as console:
        console.warn(text)
