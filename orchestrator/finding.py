"""The run that a user means by what was typed."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.errors import UsageError
from orchestrator.mirror import UNKNOWN, Mirror, Mirrors, readable
from orchestrator.tell import Teller


def find_run(mirrors: Mirrors, text: str, tell: Teller) -> Mirror:
    """A run by id, by the beginning of one, or a category's last.

    Raises:
        UsageError: none, or more than one.
    """
    exact = mirrors.get(text)
    if exact is not None and readable([exact], tell):
        return exact
    job = text.strip("/")
    for mirror in _begun(mirrors, f"{job}-", tell):
        if mirror.verdict != UNKNOWN and mirror.request.job == job:
            return mirror
    begun = tuple(_begun(mirrors, text, tell))
    if len(begun) == 1:
        return begun[0]
    if begun:
        names = ", ".join(m.run_id for m in reversed(begun[:5]))
        raise UsageError(
            f"{text!r} could be any of {len(begun)} runs", cause=names, fix="type more of it"
        )
    last = ", ".join(m.run_id for m in mirrors.latest(5)) or "none"
    raise UsageError(
        f"no run is or begins with {text!r}",
        cause=f"known here: {last}",
        fix="train status --all",
    )


def _begun(mirrors: Mirrors, text: str, tell: Teller) -> Iterator[Mirror]:
    """Runs whose ids begin with `text` and whose requests can be read, the last one first."""
    for mirror in mirrors.begun(text):
        yield from readable([mirror], tell)
