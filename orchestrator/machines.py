"""The machines: a link to one, what the doctor finds, what its store holds, and a new one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from orchestrator.config import (
    FILE_NAME,
    find_remote,
    format_remotes,
    known_remotes,
    parse_remotes,
    workspace_here,
)
from orchestrator.console import Console
from orchestrator.doctor import Check, check_laptop, check_remote
from orchestrator.errors import ConfigError, UsageError
from orchestrator.home import ledger_file, remotes_file
from orchestrator.ledger import Ledger
from orchestrator.mirror import Mirror, Mirrors
from orchestrator.reach import check_host_key, open_link
from orchestrator.remotes import (
    Said,
    add_remote,
    change_remote,
    changed,
    exists_already,
    pick_remote,
)
from orchestrator.shelf import Shelf
from orchestrator.spec import Remote, Workspace
from remote.protocol import Heap, Tidied, Tidy

# How many are named of runs that stay, and of one run's files.
_TOLD_RUNS = 20
_TOLD_FILES = 5


class Machines:
    """The remotes that are known where the user stands.

    Args:
        accept: a host key's fingerprint trusted beforehand.
    """

    def __init__(self, workspace: Workspace | None, console: Console, accept: str = "") -> None:
        self._workspace = workspace
        self._console = console
        self._accept = accept

    @classmethod
    def here(cls, console: Console, accept: str = "") -> Self:
        """The user's, and those of the workspace of the current folder where there is one."""
        return cls(workspace_here(), console, accept)

    def examine(self, name: str) -> list[Check]:
        """The doctor's checks: here, and on a remote if one is named."""
        checks = list(check_laptop())
        if name:
            remote = find_remote(self._workspace, name)
            requirements = ""
            if self._workspace and remote.env.requirements:
                path = self._workspace.root / remote.env.requirements
                requirements = path.read_text("utf-8") if path.is_file() else ""
            checks += check_remote(
                remote,
                lambda: open_link(remote, self._console.asker(), self._accept),
                requirements,
                self._console,
                self._file_here(name),
                self._workspace.exam_tensorflow if self._workspace else "",
            )
        return checks

    def tidy(
        self, name: str, *, keep_days: float, drop: bool, force: bool = False
    ) -> tuple[Heap, ...]:
        """What a remote's store holds, and what went or could go.

        Args:
            force: also runs of which the VM may have the only copy; without it they are told.
        """
        remote = find_remote(self._workspace, name)
        self._console.doing(f"asking {name}")
        away = _away(name)
        home = tuple(run_id for run_id, why in away.items() if not why)
        with open_link(remote, self._console.asker(), self._accept) as link:
            tidied = link.call(Tidy(keep_days, drop, None if force else home), Tidied)
        for run_id in tidied.kept[:_TOLD_RUNS]:
            why = away.get(run_id, "it is another laptop's, or was forgotten here")
            self._console.warn(f"{run_id} stays: {why}")
        if tidied.kept:
            more = len(tidied.kept) - _TOLD_RUNS
            and_more = f"{more} more runs stay; " if more > 0 else ""
            self._console.warn(f"{and_more}to let such go, too: train gc {name} --drop --force")
        return tidied.heaps

    def add(self, remote: Remote) -> tuple[str, str]:
        """Check the host key with the user, then remember the remote; the key's type and print.

        Raises:
            UsageError: the name is taken or something given makes no sense.
            ConnectError: not reached, or its key is not trusted; nothing is remembered.
        """
        _check(remote, "train remote add -h")
        _check_key(remote.key)
        if remote.name in {known.name for known in known_remotes(None)}:
            raise exists_already(remote)
        found = self._greet(remote)
        add_remote(remotes_file(), remote)
        return found

    def change(self, name: str, said: Said, *, force: bool = False) -> Change:
        """Put what was said of a remote into the user's file, and leave the rest of it as it is.

        A machine at another address or port is greeted as a new one is.

        Args:
            force: even if runs may still go on at the old address.

        Raises:
            UsageError: nothing was said, it makes no sense, the user's file has no such remote, or
                runs may still go on there.
            ConnectError: not reached, or its key is not trusted; nothing is changed.
        """
        if said == Said() and not self._accept:
            raise UsageError(
                f"nothing was said to change of {name}",
                fix=f"train remote set {name} --price 0.50; for more see: train remote set -h",
            )
        file, workspaces = remotes_file(), self._file_here(name)
        if workspaces and name not in {known.name for known in known_remotes(None)}:
            raise UsageError(
                f"the remote {name!r} is in {workspaces}, which `train remote set` leaves alone",
                fix=f"change it there, under remotes: {name}:",
            )
        old = pick_remote(file, name)
        new = changed(old, said)
        _check(new, "train remote set -h")
        if said.key:
            _check_key(said.key)
        moved = (new.host, new.port) != (old.host, old.port)
        if moved and not force and (runs := open_runs(name)):
            raise UsageError(
                f"runs may still go on {name} at its old address, and cost money: "
                f"{', '.join(runs)}",
                cause="at the new address nobody knows of them, and they would count as lost",
                fix="wait for them, or cancel them; or, if it is the same machine or the old one "
                "is gone, the same with --force",
            )
        host_key = self._greet(new) if moved or self._accept else None
        if host_key and self._accept not in ("", host_key[1]):
            raise UsageError(
                f"{name} shows the host key {host_key[1]}, not the accepted {self._accept}",
                fix="compare it with what the machine's console or cloud shows",
            )
        new = change_remote(file, name, partial(changed, said=said))
        if workspaces:
            self._console.warn(f"{workspaces} says more of {name}, and goes first in its workspace")
        return Change(old, new, host_key)

    def _greet(self, remote: Remote) -> tuple[str, str]:
        self._console.doing(f"asking {remote.host} for its host key")
        return check_host_key(remote, self._console.asker(), self._accept)

    def _file_here(self, name: str) -> Path | None:
        """The workspace's file, if it says anything of this remote."""
        if self._workspace and name in {known.name for known in self._workspace.remotes}:
            return self._workspace.root / FILE_NAME
        return None


