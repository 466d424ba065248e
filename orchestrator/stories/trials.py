"""The trials of a story: each run and each model handed in, with what lies beside it on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from orchestrator.costs.cost import PricedRun, gang_costs
from orchestrator.errors import TrainshedError
from orchestrator.exams.book import ExamBook
from orchestrator.records.curves import read_epochs, read_usage, series, thinned, versions
from orchestrator.records.ledger import Ledger, RunFact, VerdictFact
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.settings.config import load_workspace
from orchestrator.settings.spec import find_model
from orchestrator.source.pastcode import PastCode
from orchestrator.stories.story import Change, Trial, Use
from remote import clock
from remote.record import Malformed
from remote.runfolder import State, chief_id
from remote.usage import Usage

# What can be seen of a curve; fifty runs are to stay under 2 MB.
_CURVE_POINTS = 120
_USE_SAMPLES = 150
# Of a change; all of it is to be had from `train history --diff`.
_DIFF_LINES = 60
_DIFF_LINE_CHARACTERS = 160
# A process on all cores of a large machine; a VM can claim anything.
_MOST_CPU_PERCENT = 100_000.0

HANDED_IN = "handed in"
NOT_SENT = "not sent"

Label = Callable[[str, str], str]


class Trials:
    """Args:
    hidden: workspaces with an exam that shows no metric.
    """

    def __init__(
        self,
        ledger: Ledger,
        facts: Sequence[RunFact],
        priced: Iterable[PricedRun],
        hidden: Collection[Path],
        now: datetime,
    ) -> None:
        self._ledger = ledger
        self._facts = [fact for fact in facts if fact.run_id == chief_id(fact.run_id)]
        self._others = [fact for fact in facts if fact.run_id != chief_id(fact.run_id)]
        self._costs = gang_costs({run.usage.run_id: run.cost for run in priced})
        self._hosts = Counter(chief_id(fact.run_id) for fact in facts)
        self._hidden = hidden
        self._now = now

    def all(self, label: Label, with_attempts: Iterable[Path]) -> tuple[Trial, ...]:
        """By time, each with its change since the one before of its category and kind.

        Args:
            label: of a workspace's category.
            with_attempts: workspaces of which the models handed in are told too.
        """
        found = [(Path(fact.workspace), self._run(fact)) for fact in self._facts]
        found += [(root, trial) for root in with_attempts for trial in self._handed_in(root)]
        found.sort(key=lambda pair: (pair[1].at, pair[1].state == HANDED_IN))
        before: dict[tuple[Path, str, bool], Trial] = {}
        changes = Changes()
        told = []
        for root, trial in found:
            kind = root, trial.category, trial.state == HANDED_IN
            change = changes.between(root, before.get(kind), trial)
            before[kind] = trial
            told.append(replace(trial, category=label(str(root), trial.category), change=change))
        return tuple(told)

    def workers(self) -> tuple[Trial, ...]:
        """What of gangs is no trial of its own."""
        return tuple(self._run(fact) for fact in self._others)

    def _run(self, fact: RunFact) -> Trial:
        events = self._ledger.events(fact.run_id)
        last = events[-1] if events else None
        root = Path(fact.workspace)
        mirror = Mirrors(root / ".train").get(fact.run_id)
        epochs = read_epochs(mirror.metrics) if mirror else ()
        samples = read_usage(mirror.usage) if mirror else ()
        gpus = next((sample.gpus for sample in reversed(samples) if sample.gpus), ())
        model = self._model(fact, mirror)
        trial = Trial(
            at=fact.submitted_at,
            category=fact.category,
            name=fact.run_id,
            remote=fact.remote,
            state=last.state if last else NOT_SENT,
            reason=last.reason if last else "",
            params=fact.params,
            cost=self._costs.get(fact.run_id),
            hosts=self._hosts[chief_id(fact.run_id)],
            code=fact.snapshot,
            model=model or "",
            epochs=len(epochs),
            versions=versions(epochs),
            use=self._use(fact, mirror, samples),
            gpus=len(gpus),
            gpu_memory_mib=gpus[0].memory_total_mib if gpus else None,
            curves=tuple(
                (name, thinned(points, _CURVE_POINTS)) for name, points in series(epochs).items()
            ),
        )
        if model is None and trial.state == State.SUCCEEDED.value:
            return replace(trial, reason=trial.reason or "its model is not here yet")
        verdict = self._verdict(fact, model) if model else None
        if verdict is None:
            return trial
        shown = verdict.points is not None and root not in self._hidden
        return replace(
            trial,
            points=verdict.points,
            metric=verdict.metric if shown else "",
            value=verdict.value if shown else None,
            reason=trial.reason or verdict.reason,
        )

    def _model(self, fact: RunFact, mirror: Mirror | None) -> str | None:
        """Its digest; None where it was not pulled, empty where there is none to pull."""
        pulled = {one.path: one.sha256 for one in self._ledger.artifacts(fact.run_id)}
        outputs: Iterable[str] = pulled
        if mirror is not None:
            try:
                outputs = mirror.request.outputs
            except (Malformed, OSError):
                pass  # what was pulled tells as much in nearly all cases
        path = find_model(outputs)
        return pulled.get(path) if path else ""

    def _verdict(self, fact: RunFact, model: str) -> VerdictFact | None:
        """The last that says something of the model."""
        told = self._ledger.verdicts(fact.workspace, fact.category)
        mine = [one for one in told if one.sha256 == model and one.outcome != "broken"]
        return mine[-1] if mine else None

    def _use(
        self, fact: RunFact, mirror: Mirror | None, samples: Iterable[Usage]
    ) -> tuple[Use, ...]:
        seen = mirror.seen if mirror else None
        off = timedelta(seconds=seen.clock_off_s) if seen else timedelta()
        found = []
        for sample in samples:
            try:
                at = clock.parse(sample.at) - off
            except (ValueError, OverflowError):
                continue
            # No time that a VM tells is before the run or yet to come.
            if fact.submitted_at <= at <= self._now:
                found.append(_as_use(at, sample))
        return thinned(found, _USE_SAMPLES)

    def _handed_in(self, root: Path) -> Iterator[Trial]:
        book = ExamBook(root, self._ledger)
        exam = book.exam()
        for attempt in book.attempts(exam) if exam else ():
            fact, grade = attempt.fact, attempt.grade
            shown = grade if root not in self._hidden else None
            yield Trial(
                at=fact.at,
                category=fact.category,
                name=fact.name,
                remote="",
                state=HANDED_IN,
                points=attempt.points,
                metric=shown.metric if shown else "",
                value=shown.value if shown else None,
                reason=grade.reason if grade else "not graded yet",
                code=fact.snapshot,
                model=fact.sha256,
            )


def _as_use(at: datetime, sample: Usage) -> Use:
    busy = [gpu.utilization_percent for gpu in sample.gpus or ()]
    told = [min(100.0, max(0.0, percent)) for percent in busy if percent is not None]
    cpu = sample.cpu_percent
    return Use(
        at,
        sum(told) / len(told) if told else None,
        None if cpu is None else min(_MOST_CPU_PERCENT, max(0.0, cpu)),
    )


class Changes:
    """What changed in the code between trials, as far as it is kept."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, PurePosixPath]] = {}

    def between(self, root: Path, old: Trial | None, new: Trial) -> Change:
        if old is None:
            return Change()
        if old.code == new.code:
            return Change(old.name)
        folders = self._folders_of(root)
        own = folders.get(new.category)
        others = [folder for folder in folders.values() if folder != own]
        try:
            lines = tuple(PastCode(root / ".train").diff(old.code, new.code, others))
        except TrainshedError as error:
            return Change(old.name, why_unknown=str(error))
        shown = (line[:_DIFF_LINE_CHARACTERS] for line in lines[:_DIFF_LINES])
        return Change(
            since=old.name,
            added=sum(line.startswith("+") and not line.startswith("+++ ") for line in lines),
            removed=sum(line.startswith("-") and not line.startswith("--- ") for line in lines),
            lines=tuple(shown),
            left_out=max(0, len(lines) - _DIFF_LINES),
        )

    def _folders_of(self, root: Path) -> dict[str, PurePosixPath]:
        """Of each category; none where the workspace cannot be read any more."""
        if root not in self._folders:
            try:
                jobs = load_workspace(root).jobs
            except TrainshedError:
                jobs = ()
            self._folders[root] = {job.name: job.folder for job in jobs}
        return self._folders[root]
