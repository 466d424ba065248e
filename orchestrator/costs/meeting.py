"""What follows for the account when a command has met a machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from orchestrator.costs.payments import Payments
from orchestrator.costs.purse import hourly, way_out
from orchestrator.records.ledger import Ledger
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Remote
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
        if remote.slurm is not None:
            continue  # a login node costs nothing; what its runs had is paid for
        payments = Payments(ledger, remote, tell)
        # Where no cloud is asked, what lies in a session is counted.
        if payments.provider is not None or ledger.open_sessions(remote.name):
            payments.by_login(machine.hello, machine.clock_off_s)
        if remote.name not in busy and (remote.cloud is not None or remote.price is not None):
            tell.warn(f"{remote.name} is on and idle, at {hourly(remote.price)}; {way_out(remote)}")
