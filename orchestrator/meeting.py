"""What follows for the account when a command has met a machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from orchestrator.ledger import Ledger
from orchestrator.payments import Payments
from orchestrator.purse import hourly
from orchestrator.spec import Remote
from orchestrator.tell import Teller
from remote.protocol import Hello


@dataclass(frozen=True)
class Met:
    """A machine that let us in, and what it said then."""

    remote: Remote
    hello: Hello
    clock_off_s: float


def keep_account(ledger: Ledger, met: Iterable[Met], busy: Collection[str], tell: Teller) -> None:
    """Record that they are on, and say which of them cost money and do nothing.

    Args:
        busy: names of the remotes on which runs of this workspace go on.
    """
    for machine in met:
        remote = machine.remote
        payments = Payments(ledger, remote, tell)
        # Where no cloud is asked, what lies in a session is counted.
        if payments.provider is not None or ledger.open_sessions(remote.name):
            payments.by_login(machine.hello, machine.clock_off_s)
        if remote.name not in busy and (remote.cloud is not None or remote.price is not None):
            tell.warn(
                f"{remote.name} is on and idle, at {hourly(remote.price)}; {_way_out(remote)}"
            )


def _way_out(remote: Remote) -> str:
    if remote.is_rented:
        return f"to end that: train down {remote.name}"
    return "to end that, stop it where you rented it"
