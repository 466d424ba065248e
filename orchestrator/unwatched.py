"""Jobs of whose training nothing would be seen although `metrics: on` asks for it.

Keras's fit is watched by the `python` and `python3` that a run's PATH begins with; a command that
names another interpreter passes them by (`remote/launcher.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from orchestrator.plan import Order
from orchestrator.screen.printable import printable
from orchestrator.settings.spec import Job
from orchestrator.source.scripts import scripts_of, words_of

_INTERPRETER = re.compile(r"(?:.*/)?python[0-9.]*")
_WATCHED = ("python", "python3")
# What a script that tells its epochs itself has to name.
_BY_ITSELF = "TRAINSHED_METRICS"


def unwatched(order: Order) -> Iterator[str]:
    """What to warn of, at most once for each job; not of a script that tells its epochs itself."""
    for job in order.jobs:
        python = next(filter(_INTERPRETER.fullmatch, words_of(job.command)), _WATCHED[0])
        if job.metrics and python not in _WATCHED and not _tells_itself(order, job):
            python = printable(python)
            yield (
                f"no metrics of {job.name} will be seen: python and python3 are watched, "
                f"{python} is not; begin the command with python (train remote set NAME "
                f"--python {python}), write them to {_BY_ITSELF} (docs/sweeps.md), or say "
                "metrics: off"
            )


def _tells_itself(order: Order, job: Job) -> bool:
    if _BY_ITSELF in job.command:
        return True
    for script in scripts_of(order.workspace.root, job.command):
        with suppress(OSError):
            if _BY_ITSELF.encode() in script.read_bytes():
                return True
    return False
