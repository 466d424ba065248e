"""What stands in the exam folder: which model, its worth, and when another takes its place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.filelock import alone
from orchestrator.grade import Candidate, Grading, Progress, framework, grade
from orchestrator.ledger import Ledger, Promotion, VerdictFact
from orchestrator.shelf import Shelf, file_sha256
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
        verdict = self.verdict_on(job, sha256) if sha256 else None
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

    def grade(
        self,
        wanted: Sequence[tuple[Job, str]],
        tell: Teller,
        grading: Grading | None = None,
        *,
        again: bool = False,
    ) -> list[Verdict]:
        """Grade models of the shelf, all in one process; each verdict is recorded at once.

        A model that has its points already is not opened: the ledger answers, as long as the
        grader, what is beside it and the framework are those of then.

        Args:
            grading: the process, if there is one already.
            again: whether the ledger's answer will not do.

        Raises:
            UsageError: TensorFlow is not installed.
        """
        # From before anything is read: what changes meanwhile is not what the verdict was made of.
        marks = {job.name: self._marks(job) for job, _ in wanted}
        verdicts: dict[tuple[str, str], Verdict] = {}
        candidates: list[tuple[Job, str, Candidate]] = []
        for job, sha256 in wanted:
            model, grader = self.shelf.find(sha256), self.grader_path(job)
            known = None if again else self._recorded(job, sha256, marks[job.name])
            if known is not None:
                verdicts[job.name, sha256] = known
                tell.step(f"{job.name} is unchanged since it was graded; to do it again: --again")
            elif model is not None and grader is not None:
                candidates.append((job, sha256, Candidate(job.name, model, grader)))
        if candidates:

            def progress(progress: Progress) -> None:
                tell.doing(f"{progress.doing} {progress.category}".strip())

            graded = grade([c for _, _, c in candidates], tell=progress, grading=grading)
            for (job, sha256, _), verdict in zip(candidates, graded, strict=True):
                self._record(job, verdict, marks[job.name])
                verdicts[job.name, sha256] = verdict
        return [verdicts[job.name, sha] for job, sha in wanted if (job.name, sha) in verdicts]

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

    def _recorded(self, job: Job, sha256: str, marks: Mapping[str, str]) -> Verdict | None:
        """The last grade of a model, if grading it now could not give another. What was invalid or
        broken may have been so for want of memory or time, so it is tried again.
        """
        fact = self._last_verdict(job, sha256)
        if fact is None or fact.outcome != Outcome.GRADED.value:
            return None
        same = dict(fact.versions) == {**marks, "framework": framework()}
        return _as_verdict(fact) if same else None

    def _marks(self, job: Job) -> dict[str, str]:
        """What a verdict depends on, besides the model and the framework."""
        return {"beside": self._beside(job), "grader": self._grader_sha256(job)}

    def _beside(self, job: Job) -> str:
        """A digest of the names, sizes and times of what lies beside and below a grader.

        Nobody knows what of it the grader reads. Held-out data may be large, so it is not read.
        """
        grader, model = self.grader_path(job), self.model_path(job)
        if grader is None:
            return ""
        found = []
        seen = set()
        for folder, folders, files in os.walk(grader.parent, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
            here = Path(folder).stat()
            if (here.st_dev, here.st_ino) in seen:
                folders.clear()  # a link that leads back
                continue
            seen.add((here.st_dev, here.st_ino))
            for path in (Path(folder, name) for name in files):
                with contextlib.suppress(OSError):
                    if path not in (grader, model):
                        at = path.stat()
                        found.append((str(path), at.st_size, at.st_mtime_ns, at.st_ctime_ns))
        return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()

    def _record(self, job: Job, verdict: Verdict, marks: Mapping[str, str]) -> None:
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
                versions=tuple(sorted({**marks, "framework": verdict.versions}.items())),
                graded_at=verdict.graded_at,
            )
        )

    def _maker(self, job: Job, sha256: str) -> str | None:
        """The first run that made this file."""
        for run in self.ledger.runs(workspace=self._name, category=job.name):
            if any(a.sha256 == sha256 for a in self.ledger.artifacts(run.run_id)):
                return run.run_id
        return None


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
