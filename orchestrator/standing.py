"""What stands in the exam folder: which model, its worth, and when another takes its place."""

from __future__ import annotations

import difflib
import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.grade import Candidate, Progress, grade
from orchestrator.ledger import Ledger, Promotion, VerdictFact
from orchestrator.shelf import Shelf, alone, file_sha256
from orchestrator.spec import Job, Workspace
from orchestrator.tell import Teller
from orchestrator.verdict import Outcome, Verdict


@dataclass(frozen=True)
class Standing:
    """A category's folder.

    Attributes:
        sha256: of the model in it; None where there is none.
        verdict: the last on that model; None if it was never graded.
        run_id: of the run that made it, as far as known.
        gradable: whether there is a grader beside it.
    """

    category: str
    path: Path
    sha256: str | None
    verdict: Verdict | None
    run_id: str | None
    gradable: bool

    @property
    def is_graded(self) -> bool:
        return self.verdict is not None and self.verdict.outcome is Outcome.GRADED

    @property
    def gap(self) -> str:
        """Why there are no points; empty where there are."""
        if self.sha256 is None:
            return "no model in the folder"
        if not self.gradable:
            return "no grader.py beside it"
        if self.verdict is None:
            return "not graded"
        return self.verdict.reason


class Exam:
    """The models of one workspace: graded, kept, and the right one in each folder."""

    def __init__(self, workspace: Workspace, ledger: Ledger) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.shelf = Shelf(workspace.state)
        self._name = str(workspace.root)

    def model_path(self, job: Job) -> Path | None:
        return None if job.model is None else self.workspace.root / job.model

    def grader_path(self, job: Job) -> Path | None:
        """The category's grader, if it has one."""
        path = self.workspace.root / job.folder / "grader.py"
        return path if job.model is not None and path.is_file() else None

    def standing(self, job: Job) -> Standing:
        """What is in the folder now."""
        path = self.model_path(job)
        if path is None:
            raise UsageError(
                f"{job.name} declares no model",
                fix="name it in train.yaml: outputs: [FOLDER/mymodel.h5]",
            )
        sha256 = file_sha256(path)
        fact = self._last_verdict(job, sha256)
        verdict = _as_verdict(fact) if fact else None
        maker = self._maker(job, sha256) if sha256 else None
        return Standing(job.name, path, sha256, verdict, maker, self.grader_path(job) is not None)

    def verdict_on(self, job: Job, sha256: str) -> Verdict | None:
        """The last verdict on a model, by the grader that stands here now."""
        fact = self._last_verdict(job, sha256)
        return _as_verdict(fact) if fact else None

    def adopt(self, job: Job) -> str | None:
        """Keep the model in the folder, wherever it came from, before anything replaces it."""
        path = self.model_path(job)
        sha256 = file_sha256(path) if path else None
        if path is None or sha256 is None or self.shelf.find(sha256) is not None:
            return sha256
        return self.shelf.adopt(path)

    def ungraded(self, job: Job) -> list[str]:
        """Digests of the standing model and of pulled ones that have no verdict yet."""
        if self.grader_path(job) is None:
            return []
        pulled = [
            artifact.sha256
            for run in self.ledger.runs(workspace=self._name, category=job.name)
            for artifact in self.ledger.artifacts(run.run_id)
            if artifact.path == str(job.model)
        ]
        standing = self.adopt(job)
        known = {fact.sha256 for fact in self._verdicts(job) if fact.outcome != "broken"}
        wanted = dict.fromkeys([*pulled, *([standing] if standing else [])])
        return [sha256 for sha256 in wanted if sha256 not in known and self.shelf.find(sha256)]

    def grade(self, wanted: Sequence[tuple[Job, str]], tell: Teller) -> list[Verdict]:
        """Grade models of the shelf, all in one process; each verdict is recorded at once.

        Raises:
            UsageError: TensorFlow is not installed.
        """
        candidates, jobs = [], []
        for job, sha256 in wanted:
            model, grader = self.shelf.find(sha256), self.grader_path(job)
            if model is not None and grader is not None:
                candidates.append(Candidate(job.name, model, grader))
                jobs.append(job)
        if not candidates:
            return []

        def progress(progress: Progress) -> None:
            tell.doing(f"{progress.doing} {progress.category}".strip())

        verdicts = []
        for job, verdict in zip(jobs, grade(candidates, tell=progress), strict=True):
            self._record(job, verdict)
            verdicts.append(verdict)
        return verdicts

    def promote(self, job: Job, *, latest: str | None = None) -> str | None:
        """Put the best model into the folder, or `latest`; returns its digest if it was moved.

        The model that stood there is on the shelf before another takes its place.

        Raises:
            ModelDamaged: the kept copy was changed; the folder is as it was.
        """
        path = self.model_path(job)
        # Two commands that choose at once would each replace what the other has just placed.
        with alone(self.workspace.state / "promoting"):
            chosen = latest or self._best(job)
            standing = self.adopt(job)
            if path is None or chosen is None or chosen == standing:
                return None
            if self.shelf.find(chosen) is None:
                return None
            self.shelf.place(chosen, path)
            reason = "latest" if latest else "best"
            self.ledger.add(Promotion(self._name, job.name, chosen, datetime.now(UTC), reason))
            return chosen

    def _best(self, job: Job) -> str | None:
        """The best of all graded models; the one that stands wins against its equals."""
        standing = file_sha256(path) if (path := self.model_path(job)) else None
        latest: dict[str, Verdict] = {}
        for fact in self._verdicts(job):
            if fact.outcome != Outcome.BROKEN.value:
                latest[fact.sha256] = _as_verdict(fact)
        best: str | None = standing if standing in latest else None
        for sha256, verdict in latest.items():
            graded = verdict.outcome is Outcome.GRADED
            if graded and (best is None or verdict.better_than(latest[best])):
                best = sha256
        return best

    def _verdicts(self, job: Job) -> list[VerdictFact]:
        """Those of the grader that stands here now: grades of two graders do not compare."""
        grader = self._grader_sha256(job)
        facts = self.ledger.verdicts(self._name, job.name)
        return [fact for fact in facts if dict(fact.versions).get("grader", grader) == grader]

    def _grader_sha256(self, job: Job) -> str:
        path = self.grader_path(job)
        return (file_sha256(path) or "") if path is not None else ""

    def _last_verdict(self, job: Job, sha256: str | None) -> VerdictFact | None:
        found = [fact for fact in self._verdicts(job) if fact.sha256 == sha256]
        return found[-1] if found else None

    def _record(self, job: Job, verdict: Verdict) -> None:
        if verdict.sha256 is None:
            return
        self.ledger.add(
            VerdictFact(
                id=secrets.token_hex(8),
                workspace=self._name,
                category=job.name,
                sha256=verdict.sha256,
                run_id=self._maker(job, verdict.sha256),
                outcome=verdict.outcome.value,
                points=verdict.points,
                metric=verdict.metric,
                value=verdict.value,
                thresholds=verdict.thresholds,
                higher_is_better=verdict.higher_is_better,
                reason=verdict.reason,
                size_bytes=verdict.size_bytes,
                versions=(
                    ("framework", verdict.versions),
                    ("grader", self._grader_sha256(job)),
                ),
                graded_at=verdict.graded_at,
            )
        )

    def _maker(self, job: Job, sha256: str) -> str | None:
        """The first run that made this file."""
        for run in self.ledger.runs(workspace=self._name, category=job.name):
            if any(a.sha256 == sha256 for a in self.ledger.artifacts(run.run_id)):
                return run.run_id
        return None


