"""Parameters that a script never asks for: a sweep of such pays for the same again and again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from orchestrator.settings.spec import Job
from orchestrator.source.snapshot import LocalTree

# Scripts are smaller; what is larger is data.
_SCRIPT_BYTES = 256 * 1024


def unread(
    names: Iterable[str], job: Job, others: Iterable[Job], code: LocalTree
) -> tuple[str, ...]:
    """Those of which no `PARAM_name` stands in the job's command or in a file of the code, those in
    the folders of other jobs aside.

    None where a file puts such names together (`f"PARAM_{name}"`), because it may read any.
    """
    lacking = dict.fromkeys(names)
    theirs = [each.folder for each in others if not job.folder.is_relative_to(each.folder)]
    for text in (job.command.encode(), *_texts(code, theirs)):
        if re.search(rb"PARAM_(?!\w)", text):
            return ()
        for name in [n for n in lacking if re.search(rb"PARAM_%b(?!\w)" % n.encode(), text)]:
            del lacking[name]
    return tuple(lacking)


def _texts(code: LocalTree, without: Iterable[PurePosixPath]) -> Iterator[bytes]:
    for path, entry in code.tree.items():
        if any(PurePosixPath(path).is_relative_to(folder) for folder in without):
            continue
        if entry.sha256 and entry.size_bytes <= _SCRIPT_BYTES:
            try:
                yield (code.folder / path).read_bytes()
            except OSError:
                continue  # it went away just now; sending it will say so
