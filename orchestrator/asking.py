"""Asks the remotes about runs: each remote once, whatever the others say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.errors import TrainshedError, UsageError
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirror
from orchestrator.settings.config import find_remote, known_machines
from orchestrator.settings.spec import Remote, Workspace
from orchestrator.vm.follow import first_look, look_at_all

if TYPE_CHECKING:
    from orchestrator.roundtrip import Connect

Unasked = dict[str, TrainshedError]
"""Why a remote could not be asked, by its name or by run id."""

Take = Callable[[Remote, Sequence[Mirror]], None]


class Asking:
    """The remotes of some runs.

    Args:
        mirrors: those to ask about.

    Attributes:
        remotes: those that can be asked, by name.
    """

    def __init__(self, workspace: Workspace, ledger: Ledger, mirrors: Sequence[Mirror]) -> None:
        self._by_remote: dict[str, list[Mirror]] = {}
        for mirror in mirrors:
            self._by_remote.setdefault(ledger.remote_of(mirror.run_id), []).append(mirror)
        self._troubles: Unasked = {}
        self.remotes: dict[str, Remote] = {}
        known = {remote.name: remote for remote in known_machines(workspace)}
        for name, mine in self._by_remote.items():
            try:
                self.remotes[name] = known.get(name) or remote_of(workspace, ledger, mine[0])
            except UsageError as error:
                self._troubles[name] = error

    def look(self, connect: Connect) -> Unasked:
        """Learn where the runs stand, from all remotes at once; by run id, why not."""
        ways = {
            name: partial(connect, remote, [first_look(self._by_remote[name])])
            for name, remote in self.remotes.items()
        }
        return self._by_run(look_at_all(ways, self._by_remote))

    def take_home(self, take: Take) -> Unasked:
        """Have what ended brought home, from one remote after the other, as each may take all of
        the line; by run id, why not.
        """
        troubles: Unasked = {}
        for name, remote in self.remotes.items():
            try:
                take(remote, self._by_remote[name])
            except TrainshedError as error:
                troubles[name] = error
        return self._by_run(troubles)

    def _by_run(self, troubles: Mapping[str, TrainshedError]) -> Unasked:
        told = {**self._troubles, **troubles}
        return {mirror.run_id: e for name, e in told.items() for mirror in self._by_remote[name]}


def remote_of(workspace: Workspace, ledger: Ledger, mirror: Mirror) -> Remote:
    """The remote a run was sent to.

    Raises:
        UsageError: nobody knows, or it was removed.
    """
    name = ledger.remote_of(mirror.run_id)
    if not name:
        raise UsageError(
            f"the ledger does not know where {mirror.run_id} was sent",
            cause=f"{ledger.path} has no record of it",
            fix="look with the TRAINSHED_HOME that it was started with",
        )
    return find_remote(workspace, name)
