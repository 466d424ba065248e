"""The user's own remotes file: what `train remote add|set|remove` change."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal, TypeVar

from orchestrator.errors import ConfigError, UsageError
from orchestrator.filelock import alone
from orchestrator.settings.config import (
    format_remotes,
    load_month_limit,
    load_remotes,
    parse_remotes,
)
from orchestrator.settings.node import nearest
from orchestrator.settings.pool import named
from orchestrator.settings.spec import EnvSpec, Price, Remote
from remote.atomic import replace_file
from remote.runfolder import Slurm

Value = TypeVar("Value", int, str)
Number = int | Literal[""]
"""What stands for one that is taken away is empty, as with words."""


@dataclass(frozen=True)
class Said:
    """What the user says of a remote: None says nothing, an empty text takes away.

    Attributes:
        hosts: of a pool, with commas between them.
        price: per hour, as it was typed.
    """

    host: str | None = None
    hosts: str | None = None
    user: str | None = None
    port: Number | None = None
    key: str | None = None
    price: str | None = None
    currency: str | None = None
    gpus: Number | None = None
    python: str | None = None
    requirements: str | None = None
    engine: str | None = None


def add_remote(path: Path, remote: Remote) -> None:
    """Put `remote` at the end of the file at `path`. Comments in the file are lost.

    After a crash the file is the old or the new one. Two that add at once both succeed.

    Raises:
        UsageError: the name is taken, the file cannot be written, or would not be read back.
    """
    with _locked(path):
        remotes = load_remotes(path)
        if any(known.name == remote.name for known in remotes):
            raise exists_already(remote)
        _write(path, (*remotes, remote))


def exists_already(remote: Remote, accept: str = "") -> UsageError:
    """What to say where the name of a new remote is taken.

    Args:
        accept: the host key's fingerprint that was named with it.
    """
    anew = f"to begin anew: train remote remove {remote.name}"
    words = [*("train", "remote", "set", remote.name), *_options(remote)]
    words += ["--accept-host-key", accept] if accept else []
    return UsageError(
        f"a remote named {remote.name!r} exists already",
        fix=anew if remote.hosts else f"to change it: {shlex.join(words)}; {anew}",
    )


def _options(remote: Remote) -> Iterator[str]:
    """What says the same of a machine on the command line."""
    price = remote.price
    said = {
        "host": remote.host,
        "user": remote.user,
        "port": remote.port,
        "key": remote.key,
        "price": price and price.per_hour,
        "currency": price and price.currency,
        "gpus": remote.gpus,
        "engine": remote.slurm and "slurm",
        "python": remote.env.python,
        "requirements": remote.env.requirements,
    }
    for option, value in said.items():
        if value is not None:
            yield from (f"--{option}", str(value))


def pick_remote(path: Path, name: str) -> Remote:
    """The remote of this name in the file at `path`.

    Raises:
        UsageError: there is none; says which there are.
    """
    return _pick(load_remotes(path), name, path)


def change_remote(path: Path, name: str, change: Callable[[Remote], Remote]) -> Remote:
    """Put what `change` makes of a remote in its place in the file, and give it back.

    The other remotes, and their order, stay. Comments in the file are lost. After a crash the file
    is the old or the new one.

    Raises:
        UsageError: there is none of this name, or the file cannot be written or read back.
    """
    with _locked(path):
        remotes = load_remotes(path)
        new = change(_pick(remotes, name, path))
        _write(path, tuple(new if known.name == name else known for known in remotes))
    return new


def remove_remote(path: Path, name: str) -> Remote:
    """Take the remote of this name out of the file at `path`, and give it back.

    Raises:
        UsageError: there is none, or the file cannot be written.
    """
    with _locked(path):
        remotes = load_remotes(path)
        gone = _pick(remotes, name, path)
        _write(path, tuple(remote for remote in remotes if remote.name != name))
    return gone


def drain(path: Path, name: str, host: str, *, undo: bool) -> str:
    """Put a host of a pool among those that take no runs, or take it out; as the list has it.

    Args:
        host: as the list has it, or as its runs do.

    Raises:
        UsageError: it is no host of the pool, or the file cannot be written or read back.
    """
    entry = ""

    def change(pool: Remote) -> Remote:
        nonlocal entry
        entry = next((e for e in pool.hosts if host in (e, named(pool.name, e))), "")
        if not entry:
            raise UsageError(
                f"{host} is no host of {name}",
                cause=f"{name} lists {', '.join(pool.hosts) or 'none'}",
                fix=f"train remote show {name}",
            )
        others = tuple(other for other in pool.drained if other != entry)
        return replace(pool, drained=others if undo else (*others, entry))

    change_remote(path, name, change)
    return entry


def changed(remote: Remote, said: Said) -> Remote:
    """`remote` with what was said of it; what is None stays, what is empty goes.

    Raises:
        UsageError: not a price above 0, or a currency without a price.
    """
    price = _price(remote.price, said.price, said.currency)
    env = EnvSpec(
        python=_chosen(remote.env.python, said.python),
        requirements=_chosen(remote.env.requirements, said.requirements),
    )
    kept = remote.slurm if said.engine is None else None
    hosts = remote.hosts if said.host is None else ()
    if said.hosts is not None:
        hosts = tuple(entry.strip() for entry in said.hosts.split(","))
    return replace(
        remote,
        host=remote.host if said.host is None else said.host,
        hosts=hosts,
        drained=tuple(entry for entry in remote.drained if entry in hosts),
        user=_chosen(remote.user, said.user),
        port=_chosen(remote.port, said.port),
        key=_chosen(remote.key, said.key),
        gpus=_chosen(remote.gpus, said.gpus),
        price=price,
        env=env,
        slurm=(remote.slurm or Slurm()) if said.engine == "slurm" else kept,
    )


def _chosen(old: Value | None, said: Value | Literal[""] | None) -> Value | None:
    return old if said is None else said if said != "" else None


def _price(old: Price | None, amount: str | None, currency: str | None) -> Price | None:
    if amount is None:
        new = old
    elif amount == "":
        new = None
    else:
        per_hour = _amount(amount)
        new = replace(old, per_hour=per_hour) if old else Price(per_hour)
    if currency is None or (new is None and currency == ""):
        return new
    if new is None:
        raise UsageError(f"--currency {currency} needs a price", fix="name it too: --price 0.50")
    return replace(new, currency=currency or Price(new.per_hour).currency)


def _amount(text: str) -> Decimal:
    try:
        per_hour = Decimal(text)
    except InvalidOperation:
        per_hour = Decimal(0)
    if not per_hour.is_finite() or per_hour <= 0:
        raise UsageError(
            f"--price takes an amount per hour above 0, not {text!r}",
            fix="leave it out when you do not know it; then the cost is `unknown`",
        )
    return per_hour


def _pick(remotes: tuple[Remote, ...], name: str, path: Path) -> Remote:
    found = next((remote for remote in remotes if remote.name == name), None)
    if found is None:
        names = ", ".join(remote.name for remote in remotes) or "none"
        near = nearest(name, [remote.name for remote in remotes])
        raise UsageError(
            f"no remote is named {name!r} in {path}",
            cause=f"it holds {names}",
            fix=f"did you mean {near}?" if near else "see which are known here: train remote list",
        )
    return found


def _write(path: Path, remotes: tuple[Remote, ...]) -> None:
    text = format_remotes(remotes, load_month_limit(path))
    # What could not be read again must not be written.
    if parse_remotes(text, path) != remotes:
        raise ConfigError(f"the remotes would not be the same when read back from {path}")
    # A link, as dotfiles often are, stays a link.
    target = Path(os.path.realpath(path))
    try:
        replace_file(target, text.encode())
        target.chmod(0o600)
    except OSError as error:
        raise UsageError(f"cannot write {path}", cause=_why(error)) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the file until the end, whatever other commands run."""
    lock = path.with_name(f"{path.name}.lock")
    with ExitStack() as stack:
        try:
            path.parent.stat()  # Made by whoever names the file, for its owner's eyes.
            stack.enter_context(alone(lock))
        except OSError as error:
            raise UsageError(f"cannot write {lock}", cause=_why(error)) from error
        yield


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
