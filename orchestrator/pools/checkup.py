"""The doctor's look at the hosts of a pool: all asked at once, told one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.costs.checkup import money_checks
from orchestrator.costs.paydesk import PayDesk
from orchestrator.settings.pool import Pool
from orchestrator.vm.check import Check, Mark
from orchestrator.vm.machines import Machines


@dataclass(frozen=True)
class Checkup:
    """What was found on one host."""

    host: str
    is_drained: bool
    checks: tuple[Check, ...]

    @property
    def failed(self) -> str:
        """The names of what is not well enough for a run."""
        return ", ".join(check.name for check in self.checks if check.mark is Mark.FAIL)


def check_hosts(pool: Pool, machines: Machines, desk: PayDesk) -> Iterator[Checkup]:
    """Each host with its money, in the list's order, as soon as those before it are done."""
    for host, found in machines.examine_all(pool):
        (seen,) = desk.look(host.name)
        money = money_checks(seen, desk.budgets(host), desk.file_of(pool.name))
        checks = tuple(check.within(pool.name, host.name) for check in (*found, *money))
        yield Checkup(host.name, host.name in pool.drained, checks)


def ready_line(pool: str, checkups: Sequence[Checkup]) -> str:
    """How many hosts would take a run, and which would not."""
    ready = [each for each in checkups if not (each.failed or each.is_drained)]
    parts = [f"ready: {len(ready)} of {len(checkups)} hosts of {pool}"]
    if failed := [f"{each.host} ({each.failed})" for each in checkups if each.failed]:
        parts.append(f"not ready: {', '.join(failed)}")
    if drained := [each.host for each in checkups if each.is_drained]:
        parts.append(f"drained: {', '.join(drained)}")
    return "; ".join(parts)
