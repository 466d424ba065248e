"""What is known of a machine before a run is sent there: its GPUs, and what would train.

<data folder>/looks/<remote>     what `train doctor` saw there last

An earlier run tells the version that it trained with, in its first line of metrics. Both hold only
for the interpreter and the requirements that they were seen with: whoever has mended these is not
warned again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import UsageError
from orchestrator.grades.versions import exam_cannot_read, gpu_unused, newest_for
from orchestrator.plan import Order
from orchestrator.records.curves import trained_with
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.screen.printable import printable
from orchestrator.settings.home import data_folder
from orchestrator.settings.spec import EnvSpec, Job, Remote
from orchestrator.source.pastcode import PastCode
from remote import clock
from remote.atomic import replace_file
from remote.protocol import Examined
from remote.record import Malformed, from_bytes, to_bytes

# Of runs, the last first: how many are asked for one of the same environment.
_RUNS = 20


class Look(NamedTuple):
    """What the doctor saw.

    Attributes:
        at: by this laptop's clock.
        requirements: sha256 of the file that says what is installed; empty where there is none.
        framework: as `tensorflow 2.12.0, keras 2.12.0`; empty where it was not seen.
    """

    at: str
    host: str
    python: str
    requirements: str
    gpus: tuple[str, ...]
    framework: str


def keep_look(remote: Remote, requirements: str, examined: Examined) -> None:
    """Remember what a doctor saw; what cannot be kept is no trouble.

    Args:
        requirements: text of the file; empty for none.
    """
    # Before the first run there is no environment, and its base was asked instead.
    is_base = requirements and "/envs/" not in examined.python
    look = Look(
        clock.now(),
        remote.host,
        remote.python,
        _sha256(requirements.encode()),
        examined.driver_gpus,
        "" if is_base else examined.framework,
    )
    with suppress(OSError, UsageError):
        file = _file(remote)
        file.parent.mkdir(exist_ok=True)
        replace_file(file, to_bytes(look))


def misfits(order: Order, ledger: Ledger) -> list[str]:
    """What to warn of before anything is sent: a GPU that would be paid for and idle, and models
    that the exam could not read. Only of what was seen; each once.
    """
    look = _last_look(order.remote)
    return list(dict.fromkeys(text for job in order.jobs for text in _of(job, order, ledger, look)))


def _of(job: Job, order: Order, ledger: Ledger, look: Look | None) -> Iterator[str]:
    remote, exam = order.remote, order.workspace.exam_tensorflow
    framework, seen = _framework(job, order, ledger, look)
    if not framework:
        return
    if look is not None and remote.gpus != 0 and order.overrides.gpus_of(job):
        for gpu in map(printable, look.gpus):
            if unused := gpu_unused(gpu, framework):
                wanted = f"have '{newest_for(gpu)}' installed, train doctor {remote.name} says how"
                yield f"{unused} ({seen}); {wanted}"
    trouble, fix = exam_cannot_read(framework, exam)
    if trouble:
        yield f"{trouble} ({seen}); {fix}"


def _framework(job: Job, order: Order, ledger: Ledger, look: Look | None) -> tuple[str, str]:
    """What would train, by who saw it last, and where that was seen; empty for unknown."""
    env = (job.env or EnvSpec()).over(order.remote.env)
    python = env.python or order.remote.python
    requirements = ""
    if env.requirements:
        with suppress(OSError):
            requirements = _sha256((order.workspace.root / env.requirements).read_bytes())
    found: list[tuple[float, str, str]] = []
    if look and look.framework and (look.python, look.requirements) == (python, requirements):
        at_s = clock.parse(look.at).timestamp()
        found.append((at_s, printable(look.framework), "as train doctor saw it"))
    code = PastCode(order.workspace.state)
    for mirror in reversed(Mirrors(order.workspace.state).latest(_RUNS)):
        if not _is_same(mirror, order.remote, python, requirements, code, ledger):
            continue
        if version := dict(trained_with(mirror.metrics)).get("tensorflow"):
            found.append((mirror.made_at(), f"tensorflow {version}", f"as in {mirror.run_id}"))
            break
    return max(found)[1:] if found else ("", "")


def _is_same(
    mirror: Mirror, remote: Remote, python: str, requirements: str, code: PastCode, ledger: Ledger
) -> bool:
    """Whether a run had the environment that is asked for now."""
    try:
        request = mirror.request
        if (request.python, ledger.remote_of(mirror.run_id)) != (python, remote.name):
            return False
        if not request.requirements:
            return not requirements
        return code.tree(request.tree)[request.requirements].sha256 == requirements
    except (Malformed, OSError, UsageError, KeyError):
        return False


def _last_look(remote: Remote) -> Look | None:
    """None where nobody looked, or only at another machine."""
    try:
        look = from_bytes(Look, _file(remote).read_bytes())
        clock.parse(look.at)
    except (OSError, ValueError):
        return None
    # A rented machine has a new address whenever it was off.
    return look if remote.is_rented or look.host == remote.host else None


def _file(remote: Remote) -> Path:
    return data_folder() / "looks" / remote.name


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if data else ""
