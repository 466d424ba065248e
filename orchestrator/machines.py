"""The machines: a link to one, what the doctor finds, what its store holds, and a new one."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Self

from orchestrator.config import (
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
from orchestrator.remotes import add_remote
from orchestrator.spec import Price, Remote, Workspace
from remote.protocol import Heap, Tidied, Tidy


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
            )
        return checks

    def tidy(self, name: str, *, keep_days: float, drop: bool) -> tuple[Heap, ...]:
        """What a remote's store holds, and what went or could go."""
        remote = find_remote(self._workspace, name)
        self._console.doing(f"asking {name}")
        keep = self._runs_not_home(name)
        if keep:
            self._console.warn(
                f"{len(keep)} runs stay: their outputs are not here yet (train pull)"
            )
        with open_link(remote, self._console.asker(), self._accept) as link:
            return link.call(Tidy(keep_days, drop, keep), Tidied).heaps

    def _runs_not_home(self, name: str) -> tuple[str, ...]:
        """Runs on this remote, of any workspace here, whose outputs somebody may still want."""
        return tuple(mirror.run_id for mirror in _mirrors_on(name) if not mirror.settled)

    def add(self, remote: Remote) -> tuple[str, str]:
        """Check the host key with the user, then remember the remote; the key's type and print.

        Raises:
            UsageError: the name is taken or something given makes no sense.
            ConnectError: not reached, or its key is not trusted; nothing is remembered.
        """
        _check(remote)
        if remote.name in {known.name for known in known_remotes(None)}:
            raise UsageError(
                f"a remote named {remote.name!r} exists already",
                fix=f"train remote remove {remote.name}",
            )
        self._console.doing(f"asking {remote.host} for its host key")
        found = check_host_key(remote, self._console.asker(), self._accept)
        add_remote(remotes_file(), remote)
        return found


def parse_price(text: str, currency: str) -> Price | None:
    """The price that `--price` says; None when it says nothing.

    Raises:
        UsageError: not an amount above 0.
    """
    if not text:
        return None
    try:
        per_hour = Decimal(text)
    except InvalidOperation:
        per_hour = Decimal(0)
    if not per_hour.is_finite() or per_hour <= 0:
        raise UsageError(
            f"--price takes an amount per hour above 0, not {text!r}",
            fix="leave it out when you do not know it; then the cost is `unknown`",
        )
    return Price(per_hour, currency)


def _check(remote: Remote) -> None:
    """Raise UsageError before anything is asked, where the file of remotes could not hold it."""
    try:
        parse_remotes(format_remotes((remote,)), remotes_file())
    except ConfigError as error:
        # The file and its line are not what the user typed; what stands behind them is.
        wrong = "; ".join(line.partition(": ")[2] for line in str(error).splitlines())
        raise UsageError(f"this cannot be a remote: {wrong}", fix="train remote add -h") from None
    if remote.key and not Path(remote.key).is_file():
        raise UsageError(f"there is no key file {remote.key}", fix="--key takes a private key")


def open_runs(name: str) -> tuple[str, ...]:
    """Runs that were sent to this remote and have not ended, as far as this laptop knows."""
    return tuple(
        mirror.run_id
        for mirror in _mirrors_on(name)
        if mirror.seen is not None and not mirror.ended
    )


def _mirrors_on(name: str) -> list[Mirror]:
    with Ledger.open(ledger_file()) as ledger:
        facts = ledger.runs(remote=name)
    found = (Mirrors(Path(fact.workspace) / ".train").get(fact.run_id) for fact in facts)
    return [mirror for mirror in found if mirror is not None]
