"""What was tried in a workspace, what changed between two tries, and the way back to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchestrator.costs.cost import Cost, gang_costs
from orchestrator.costs.money import priced_runs
from orchestrator.desk import Desk
from orchestrator.errors import UsageError
from orchestrator.exams.book import Attempt, ExamBook
from orchestrator.grades.settling import model_of
from orchestrator.grades.verdict import Outcome
from orchestrator.settings.config import find_jobs
from orchestrator.settings.spec import Job
from orchestrator.source.pastcode import PastCode
from remote.runfolder import chief_id

# Fewer hex digits may be a word.
_SHORTEST = 6


@dataclass(frozen=True)
class Entry:
    """A run, or a model that was handed in.

    Attributes:
        name: the run's id, or the attempt's name.
        state: of a run; empty for an attempt.
        points: None where there are none.
        metric: with its value, or why there is none.
        cost: of a run; None where it has none.
        params: of a run, names and values.
        snapshot: digest of its code; empty where nobody knows.
        model: digest; None where there is none.
    """

    at: datetime
    category: str
    name: str
    is_attempt: bool
    state: str
    points: int | None
    metric: str
    value: float | None
    reason: str
    cost: Cost | None
    params: tuple[tuple[str, str], ...]
    snapshot: str
    model: str | None


@dataclass(frozen=True)
class Restored:
    """Attributes:
    model: digest of the model that stands at `path` now; empty where code was restored.
    lacking: files of the code that are not kept.
    """

    path: Path
    model: str = ""
    lacking: tuple[str, ...] = ()


class History:
    """Of one workspace."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._workspace = desk.workspace
        self._ledger = desk.ledger
        self._code = PastCode(desk.workspace.state)

    def entries(self, categories: Sequence[str] = ()) -> tuple[Entry, ...]:
        """By time."""
        jobs = find_jobs(self._workspace, categories)
        found = [entry for job in jobs for entry in (*self._runs(job), *self._attempts(job))]
        return tuple(sorted(found, key=lambda entry: (entry.at, entry.is_attempt)))

    def _runs(self, job: Job) -> Iterable[Entry]:
        facts = self._ledger.runs(workspace=str(self._workspace.root), category=job.name)
        ids = [fact.run_id for fact in facts]
        priced = priced_runs(self._ledger, ids)
        costs = gang_costs({run.usage.run_id: run.cost for run in priced})
        verdicts = self._desk.trip.exam.verdicts(job) if facts else {}
        for fact in facts:
            if fact.run_id != chief_id(fact.run_id):
                continue
            model = model_of(self._ledger, fact.run_id, job)
            verdict = verdicts.get(model) if model else None
            events = self._ledger.events(fact.run_id)
            is_graded = verdict is not None and verdict.outcome is Outcome.GRADED
            yield Entry(
                at=fact.submitted_at,
                category=job.name,
                name=fact.run_id,
                is_attempt=False,
                state=events[-1].state if events else "not sent",
                points=verdict.points if verdict else None,
                metric=verdict.metric if verdict and is_graded else "",
                value=verdict.value if verdict and is_graded else None,
                reason=verdict.reason if verdict and not is_graded else "",
                cost=costs.get(fact.run_id),
                params=fact.params,
                snapshot=fact.snapshot,
                model=model,
            )

    def _attempts(self, job: Job) -> Iterable[Entry]:
        for attempt in self._handed_in():
            fact, grade = attempt.fact, attempt.grade
            if fact.category == job.name:
                yield Entry(
                    at=fact.at,
                    category=job.name,
                    name=fact.name,
                    is_attempt=True,
                    state="",
                    points=attempt.points,
                    metric=grade.metric if grade else "",
                    value=grade.value if grade else None,
                    reason=grade.reason if grade else "not graded yet",
                    cost=None,
                    params=(),
                    snapshot=fact.snapshot,
                    model=fact.sha256,
                )

    def _handed_in(self) -> tuple[Attempt, ...]:
        book = ExamBook(self._workspace.root, self._ledger)
        exam = book.exam()
        return book.attempts(exam) if exam else ()

    def find(self, text: str) -> Entry:
        """An attempt or a run, by its name, the beginning of a run's id, or a category's last run.

        Raises:
            UsageError: none, or more than one.
        """
        entries = self.entries()
        for entry in entries:
            if entry.name == text:
                return entry
        run_id = self._desk.find_run(text).run_id
        found = next((entry for entry in entries if entry.name == run_id), None)
        if found is None:
            raise UsageError(f"the ledger knows nothing of {run_id}", fix="train history")
        return found

    def diff(self, names: Sequence[str]) -> list[str]:
        """What changed in the code from one to the other, or to one from what was before it in its
        category; files of other categories are passed over.

        Raises:
            UsageError: neither one nor two names, or no code is kept of one.
        """
        if len(names) not in (1, 2):
            raise UsageError(
                f"--diff compares two, or one with what was before it, not {len(names)}",
                fix="train history --diff category3.1 category3.2",
            )
        new = self.find(names[-1])
        old = self.find(names[0]) if len(names) == 2 else self._before(new)
        mine = {old.category, new.category}
        others = [job.folder for job in self._workspace.jobs if job.name not in mine]
        own = [job.folder for job in self._workspace.jobs if job.name in mine]
        return list(
            self._code.diff(old.snapshot, new.snapshot, [f for f in others if f not in own])
        )

    def _before(self, new: Entry) -> Entry:
        """The last one in its category with other code, of its own kind if there is one."""
        before = [
            entry
            for entry in self.entries([new.category])
            if entry.at < new.at and entry.snapshot != new.snapshot
        ]
        same = [entry for entry in before if entry.is_attempt is new.is_attempt]
        if not before:
            raise UsageError(
                f"nothing with other code was before {new.name} in {new.category}",
                fix=f"train history {new.category}",
            )
        return (same or before)[-1]

    def restore(self, text: str, *, overwrite: bool) -> Restored:
        """A run, an attempt or the digest of some code: its code, into a folder beside the
        workspace. The digest of a model: that model, into its category's folder.

        Raises:
            UsageError: there is no such thing, or files there would be changed.
        """
        if is_digest(text):
            if found := self._models(text):
                (job, sha256), *more = found
                if more:
                    raise UsageError(f"{text!r} begins several digests", fix="type more of it")
                return self._restore_model(job, sha256)
            if digest := self._code.find(text):
                return self._restore_code(digest, digest[:12], overwrite=overwrite)
            raise UsageError(f"no model and no code has a digest {text}", fix="train history")
        entry = self.find(text)
        return self._restore_code(entry.snapshot, entry.name, overwrite=overwrite)

    def _models(self, text: str) -> list[tuple[Job, str]]:
        """Kept models of which a digest begins so."""
        found = {
            (job.name, sha256): job
            for job in self._workspace.jobs
            for sha256 in self._known_models(job)
            if sha256.startswith(text) and self._desk.trip.exam.shelf.find(sha256)
        }
        return [(job, sha256) for (_, sha256), job in found.items()]

    def _known_models(self, job: Job) -> set[str]:
        verdicts = self._ledger.verdicts(str(self._workspace.root), job.name)
        entries = self.entries([job.name])
        return {fact.sha256 for fact in verdicts} | {e.model for e in entries if e.model}

    def _restore_model(self, job: Job, sha256: str) -> Restored:
        exam = self._desk.trip.exam
        path = exam.model_path(job)
        assert path is not None
        # What stood there is on the shelf before another takes its place.
        exam.promote(job, latest=sha256)
        return Restored(path, model=sha256)

    def _restore_code(self, digest: str, name: str, *, overwrite: bool) -> Restored:
        root = self._workspace.root
        # Beside the workspace, because what is in it would be sent with the next run.
        target = root.with_name(f"{root.name}-{name}")
        differing = self._code.differing(digest, target)
        if differing and not overwrite:
            raise UsageError(
                f"{target} has files that are not as they were then: {', '.join(differing[:5])}",
                fix="move it away; or, to lose what was changed there: --yes",
            )
        return Restored(target, lacking=tuple(self._code.restore(digest, target)))


def is_digest(text: str) -> bool:
    return len(text) >= _SHORTEST and not set(text) - set("0123456789abcdef")
