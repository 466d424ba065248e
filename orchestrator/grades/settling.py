"""The last step: what came home is graded, the right model placed, and the result put together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.costs.cost import PricedRun
from orchestrator.costs.money import priced_runs
from orchestrator.declared import is_home
from orchestrator.errors import Interrupted, ModelDamaged, TrainshedError, UsageError, unwritten
from orchestrator.grades.verdict import Outcome, Verdict, of_five
from orchestrator.records.ledger import ArtifactFact, Ledger
from orchestrator.records.mirror import Mirror
from orchestrator.records.shelf import DISK_THREADS
from orchestrator.screen.tell import Counted, Teller
from orchestrator.settings.spec import Job
from remote.runfolder import chief_id

if TYPE_CHECKING:
    from orchestrator.grades.standing import Exam, Standing


@dataclass(frozen=True)
class Result:
    """How it went, for the report.

    Attributes:
        runs: with what they cost; one that goes on costs up to now.
        verdicts: of the models that were graded now.
        standings: of the categories asked for, after it all.
        trouble: the first thing that kept something from coming home: a remote that could not be
            asked, or a file that was not what the VM had hashed.
        made: what each run's own model is worth, by run id, whether it stands or not.
        old: ids of the runs that were home before; a report to people leaves them out.
        over: runs of which nothing more is to come.
    """

    mirrors: tuple[Mirror, ...]
    runs: tuple[PricedRun, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    standings: tuple[Standing, ...] = ()
    trouble: TrainshedError | None = None
    made: Mapping[str, Verdict] = field(default_factory=dict)
    old: frozenset[str] = frozenset()
    over: tuple[Mirror, ...] = ()

    def told(self) -> None:
        """The user has had it: from now on the same command means new runs."""
        for mirror in self.over:
            mirror.settle()


class Troubles:
    """What kept something from coming home, told as it is found.

    Attributes:
        first: the one that the command ends with.
        run_ids: of the runs it befell, where the same command again would not mend it.
        mendable: of those where it would.
    """

    def __init__(self, tell: Teller) -> None:
        self._tell = tell
        self.first: TrainshedError | None = None
        self.run_ids: set[str] = set()
        self.mendable: set[str] = set()

    def note(self, trouble: TrainshedError, mirrors: Iterable[Mirror]) -> None:
        self._tell.warn(f"{trouble}: {trouble.cause}" if trouble.cause else str(trouble))
        self.first = self.first or trouble
        befallen = self.mendable if trouble.retryable else self.run_ids
        befallen |= {mirror.run_id for mirror in mirrors}


def settle(
    exam: Exam,
    jobs: Iterable[Job],
    mirrors: Sequence[Mirror],
    graded: Sequence[Verdict],
    troubles: Troubles,
    tell: Teller,
    *,
    best: bool,
) -> Result:
    """Grade what has no verdict yet, then put the right model into each folder.

    Args:
        graded: what was graded before by this command; none of it is tried again.
        best: whether the best model or that of the last of these runs goes into the folder.

    Raises:
        Interrupted: the user did not wait for the last grade.
    """
    jobs = tuple(jobs)
    try:
        tried = {(verdict.category, verdict.sha256) for verdict in graded}
        wanted = [
            (job, sha256)
            for job in jobs
            for sha256 in exam.ungraded(job)
            if (job.name, sha256) not in tried
        ]
        verdicts = [*graded, *exam.grade(wanted, tell)]
    except KeyboardInterrupt:
        raise left_ungraded() from None
    for job in jobs:
        # Run ids of one second are in no order, and the last run made is the one that counts.
        mine = sorted((m for m in mirrors if m.request.job == job.name), key=Mirror.made_at)
        for mirror in mine:
            try:
                _place_beside(exam, mirror, job, tell)
            except (ModelDamaged, UsageError) as trouble:
                troubles.note(trouble, [mirror])
        try:
            _place(exam, job, mine, tell, best=best)
        except (ModelDamaged, UsageError) as trouble:
            troubles.note(trouble, mine)
    unheard = {chief_id(mirror.run_id) for mirror in mirrors if not mirror.ended}
    return Result(
        tuple(mirrors),
        priced_runs(exam.ledger, {mirror.run_id for mirror in mirrors}),
        tuple(verdicts),
        tuple(exam.standing(job) for job in jobs if job.model is not None),
        troubles.first,
        {
            mirror.run_id: known[sha256]
            for job in jobs
            for known in [exam.verdicts(job)]
            for mirror in mirrors
            if mirror.request.job == job.name
            and (sha256 := model_of(exam.ledger, mirror.run_id, job)) in known
        },
        over=tuple(
            mirror
            for mirror in mirrors
            # Until all of a gang are, the same command goes on with it.
            if chief_id(mirror.run_id) not in unheard
            and mirror.run_id not in troubles.mendable
            # Most trouble does not go by itself: the same command is then a new run.
            and (mirror.run_id in troubles.run_ids or is_home(mirror, exam.ledger, exam.shelf))
        ),
    )


def model_of(ledger: Ledger, run_id: str, job: Job) -> str | None:
    """The digest of the model that a run of this job made, once it has been pulled."""
    facts = ledger.artifacts(run_id)
    return next((fact.sha256 for fact in facts if fact.path == str(job.model)), None)


def left_ungraded() -> Interrupted:
    return Interrupted(
        "interrupted before all was graded; what was pulled is here", fix="train pull"
    )


def _place(exam: Exam, job: Job, mirrors: Sequence[Mirror], tell: Teller, *, best: bool) -> None:
    latest: str | None = None
    doubtful: Mirror | None = None
    for mirror in mirrors:
        sha256 = model_of(exam.ledger, mirror.run_id, job)
        if sha256 is None:
            continue
        if best and not exam.is_whole(mirror.run_id):
            doubtful = mirror
        else:
            latest, doubtful = sha256, None
    if doubtful is not None and not doubtful.settled and not exam.can_judge(job):
        tell.warn(
            f"{doubtful.run_id} did not end well, and nothing here tells whether its model is "
            f"whole; to put it into the folder: train pull {job.name} --latest"
        )
    if best and exam.grader_path(job) is not None:
        latest = None
    elif latest is None:
        return
    # The best is never worse; and reading a large model takes a while.
    before = exam.standing(job).verdict if latest is not None else None
    moved = exam.promote(job, latest=latest)
    if moved is not None:
        verdict = exam.verdict_on(job, moved)
        change = _change(job, before, verdict)
        if latest is None and verdict is not None and verdict.points is not None:
            change = f" (the best, {of_five(verdict.points)})"
        tell.step(f"{job.model} is now the model {moved[:12]}{change}")


def _change(job: Job, before: Verdict | None, after: Verdict | None) -> str:
    """What became of the points, where both models have some."""
    if before is None or after is None or {before.outcome, after.outcome} != {Outcome.GRADED}:
        return ""
    back = f"; the better one: train pull {job.name} --best" if before.better_than(after) else ""
    return f" ({before.points} -> {after.points} points{back})"


def _place_beside(exam: Exam, mirror: Mirror, job: Job, tell: Teller) -> None:
    """Outputs that are not the model go beside the run's log: only the model is compared, and a
    file of the workspace is never overwritten by one from a VM.

    Raises:
        UsageError: some have no place there, such as a path that is too long below this folder; all
            others are there, and those are on the shelf.
        LaptopFull: the disk is full.
    """
    from concurrent.futures import ThreadPoolExecutor

    outputs = mirror.folder / "outputs"

    def place(fact: ArtifactFact) -> UsageError | None:
        target = outputs / fact.path
        try:
            exam.shelf.place(fact.sha256, target)
        except OSError as error:
            trouble = unwritten(error, target)
            trouble.__cause__ = error
            return trouble
        return None

    facts = [
        fact
        for fact in exam.ledger.artifacts(mirror.run_id)
        # A name that is too long is not there, and is told when it cannot be written.
        if fact.path != str(job.model) and not os.path.exists(outputs / fact.path)  # noqa: PTH110
    ]
    failed: list[tuple[ArtifactFact, UsageError]] = []
    placed = Counted(tell)
    pool = ThreadPoolExecutor(DISK_THREADS)
    try:
        for fact, trouble in zip(facts, pool.map(place, facts), strict=True):
            if trouble is None:
                placed.step(f"{fact.path} is in {(outputs / fact.path).parent}")
            elif trouble.retryable:
                raise trouble
            else:
                failed.append((fact, trouble))
    finally:
        pool.shutdown(cancel_futures=True)
    placed.tell_rest(f"more are in {mirror.folder / 'outputs'}")
    if failed:
        fact, trouble = failed[0]
        more = f", nor can {len(failed) - 1} more" if len(failed) > 1 else ""
        raise UsageError(
            f"{fact.path} of {mirror.run_id} cannot be written{more}",
            cause=str(trouble),
            fix=f"it is kept in {exam.shelf.folder / fact.sha256}",
        ) from trouble