def find_jobs(workspace: Workspace, names: Iterable[str]) -> tuple[Job, ...]:
    """The jobs of these names, or all.

    Raises:
        UsageError: there is none of a name; lists the known ones.
    """
    known = {job.name: job for job in workspace.jobs}
    # An editor gives the folder of the open file, which may be one below the category's.
    names = tuple(
        name if name in known else name.removeprefix("./").partition("/")[0] for name in names
    )
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"no category is named {name!r}",
                cause=f"train.yaml has: {', '.join(known) or 'no jobs'}",
                fix=f"did you mean {near[0]}?" if near else "add it under `jobs:` in train.yaml",
            )
    if not known:
        raise UsageError(
            f"{workspace.root / 'train.yaml'} has no jobs", fix="add one under `jobs:`"
        )
    chosen = dict.fromkeys(known[name] for name in names)
    return tuple(chosen) or workspace.jobs


def _as_verdict(fact: VerdictFact) -> Verdict:
    graded = fact.outcome == Outcome.GRADED.value
    return Verdict(
        category=fact.category,
        outcome=Outcome(fact.outcome),
        points=fact.points,
        metric=fact.metric,
        value=math.nan if graded and fact.value is None else fact.value,
        thresholds=fact.thresholds,
        higher_is_better=bool(fact.higher_is_better),
        reason=fact.reason,
        sha256=fact.sha256,
        size_bytes=fact.size_bytes,
        graded_at=fact.graded_at,
        versions=dict(fact.versions).get("framework", ""),
    )
