"""The user's own remotes file: what `train remote add|remove` change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.config import format_remotes, load_remotes, parse_remotes
from orchestrator.errors import ConfigError, UsageError
from orchestrator.filelock import alone
from orchestrator.spec import Remote
from remote.atomic import replace_file


def add_remote(path: Path, remote: Remote) -> None:
    """Put `remote` at the end of the file at `path`. Comments in the file are lost.

    After a crash the file is the old or the new one. Two that add at once both succeed.

    Raises:
        UsageError: the name is taken, the file cannot be written, or would not be read back.
    """
    with _locked(path):
        remotes = load_remotes(path)
        if any(known.name == remote.name for known in remotes):
            raise UsageError(
                f"a remote named {remote.name!r} exists already",
                fix=f"train remote remove {remote.name}, or change it in {path}",
            )
        _write(path, (*remotes, remote))


def remove_remote(path: Path, name: str) -> Remote:
    """Take the remote of this name out of the file at `path`, and give it back.

    Raises:
        UsageError: there is none, or the file cannot be written.
    """
    with _locked(path):
        remotes = load_remotes(path)
        gone = next((remote for remote in remotes if remote.name == name), None)
        if gone is None:
            names = ", ".join(remote.name for remote in remotes) or "none"
            raise UsageError(f"no remote is named {name!r} in {path}", cause=f"it holds {names}")
        _write(path, tuple(remote for remote in remotes if remote.name != name))
    return gone


def _write(path: Path, remotes: tuple[Remote, ...]) -> None:
    text = format_remotes(remotes)
    # What could not be read again must not be written.
    if parse_remotes(text, path) != remotes:
        raise ConfigError(f"the remotes would not be the same when read back from {path}")
    # A link, as dotfiles often are, stays a link.
    target = Path(os.path.realpath(path))
    try:
        replace_file(target, text.encode())
        target.chmod(0o600)
    except OSError as error:
        raise UsageError(f"cannot write {path}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the file until the end, whatever other commands run."""
    lock = path.with_name(f"{path.name}.lock")
    with ExitStack() as stack:
        try:
            path.parent.stat()  # Made by whoever names the file, for its owner's eyes.
            stack.enter_context(alone(lock))
        except OSError as error:
            raise UsageError(f"cannot write {lock}") from error
        yield
