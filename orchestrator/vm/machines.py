"""The machines: a link to one, what the doctor finds, what its store holds, and a new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from orchestrator.connection.hostkeys import Asker
from orchestrator.errors import ConfigError, TrainshedError, UsageError
from orchestrator.outlook import keep_look
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.records.shelf import Shelf
from orchestrator.screen.console import Console
from orchestrator.screen.tell import Silence, Teller
from orchestrator.settings.config import (
    FILE_NAME,
    find_remote,
    format_remotes,
    known_remotes,
    parse_remotes,
    workspace_here,
)
from orchestrator.settings.home import ledger_file, remotes_file
from orchestrator.settings.pool import Pool, resolve
from orchestrator.settings.remotes import (
    Said,
    add_remote,
    change_remote,
    changed,
    exists_already,
    pick_remote,
)
from orchestrator.settings.spec import Remote, Workspace
from orchestrator.vm.check import Check, Mark
from orchestrator.vm.doctor import check_remote
from orchestrator.vm.reach import check_host_key, open_link
from orchestrator.vm.rounds import side_by_side
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

    def examine(self, name: str, *, with_job: bool = False) -> list[Check]:
        """The doctor's checks on a remote.

        Args:
            with_job: whether a cluster is given a job to look from.
        """
        remote = find_remote(self._workspace, name)
        return self._examine(remote, self._console.asker(), self._console, with_job=with_job)

    def examine_all(self, pool: Pool) -> Iterator[tuple[Remote, list[Check]]]:
        """The doctor's checks on each host, in the list's order; all are asked at once."""
        members = {member.name: member for member in pool.members}
        looks = {name: partial(self._look_at, member) for name, member in members.items()}
        for name, found in side_by_side(looks, self._console.asker(), self._console):
            yield members[name], found

    def _look_at(self, remote: Remote, asker: Asker | None) -> list[Check]:
        """One that fails in the middle takes nothing from the others."""
        try:
            return self._examine(remote, asker, Silence())
        except TrainshedError as error:
            return [Check("connection", Mark.FAIL, str(error), error.fix, error.exit_code)]

    def _examine(
        self, remote: Remote, asker: Asker | None, tell: Teller, *, with_job: bool = False
    ) -> list[Check]:
        requirements = ""
        if self._workspace and remote.env.requirements:
            path = self._workspace.root / remote.env.requirements
            requirements = path.read_text("utf-8") if path.is_file() else ""
        checks = check_remote(
            remote,
            lambda: open_link(remote, asker, self._accept),
            requirements,
            tell,
            self._file_here(remote.name),
            self._workspace.exam_tensorflow if self._workspace else "",
            partial(keep_look, remote, requirements),
            with_job=with_job,
        )
        return list(checks)

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
            raise exists_already(remote, self._accept)
        found = self._greet(remote)
        add_remote(remotes_file(), remote)
        return found

    def add_pool(self, remote: Remote) -> Pool:
        """Remember a remote that lists hosts, once the list makes sense; no host is asked.

        Raises:
            UsageError: the name is taken or something given makes no sense.
        """
        _check(remote, "train remote add -h")
        _check_key(remote.key)
        known = {other.name: other for other in known_remotes(self._workspace)}
        pool = _resolved(remote, known)
        add_remote(remotes_file(), remote)
        return pool

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
        if old.hosts and said.host:
            raise UsageError(
                f"{name} is a pool of {len(old.hosts)} hosts, and has no address of its own",
                fix=f"train remote set {name} --hosts {','.join(old.hosts)}",
            )
        if said.hosts is not None and not old.hosts:
            raise UsageError(
                f"{name} is a machine, and lists none",
                fix=f"train remote add POOL --hosts {name},...",
            )
        new = changed(old, said)
        _check(new, "train remote set -h")
        if said.key:
            _check_key(said.key)
        if old.hosts:
            self._check_list(old, new, force=force)
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

    def _check_list(self, old: Remote, new: Remote, *, force: bool) -> None:
        """Raises:
        UsageError: the new list makes no sense, or without what it leaves out nobody would know of
            runs that may still go on there.
        """
        known = {other.name: other for other in known_remotes(self._workspace)}
        stay = {member.name for member in _resolved(new, known).members}
        if force:
            return
        for member in _resolved(old, known).members:
            # A remote of its own is reached without the list.
            is_left = member.name not in stay and member.name not in known
            if is_left and (runs := open_runs(member.name)):
                raise UsageError(
                    f"runs may still go on {member.name}: {', '.join(runs)}",
                    cause="no command would reach them any more",
                    fix=f"train remote drain {old.name} {member.name}, until they are home; or, if "
                    "the machine is gone, the same with --force",
                )

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


def _resolved(pool: Remote, known: Mapping[str, Remote]) -> Pool:
    try:
        return resolve(pool, {**known, pool.name: pool})
    except ConfigError as error:
        raise UsageError(str(error), fix="mend what --hosts says") from None


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
    if mirror.is_known_unsent or mirror.is_outdone or not mirror.request.outputs:
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
