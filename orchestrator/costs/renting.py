"""A machine for the time of one command: started if need be, and stopped after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.costs.paydesk import PayDesk, Terms
from orchestrator.costs.statement import tally_line
from orchestrator.screen.console import Console
from orchestrator.settings.spec import Workspace
from orchestrator.vm.machines import open_runs

# Should the laptop go away meanwhile: as long as a person needs to come back.
_IDLE_S = 600.0
_CAPACITY_LIMIT_S = 1800.0


@contextmanager
def rented(workspace: Workspace, name: str, accept: str, *, detach: bool) -> Iterator[bool]:
    """Within, the machine is up; after, it is down again where nobody else had it on.

    Gives whether it is to be stopped after.

    Where runs go on, because the command was told to leave them or was cut off, the machine's own
    guard stops it when they have ended.
    """
    terms = Terms(idle_s=_IDLE_S, assumed=True)
    with Console() as console, PayDesk(workspace, console, accept) as desk:
        stops = not desk.up(name, terms, _CAPACITY_LIMIT_S).was_on and not detach
    try:
        yield stops
    finally:
        if stops:
            _stop(workspace, name, accept)


def _stop(workspace: Workspace, name: str, accept: str) -> None:
    runs = open_runs(name)
    with Console() as console, PayDesk(workspace, console, accept) as desk:
        if runs:
            console.warn(f"{name} stays on for {', '.join(runs)}; then: train down {name}")
            return
        tally = desk.down(name, force=False)
        if tally is not None:
            console.step(tally_line(tally))
