"""What the doctor says of a machine's money: who rents it out, its guard, its budgets. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.clouds.power import Power
from orchestrator.costs.purse import WARN_AT, Budget
from orchestrator.costs.statement import stops_at
from orchestrator.screen.printable import printable
from orchestrator.vm.check import Check, Mark

if TYPE_CHECKING:
    from orchestrator.costs.paydesk import Seen
    from remote.protocol import Kept


def money_checks(seen: Seen, bounds: Sequence[Budget], file: Path) -> Iterator[Check]:
    """Nothing where a machine costs nothing, as far as anybody said.

    Args:
        file: where the user says what has no option.
    """
    remote = seen.remote
    if remote.price is None and remote.cloud is None:
        return
    # A cluster is nobody's to start and stop from here.
    if remote.slurm is None:
        yield _check_cloud(seen, file)
        yield from _check_session(seen)
    if not bounds:
        yield Check("budget", Mark.OK, "none is set")
    for budget in bounds:
        is_near = budget.spent >= budget.limit * WARN_AT
        yield Check("budget", Mark.WARN if is_near else Mark.OK, str(budget))


def _check_session(seen: Seen) -> Iterator[Check]:
    if seen.kept is not None:
        yield _check_guard(seen, seen.kept)
    elif seen.tally is None:
        fix = f"train session start {seen.remote.name} --hours 3 --idle 20m"
        found = "no session is open"
        if not seen.power.is_down:
            found += ", so nothing stops it by itself"
        is_on = seen.power in (Power.RUNNING, Power.STOPPED_BILLED)
        yield Check("guard", Mark.WARN if is_on else Mark.OK, found, fix if is_on else "")


def _check_cloud(seen: Seen, file: Path) -> Check:
    remote, cloud = seen.remote, seen.remote.cloud
    if cloud is None or not remote.is_rented:
        found = "nobody is named who rents it out, so only you can start and stop it"
        fix = f"in {file}, under remotes: {remote.name}: cloud: {{provider: azure, ...}}"
        return Check("cloud", Mark.OK if cloud else Mark.WARN, found, "" if cloud else fix)
    if seen.power is Power.STOPPED_BILLED:
        found = f"{cloud.provider}: stopped, STILL BILLED"
        return Check("cloud", Mark.WARN, found, f"train down {remote.name}")
    if seen.power is Power.UNKNOWN:
        return Check(
            "cloud", Mark.WARN, f"{cloud.provider}: {printable(seen.trouble or 'unknown')}"
        )
    return Check("cloud", Mark.OK, f"{cloud.provider}: {seen.power}")


def _check_guard(seen: Seen, kept: Kept) -> Check:
    name, down = "guard", f"train down {seen.remote.name}"
    if kept.trouble:
        return Check(name, Mark.WARN, f"cannot stop it: {printable(kept.trouble)}", down)
    at = stops_at(kept, seen.clock_off_s)
    if at is None:
        return Check(name, Mark.WARN, "nothing ends the session by itself", down)
    found = f"stops it at {at.astimezone():%H:%M} as things stand ({printable(kept.why)})"
    if kept.fragile:
        return Check(name, Mark.WARN, f"{found}, but not after a reboot: {printable(kept.fragile)}")
    return Check(name, Mark.OK, found)
