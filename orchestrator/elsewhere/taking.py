"""What somebody brings, a model file or a notebook's result, becomes a run of its category."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.duration import parse_duration
from orchestrator.elsewhere.exported import Exported, Exports
from orchestrator.elsewhere.foreign import Foreign, Paid, known_run, record
from orchestrator.elsewhere.modelfile import take_model
from orchestrator.elsewhere.resultfile import is_result, take_result
from orchestrator.errors import UsageError
from orchestrator.filelock import alone
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.screen.printable import one_line
from orchestrator.screen.tell import Teller
from orchestrator.settings.config import find_jobs
from orchestrator.settings.spec import Job, Workspace
from remote.atomic import temporary_beside
from remote.record import Malformed

_ELSEWHERE = "elsewhere"
_WHERE_CHARACTERS = 40


@dataclass(frozen=True)
class Origin:
    """What the user says of a model file; a notebook's result says it itself.

    Attributes:
        run: the exported run whose model it is; empty for none.
        where: the kind of machine.
        lasted_s: how long it trained; 0 where nobody said.
    """

    run: str = ""
    where: str = ""
    lasted_s: float = 0.0

    @classmethod
    def parse(cls, run: str, where: str, lasted: str) -> Origin:
        """Raises:
        UsageError: not a word, or not a duration.
        """
        if where != one_line(where, _WHERE_CHARACTERS):
            raise UsageError(f"--from takes a word, not {where!r}", fix="--from colab")
        try:
            return cls(run, where, parse_duration(lasted) if lasted else 0.0)
        except ValueError as error:
            raise UsageError(f"--time: {error}", fix="--time 25m") from None


def take_in(
    file: Path,
    category: str,
    origin: Origin,
    paid: Paid,
    workspace: Workspace,
    ledger: Ledger,
    tell: Teller,
) -> tuple[Job, Mirror]:
    """The category and the run that it is now; the same file twice is one run.

    Raises:
        UsageError: it is refused, and nothing was changed.
    """
    file = file.expanduser()
    scratch = temporary_beside(workspace.state / "x")
    # Two at once of the same file would each make a run of it.
    with alone(workspace.state / "importing"):
        scratch.mkdir()
        try:
            foreign = _look_at(file, category, origin, workspace, scratch)
            (job,) = find_jobs(workspace, [foreign.request.job])
            known = known_run(Mirrors(workspace.state), foreign)
            mirror = record(foreign, workspace, ledger, paid)
        finally:
            shutil.rmtree(scratch)
    if known is not None:
        tell.step(f"{file} is here already: it is what {known.run_id} made")
    for artifact in foreign.artifacts if known is None else ():
        tell.step(f"took in {artifact.path}, sha256 {artifact.sha256[:12]}, as {mirror.run_id}")
    return job, mirror


def _look_at(
    file: Path, category: str, origin: Origin, workspace: Workspace, scratch: Path
) -> Foreign:
    exports = Exports(workspace.state)
    if file.is_file() and is_result(file):
        if origin != Origin():
            raise UsageError(
                f"{file} is a notebook's result, which itself says where it is from",
                fix=f"train import {file}",
            )
        foreign = take_result(file, exports, scratch)
        if category and find_jobs(workspace, [category])[0].name != foreign.request.job:
            raise UsageError(
                f"{file} is of {foreign.request.job}, not of {category}",
                fix=f"train import {file}",
            )
        return foreign
    if not category:
        raise UsageError(
            f"{file} does not say of which category it is", fix=f"train import {file} CATEGORY"
        )
    (job,) = find_jobs(workspace, [category])
    exported = _exported(exports, origin.run, job) if origin.run else None
    where = origin.where or _ELSEWHERE
    return take_model(file, job, where, origin.lasted_s, exported, scratch)


def _exported(exports: Exports, run_id: str, job: Job) -> Exported:
    try:
        exported = exports.get(run_id)
    except Malformed as error:
        raise UsageError(f"what is kept of {run_id} cannot be read: {error}") from None
    if exported is None or exported.request.job != job.name:
        raise UsageError(f"no run {run_id} of {job.name} was exported from this workspace")
    return exported
