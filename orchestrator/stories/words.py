"""What a story's facts read as, the same on a page and in Markdown. Nothing is escaped here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from orchestrator.costs.cost import format_duration, format_money, format_total
from orchestrator.grades.verdict import POINTS, of_five
from orchestrator.screen.costs import cost_text
from orchestrator.stories.story import Change, Chapter, Machine, Story, Trial
from orchestrator.sweeps.past import Past, importance_text
from orchestrator.sweeps.trial import short


@dataclass(frozen=True)
class SweepRow:
    """A line of a sweep's table.

    Attributes:
        attempt: which of the story's trials its run is, from 1; None where it is not in the story.
    """

    trial: int
    params: tuple[str, ...]
    value: str
    state: str
    time: str
    cost: str
    run: str
    attempt: int | None


# Of a digest; `train history --restore` takes as few.
_DIGITS = 12
_MIB_PER_GIB = 1024


def title(story: Story) -> str:
    return f"{'Session' if story.is_session else 'Workspace'} {story.name}"


def period(story: Story) -> str:
    """`2026-11-21 09:00 to 11:30 CET on azure-k80, and it goes on`."""
    start, end = story.began_at.astimezone(), story.until.astimezone()
    last = f"{end:%H:%M}" if start.date() == end.date() else when(end)
    where = f" on {story.remote}" if story.remote else ""
    return f"{when(start)} to {last} {end:%Z}{where}{', and it goes on' if story.goes_on else ''}"


def cards(story: Story) -> Iterator[tuple[str, str, str]]:
    """The few figures that a reader wants first: name, value, what to know of it."""
    out_of = POINTS * len(story.chapters)
    is_graded = any(chapter.points is not None for chapter in story.chapters)
    gained = "" if story.gained is None else f"{story.gained} gained"
    yield "points", f"{story.points} of {out_of}" if is_graded else "no grade", gained
    yield "cost", total(story.cost), _budget(story)
    if story.per_point is not None:
        yield "a point cost", money(story.per_point, story.currency), ""
    for machine in story.machines:
        if machine.paid is not None:
            paid, idle = (t.total_seconds() for t in (machine.paid.time, machine.paid.idle))
            share = f", {idle / paid:.0%}" if paid else ""
            yield "paid time", format_duration(paid), f"{format_duration(idle)} idle{share}"
    yield "runs", str(sum(chapter.runs for chapter in story.chapters)), ""


def _budget(story: Story) -> str:
    if story.budget is None:
        return ""
    currency = story.budget_currency or story.currency
    return f"budget {format_money(story.budget, currency).strip()}"


def when(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


def money(amount: Decimal | None, currency: str, none: str = "unknown") -> str:
    return none if amount is None else format_money(amount, currency or "USD")


total = format_total
duration = format_duration


def digest(text: str) -> str:
    return text[:_DIGITS]


def course(chapter: Chapter) -> str:
    """`3 → 5 of 5`."""
    if chapter.points is None:
        return "no grade"
    before = "" if chapter.before in (None, chapter.points) else f"{chapter.before} → "
    return f"{before}{of_five(chapter.points)}"


def metric(trial: Trial) -> str:
    if trial.value is None:
        return trial.metric
    return f"{trial.metric} {trial.value:.4g}"


def time(trial: Trial) -> str:
    return format_duration(trial.cost.seconds) if trial.cost else ""


def cost(trial: Trial) -> str:
    return cost_text(trial.cost)


def change_size(change: Change) -> str:
    if change.why_unknown:
        return "unknown"
    if not change.since:
        return "the first"
    return f"+{change.added} -{change.removed}" if change.lines else "none"


def machine_facts(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "machine", machine.remote
    if machine.gpus:
        memory = machine.gpu_memory_mib
        of = "" if memory is None else f" with {memory / _MIB_PER_GIB:.1f} GiB"
        yield "GPUs", f"{machine.gpus}{of}"
    price = money(machine.per_hour, machine.currency)
    spot = ", spot" if machine.spot else ""
    source = f" ({machine.price_source}{spot})" if machine.price_source else ""
    yield "price an hour", f"{price}{source}"
    if machine.region:
        yield "region", machine.region
    if machine.paid is not None:
        spans = (machine.paid.used, machine.paid.setup, machine.paid.idle)
        training, setup, idle = (format_duration(span.total_seconds()) for span in spans)
        yield "paid time", f"{training} training, {setup} setting up, {idle} idle"


def trial_facts(trial: Trial) -> Iterator[tuple[str, str]]:
    yield "category", trial.category
    yield "state", f"{trial.state}: {trial.reason}" if trial.reason else trial.state
    if trial.points is not None:
        got = of_five(trial.points)
        yield "points", f"{got}, {metric(trial)}" if trial.metric else got
    if trial.remote:
        more = f", on {trial.hosts} hosts" if trial.hosts > 1 else ""
        yield "machine", f"{trial.remote}{more}"
    if trial.cost:
        yield "time and cost", ", ".join(filter(None, (time(trial), cost(trial))))
    if trial.epochs:
        yield "epochs", str(trial.epochs)
    if trial.params:
        yield "parameters", ", ".join(f"{name}={value}" for name, value in trial.params)
    if trial.versions:
        yield "trained with", ", ".join(f"{name} {version}" for name, version in trial.versions)
    yield "code", _code(trial)
    if trial.model:
        yield "model", digest(trial.model)


def _code(trial: Trial) -> str:
    """Its digest, and what is different in it."""
    change = trial.change
    if change.why_unknown:
        return f"{digest(trial.code)}, what changed is unknown: {change.why_unknown}"
    if not change.since:
        return f"{digest(trial.code)}, the first of its category"
    if change.lines:
        return f"{digest(trial.code)}, {change_size(change)} lines since {change.since}"
    return f"{digest(trial.code)}, as in {change.since}"


def curve_rows(trial: Trial) -> Iterator[tuple[str, ...]]:
    """Of each metric its name, and the first, lowest, highest and last value."""
    for name, points in trial.curves:
        if points:
            values = [point.value for point in points]
            least, most = min(points, key=lambda p: p.value), max(points, key=lambda p: p.value)
            yield (
                name,
                f"{values[0]:.4g}",
                f"{least.value:.4g} (epoch {least.step})",
                f"{most.value:.4g} (epoch {most.step})",
                f"{values[-1]:.4g}",
            )


def sweep_title(past: Past) -> str:
    """`wide of category3`; the category alone where the sweep has its name."""
    return past.name if past.name == past.category else f"{past.name} of {past.category}"


def sweep_counts(past: Past) -> str:
    """`40 trials: 30 complete, 10 pruned; best: trial 7, loss 0.93; what mattered: lr 74 %`."""
    counts = Counter(trial.fate for trial in past.trials)
    parts = [f"{len(past.trials)} trials: {', '.join(f'{n} {fate}' for fate, n in counts.items())}"]
    if (best := past.best) is not None:
        parts.append(f"best: trial {best.number}, {past.metric.name} {best.value:.4g}")
    if told := importance_text(past):
        parts.append(f"what mattered: {told}")
    return "; ".join(parts)


def sweep_rows(past: Past, story: Story) -> Iterator[SweepRow]:
    """The best first."""
    runs = {trial.name: (number, trial) for number, trial in enumerate(story.trials, 1)}
    for trial in past.ranked():
        number, run = runs.get(trial.run, (None, None))
        yield SweepRow(
            trial=trial.number,
            params=tuple(short(trial.params.get(name, "")) for name in past.varied),
            value="" if trial.value is None else f"{trial.value:.4g}",
            state="best" if trial == past.best else trial.fate.value,
            time=time(run) if run else "",
            cost=cost(run) if run else "",
            run=trial.run,
            attempt=number,
        )
