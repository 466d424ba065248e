"""The pictures of a story: points over time and money, a run's curves, how busy a machine was."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from functools import partial

from orchestrator.costs.cost import format_duration, format_money
from orchestrator.grades.verdict import POINTS, of_five
from orchestrator.records.curves import Pair, paired
from orchestrator.stories.plot import Axis, Key, Plot, Points, Shape, draw, stairs, time_axis
from orchestrator.stories.story import Machine, Story, Trial

# A run tells as many metrics as it likes.
_PLOTS_OF_A_RUN = 4
# As many colours there are for categories.
_COLOURS = 8


def points_over_time(story: Story) -> Plot | None:
    """None where nothing was gained."""

    def at(moment: datetime) -> float:
        return (moment - story.began_at).total_seconds()

    end = max([at(story.until), *(at(rise.at) for rise in story.rises)])
    axis = time_axis("time since the start", elapsed, end)
    return _points("Points over time", story, [at(rise.at) for rise in story.rises], end, axis)


def points_over_money(story: Story) -> Plot | None:
    """None where nothing was gained, or a price is unknown."""
    spent = [rise.spent for rise in story.rises if rise.spent is not None]
    if not story.currency or len(spent) < len(story.rises):
        return None
    end = max([*spent, *(amount for _, amount in story.cost.by_currency)])
    money = partial(_money, currency=story.currency, small=end < Decimal("0.05"))
    axis = Axis("spent", money, (0.0, float(end)))
    return _points("Points over money", story, list(map(float, spent)), float(end), axis)


def _points(title: str, story: Story, places: list[float], end: float, axis: Axis) -> Plot | None:
    """The categories upon each other, so that the uppermost edge is their sum."""
    if not story.rises:
        return None
    tops: list[Points] = []
    below = [0.0] * (len(places) + 1)
    shapes, keys = [], []
    for number, chapter in enumerate(story.chapters):
        points, level = float(chapter.before or 0), [float(chapter.before or 0)]
        for rise in story.rises:
            points = rise.points if rise.category == chapter.category else points
            level.append(points)
        top = [one + other for one, other in zip(below, level, strict=True)]
        lower, upper = (
            stairs(tuple(zip([0.0, *places], edge, strict=True)), end) for edge in (below, top)
        )
        tops.append(upper)
        style = f"c{number % _COLOURS}"
        shapes.append(Shape(f"area {style}", (*upper, *reversed(lower)), is_area=True))
        keys.append(Key(style, f"{chapter.category}: {of_five(round(level[-1]))}", is_area=True))
        below = top
    shapes += [Shape("edge", top) for top in tops]
    out_of = POINTS * len(story.chapters)
    text = f"{title}: {below[0]:.0f} at the start, {below[-1]:.0f} of {out_of} in the end."
    y = Axis("points", "{:.0f}".format, (0.0, float(out_of)), steps=(1.0, 5.0, 10.0, 25.0, 100.0))
    return draw(title, text, axis, y, shapes, keys)


def run_curves(trial: Trial) -> tuple[Plot, ...]:
    """Each metric with its validation, the loss first."""
    return tuple(_curves(trial, pair) for pair in paired(dict(trial.curves))[:_PLOTS_OF_A_RUN])


def _curves(trial: Trial, pair: Pair) -> Plot:
    shapes, keys, told = [], [], []
    for style, points in (("training", pair.training), ("validation", pair.validation)):
        if not points:
            continue
        shapes.append(Shape(f"line {style}", tuple((float(p.step), p.value) for p in points)))
        keys.append(Key(style, style))
        values = [point.value for point in points]
        told.append(
            f"{style} from {values[0]:.4g} to {values[-1]:.4g}, "
            f"lowest {min(values):.4g}, highest {max(values):.4g}"
        )
    name = pair.metric
    text = f"{name} by epoch in {trial.name}: {'; '.join(told)}."
    return draw(name, text, Axis("epoch", _number), Axis(name, _number), shapes, keys)


def machine_use(story: Story, machine: Machine) -> Plot | None:
    """None where nothing is known of its use nor of its paid time."""

    def at(moment: datetime) -> float:
        return (moment - story.began_at).total_seconds()

    runs = (*story.trials, *story.workers)
    trials = [trial for trial in runs if trial.remote == machine.remote and trial.use]
    has_gpu = any(use.gpu_percent is not None for trial in trials for use in trial.use)
    what, style = ("GPU", "gpu") if has_gpu else ("processor", "cpu")
    shapes = [
        Shape("idle", ((at(a), 0.0), (at(a), 100.0), (at(b), 100.0), (at(b), 0.0)), is_area=True)
        for a, b in machine.idle
    ]
    lines: list[Points] = [
        tuple(
            (at(use.at), percent)
            for use in trial.use
            if (percent := use.gpu_percent if has_gpu else use.cpu_percent) is not None
        )
        for trial in trials
    ]
    shapes += [Shape(f"line {style}", line) for line in lines if line]
    if not shapes:
        return None
    keys = [Key(style, f"{what} in use")] if any(lines) else []
    keys += [Key("idle", "paid, and nothing ran", is_area=True)] if machine.idle else []
    text = f"How busy {machine.remote} was."
    if machine.paid is not None:
        time, idle = (t.total_seconds() for t in (machine.paid.time, machine.paid.idle))
        text += f" Paid for {format_duration(time)}, idle for {format_duration(idle)} of it."
    x = time_axis("time since the start", elapsed, at(story.until))
    y = Axis(what, "{:.0f} %".format, (0.0, 100.0))
    return draw(f"{what} of {machine.remote}", text, x, y, shapes, keys)


def elapsed(seconds: float) -> str:
    """Of a tick: `45 s`, `5 min`, `1.5 h`, `3 d`."""
    for least, size, name in ((172800, 86400, "d"), (3600, 3600, "h"), (60, 60, "min")):
        if seconds >= least:
            return f"{seconds / size:g} {name}"
    return f"{seconds:g} s" if seconds else "0"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _money(value: float, currency: str, *, small: bool) -> str:
    return format_money(Decimal(str(round(value, 6))), currency, small=small)
