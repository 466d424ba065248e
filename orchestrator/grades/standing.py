"""What stands in the exam folder: which model, its worth, and when another takes its place."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.costs.cost import format_duration
from orchestrator.errors import UsageError
from orchestrator.filelock import alone
from orchestrator.grades.counting import grader_of, present_grades
from orchestrator.grades.grade import (
    Candidate,
    Grading,
    Progress,
    can_grade,
    framework,
    grade,
    install_command,
)
from orchestrator.grades.surroundings import Surroundings, look_around
from orchestrator.grades.verdict import Outcome, Verdict
from orchestrator.records.ledger import ArtifactFact, Ledger, Promotion, VerdictFact
from orchestrator.records.mirror import Mirrors, is_final
from orchestrator.records.shelf import Shelf, file_sha256
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Job, Workspace
from remote.runfolder import Loading


@dataclass(frozen=True)
class Standing:
    """A category's folder.

    Attributes:
        sha256: of the model in it; None where there is none.
        verdict: the last on that model; None if it was never graded.
        run_id: of the run that made it, as far as known.
        gradable: whether there is a grader beside it.
        has_run: whether the category was ever run.
        is_on_shelf: whether the folder lacks a model that was pulled.
        is_doubtful: whether it lacks only one that may be cut short: see `Exam.is_whole`.
        can_grade: whether this laptop has what grading needs.
        loading: what came of loading it where its run made it; None where nobody looked.
    """

    category: str
    path: Path
    sha256: str | None
    verdict: Verdict | None
    run_id: str | None
    gradable: bool
    has_run: bool = True
    is_on_shelf: bool = False
    is_doubtful: bool = False
    can_grade: bool = True
    loading: Loading | None = None

    @property
    def is_graded(self) -> bool:
        return self.verdict is not None and self.verdict.outcome is Outcome.GRADED

    @property
    def gap(self) -> str:
        """Why there are no points; empty where there are."""
        if self.sha256 is None:
            return "no model in the folder" + ("" if self.has_run else ", it was never run")
        if not self.gradable:
            return "no grader.py beside it"
        if self.verdict is None:
            return "not graded" + ("" if self.can_grade else ": TensorFlow is not installed here")
        return self.verdict.reason

    @property
    def fix(self) -> str:
        """The next command, where one closes the gap."""
        if self.sha256 is None:
            pull, train = f"train pull {self.category}", f"train {self.category} --remote NAME"
            if self.is_doubtful:
                return f"{pull} --latest"
            return pull if self.is_on_shelf else train
        if self.verdict is None and self.gradable:
            return f"train grade {self.category}" if self.can_grade else install_command()
        return ""


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
        return grader_of(self.workspace, job)

    def can_judge(self, job: Job) -> bool:
        """Whether models of this category can be graded here."""
        return self.grader_path(job) is not None and can_grade()

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
        away = None if sha256 else self._best(job)
        maker = self._maker(job, sha256) if sha256 else None
        return Standing(
            category=job.name,
            path=path,
            sha256=sha256,
            verdict=verdict,
            run_id=maker,
            gradable=self.grader_path(job) is not None,
            has_run=bool(sha256 or self.ledger.runs(workspace=self._name, category=job.name)),
            is_on_shelf=away is not None and self.shelf.find(away) is not None,
            is_doubtful=sha256 is None and away is None and bool(self._made(job)),
            can_grade=can_grade(),
            loading=self._loading(job, maker) if maker else None,
        )

    def _loading(self, job: Job, run_id: str) -> Loading | None:
        mirror = Mirrors(self.workspace.state).get(run_id)
        seen = mirror.seen if mirror is not None else None
        state = seen.report.state if seen is not None else None
        loadings = state.loadings if state is not None else ()
        return next((one for one in loadings if one.path == str(job.model)), None)

    def verdict_on(self, job: Job, sha256: str) -> Verdict | None:
        """The last verdict on a model, by the grader that stands here now."""
        return self.verdicts(job).get(sha256)

    def verdicts(self, job: Job) -> dict[str, Verdict]:
        """The last one on each model, by its digest, by the grader that stands here now."""
        return {fact.sha256: _as_verdict(fact) for fact in self._verdicts(job)}

    def adopt(self, job: Job) -> str | None:
        """Keep the model in the folder, wherever it came from, before anything replaces it."""
        path = self.model_path(job)
        sha256 = file_sha256(path) if path else None
        if path is None or sha256 is None or self.shelf.find(sha256) is not None:
            return sha256
        return self.shelf.adopt(path)

    def ungraded(self, job: Job) -> list[str]:
        """Digests of the standing model and of pulled ones that have no verdict yet; none where
        this laptop lacks what grading needs.
        """
        if not self.can_judge(job):
            return []
        standing = self.adopt(job)
        known = {fact.sha256 for fact in self._verdicts(job) if fact.outcome != "broken"}
        pulled = [model.sha256 for _, model in self._pulled(job)]
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
        grader, the framework and what is beside the grader are those of then; of the Python files
        there only those count that the grader opened.

        Args:
            grading: the process, if there is one already.
            again: whether the ledger's answer will not do.

        Raises:
            UsageError: TensorFlow is not installed.
        """
        # From before anything is read: what changes meanwhile is not what the verdict was made of.
        around = {job.name: self._around(job) for job, _ in wanted}
        verdicts: dict[tuple[str, str], Verdict] = {}
        candidates: list[tuple[Job, str, Candidate]] = []
        for job, sha256 in wanted:
            model, grader = self.shelf.find(sha256), self.grader_path(job)
            known = None if again else self._recorded(job, sha256, around[job.name])
            if known is not None:
                verdicts[job.name, sha256] = known
                tell.step(f"{job.name} is unchanged since it was graded; to do it again: --again")
            elif model is not None and grader is not None:
                candidates.append((job, sha256, Candidate(job.name, model, grader)))
        if candidates:
            begun, count = time.monotonic(), 0

            def progress(progress: Progress) -> None:
                place = f", {count + 1} of {len(candidates)}" if len(candidates) > 1 else ""
                tell.doing(f"{progress.doing} {progress.category}{place}".strip())

            graded = grade([c for _, _, c in candidates], tell=progress, grading=grading)
            for (job, sha256, _), verdict in zip(candidates, graded, strict=True):
                self._record(job, verdict, around[job.name])
                verdicts[job.name, sha256] = verdict
                count += 1
            if count > 1 and (seconds := time.monotonic() - begun) >= 1:
                tell.step(f"graded {count} models, {format_duration(seconds)}")
        return [verdicts[job.name, sha] for job, sha in wanted if (job.name, sha) in verdicts]

    def promote(self, job: Job, *, latest: str | None = None) -> str | None:
        """Put the best model into the folder, or `latest`; returns its digest if it was moved.

        Where no model has points it is that of the last run which ended well, but what had some
        once stays. What stood in the folder is on the shelf before another takes its place.

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
        if best is None or latest[best].outcome is not Outcome.GRADED:
            return best if self._is_kept(job, standing) else (self._last_made(job) or best)
        return best

    def _is_kept(self, job: Job, standing: str | None) -> bool:
        """Whether what stands in the folder stays there though it has no points by this grader:
        another gave it some, or the user chose it, and nothing came home since.
        """
        for fact in self.ledger.verdicts(self._name, job.name):
            if fact.sha256 == standing and fact.outcome == Outcome.GRADED.value:
                return True
        promotions = self.ledger.promotions(self._name, job.name)
        if not promotions:
            return False
        last = promotions[-1]
        if last.sha256 != standing or last.reason != "latest":
            return False
        return all(artifact.pulled_at <= last.at for _, artifact in self._pulled(job))

    def is_whole(self, run_id: str) -> bool:
        """Whether what a run made may be taken for whole without a look into it: nothing is known
        of its command but that it ended by itself, with 0. A full disk or a kill cuts a file short.
        """
        ends = [event for event in self.ledger.events(run_id) if is_final(event.state)]
        return all(event.exit_code == 0 for event in ends)

    def _last_made(self, job: Job) -> str | None:
        """The model of the last submitted run that may be placed without a grade."""
        made = [sha256 for run_id, sha256 in self._made(job) if self.is_whole(run_id)]
        return made[-1] if made else None

    def _made(self, job: Job) -> list[tuple[str, str]]:
        """Run id and model of each run, as they were submitted, whose model is on the shelf and not
        known to be worth nothing.
        """
        bad = {fact.sha256 for fact in self._verdicts(job) if fact.outcome == "invalid"}
        return [
            (run_id, artifact.sha256)
            for run_id, artifact in self._pulled(job)
            if artifact.sha256 not in bad and self.shelf.find(artifact.sha256)
        ]

    def _pulled(self, job: Job) -> Iterator[tuple[str, ArtifactFact]]:
        """Run id and model of every run whose model was pulled, as they were submitted."""
        for run in self.ledger.runs(workspace=self._name, category=job.name):
            for artifact in self.ledger.artifacts(run.run_id):
                if artifact.path == str(job.model):
                    yield run.run_id, artifact

    def _verdicts(self, job: Job) -> list[VerdictFact]:
        return present_grades(self.workspace, self.ledger, job)

    def _last_verdict(self, job: Job, sha256: str | None) -> VerdictFact | None:
        found = [fact for fact in self._verdicts(job) if fact.sha256 == sha256]
        return found[-1] if found else None

    def _recorded(self, job: Job, sha256: str, around: Surroundings) -> Verdict | None:
        """The last grade of a model, if grading it now could not give another. What was invalid or
        broken may have been so for want of memory or time, so it is tried again.
        """
        fact = self._last_verdict(job, sha256)
        if fact is None or fact.outcome != Outcome.GRADED.value:
            return None
        verdict = _as_verdict(fact)
        now = {**around.marks(verdict.sources), "framework": framework()}
        return verdict if dict(fact.versions) == now else None

    def _around(self, job: Job) -> Surroundings:
        return look_around(self.grader_path(job), self.model_path(job))

    def _record(self, job: Job, verdict: Verdict, around: Surroundings) -> None:
        if verdict.sha256 is None:
            return
        marks = around.marks(verdict.sources)
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
        """The first run that made this model."""
        return next((run_id for run_id, made in self._pulled(job) if made.sha256 == sha256), None)

    def earlier_maker(self, job: Job, sha256: str) -> str | None:
        """The run that made a model, unless it is the category's last, or no run made it."""
        runs = self.ledger.runs(workspace=self._name, category=job.name)
        makers = [run_id for run_id, made in self._pulled(job) if made.sha256 == sha256]
        return makers[0] if makers and makers[-1] != runs[-1].run_id else None


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
        sources=tuple(json.loads(dict(fact.versions).get("sources", "[]"))),
    )