@dataclass(frozen=True)
class Change:
    """A remote before and after.

    Attributes:
        host_key: its type and fingerprint, where the machine was greeted.
    """

    old: Remote
    new: Remote
    host_key: tuple[str, str] | None


def _check(remote: Remote, usage: str) -> None:
    """Raise UsageError before anything is asked, where the file of remotes could not hold it."""
    try:
        parse_remotes(format_remotes((remote,)), remotes_file())
    except ConfigError as error:
        # The file and its line are not what the user typed; what stands behind them is.
        wrong = "; ".join(line.partition(": ")[2] for line in str(error).splitlines())
        raise UsageError(f"this cannot be a remote: {wrong}", fix=usage) from None


def _check_key(key: str | None) -> None:
    if key and not Path(key).is_file():
        raise UsageError(f"there is no key file {key}", fix="--key takes a private key")


def open_runs(name: str) -> tuple[str, ...]:
    """Runs that were sent to this remote and have not ended, as far as this laptop knows."""
    return tuple(
        mirror.run_id
        for mirror in _mirrors_on(name)
        if not (mirror.ended or mirror.settled or mirror.is_known_unsent)
    )


def _away(name: str) -> dict[str, str]:
    """What each run on this remote, of any workspace here, made that is not here; empty where all
    is, or where nobody wants it any more.
    """
    with Ledger.open(ledger_file()) as ledger:
        return {mirror.run_id: _why_away(mirror, ledger) for mirror in _mirrors_on(name)}


def _why_away(mirror: Mirror, ledger: Ledger) -> str:
    if mirror.is_known_unsent:
        return ""
    if not mirror.settled:
        return "its outputs are not here yet (train pull)"
    shelf = Shelf(mirror.folder.parent.parent)
    here = {fact.path for fact in ledger.artifacts(mirror.run_id) if shelf.find(fact.sha256)}
    made = mirror.seen.report.artifacts if mirror.seen else ()
    there = [ascii(artifact.path) for artifact in made if artifact.path not in here]
    if not there:
        return ""
    more = f" and {len(there) - _TOLD_FILES} more" if len(there) > _TOLD_FILES else ""
    return f"of {', '.join(there[:_TOLD_FILES])}{more} it has the only copy"


def _mirrors_on(name: str) -> list[Mirror]:
    with Ledger.open(ledger_file()) as ledger:
        facts = ledger.runs(remote=name)
    found = (Mirrors(Path(fact.workspace) / ".train").get(fact.run_id) for fact in facts)
    return [mirror for mirror in found if mirror is not None]
