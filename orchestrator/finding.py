"""The run that a user means by what was typed."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.errors import UsageError
from orchestrator.records.mirror import UNKNOWN, Mirror, Mirrors, readable
from orchestrator.screen.tell import Teller
from remote.runfolder import chief_id


def find_run(mirrors: Mirrors, text: str, tell: Teller) -> Mirror:
    """A run by id, by the beginning of one, or a category's last; of a gang, `category.w1` as well,
    as its log is labelled.

    Raises:
        UsageError: none, or more than one.
    """
    exact = mirrors.get(text)
    if exact is not None and readable([exact], tell):
        return exact
    job = text.strip("/")
    if (found := _last_of(mirrors, job, tell)) is not None:
        return found
    if (chief := _last_of(mirrors, chief_id(job), tell)) is not None:
        worker = mirrors.get(chief.run_id + job.removeprefix(chief_id(job)))
        if worker is not None and readable([worker], tell):
            return worker
    begun = tuple(_begun(mirrors, text, tell))
    if len(begun) == 1:
        return begun[0]
    if begun:
        names = ", ".join(m.run_id for m in reversed(begun[:5]))
        raise UsageError(
            f"{text!r} could be any of {len(begun)} runs", cause=names, fix="type more of it"
        )
    chiefs = [m.run_id for m in mirrors.latest(5) if m.run_id == chief_id(m.run_id)]
    last = ", ".join(chiefs) or "none"
    raise UsageError(
        f"no run is or begins with {text!r}",
        cause=f"known here: {last}",
        fix="train status --all",
    )


def _last_of(mirrors: Mirrors, job: str, tell: Teller) -> Mirror | None:
    """The category's last run that its VM got, of a gang its chief."""
    for mirror in _begun(mirrors, f"{job}-", tell):
        if mirror.verdict != UNKNOWN and mirror.request.job == job:
            return mirror
    return None


def _begun(mirrors: Mirrors, text: str, tell: Teller) -> Iterator[Mirror]:
    """Runs whose ids begin with `text` and whose requests can be read, the last one first; of a
    gang its chief, unless that does not begin so.
    """
    for mirror in mirrors.begun(text):
        if (chief := chief_id(mirror.run_id)) == mirror.run_id or not chief.startswith(text):
            yield from readable([mirror], tell)
