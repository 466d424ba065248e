"""The pictures of a sweep: each trial as a line through its parameters, and which of them mattered.

Only geometry, as in `plot.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.records.curves import thinned
from orchestrator.stories.plot import BOTTOM, HEIGHT, LARGEST, TOP, WIDTH, Axis, Key, Label, Plot
from orchestrator.sweeps.past import Past, importance_text, share_text
from orchestrator.sweeps.space import Choices, Range, Reals, Wholes
from orchestrator.sweeps.trial import Fate, Trial, short

# More parameters than these could not be told apart; the table has all.
_MOST = 7
# In the picture's pixels: a character of its text, and where the first and the last axis stand. To
# the right of each are its ticks.
_CHARACTER = 8.0
_FIRST, _LAST = 38, 412
_BAR, _BAR_END = 160, 420
_ROW = 26
# A trial that diverged would press all others together: beyond so many times the distance of the
# median from the best nothing is told apart.
_FAR = 4.0
# So many texts fit above each other.
_TICKS = 9


@dataclass(frozen=True)
class _Scale:
    """An axis of its own: where a value lies on it, from 0 at its bottom to 1."""

    name: str
    place: Callable[[str], float]
    ticks: tuple[tuple[float, str], ...]


def parallel_coordinates(past: Past) -> Plot | None:
    """None where fewer than two trials came to their end."""
    ended = [trial for trial in past.ranked() if trial.fate is Fate.COMPLETE]
    if len(ended) < 2:
        return None
    names = list(past.importances or past.varied)[:_MOST]
    scales = [_scale(name, past.varied[name]) for name in names]
    metric = _metric_scale(past, ended)
    gap = (_LAST - _FIRST) / len(names)
    columns = [_FIRST + gap * number for number in range(len(names) + 1)]

    def path(trial: Trial) -> str:
        heights = [scale.place(trial.params[scale.name]) for scale in scales]
        # What was pruned has no value that could be compared.
        heights += [metric.place(repr(trial.value))] * (trial.fate is Fate.COMPLETE)
        points = zip(columns, heights, strict=False)
        return "M" + " ".join(f"{x:.1f},{_up(height):.1f}" for x, height in points)

    pruned = [trial for trial in past.trials if trial.fate is Fate.PRUNED]
    best, *others = ended
    good = others[: math.ceil(len(ended) / 4) - 1]
    drawn = (("pruned", pruned), ("tried", others[len(good) :]), ("good", good), ("best", [best]))
    words = {"best": "the best", "good": "best quarter", "tried": "others", "pruned": "pruned"}
    tried = ", ".join(f"{name} {short(best.params[name])}" for name in names)
    better = "highest" if past.metric.higher_is_better else "lowest"
    return Plot(
        title=f"Trials of {past.name} by {past.metric.name}",
        text=f"Each of {len(ended)} trials is a line from its parameters to its {past.metric.name}."
        f" The best, trial {best.number}, has the {better}, {best.value:.4g}, with {tried}.",
        x_name="",
        x_ticks=(),
        y_ticks=(),
        paths=(
            *(("axis", f"M{x:.1f},{TOP}V{BOTTOM}") for x in columns),
            *((style, path(trial)) for style, trials in drawn for trial in reversed(trials)),
        ),
        keys=tuple(Key(style, words[style]) for style, trials in reversed(drawn) if trials),
        labels=tuple(
            label
            for x, scale in zip(columns, (*scales, metric), strict=True)
            for label in _labels(x, gap, scale)
        ),
    )


def _labels(x: float, gap: float, scale: _Scale) -> Iterator[Label]:
    """An axis' name below it, within the picture, and its ticks beside it."""
    fits = max(3, int((gap - 4) / _CHARACTER))
    for at, text in scale.ticks:
        yield Label(x + 5, _up(at) + 4, _cut(text, fits), "tick")
    # Beside the last one there is no other.
    name = _cut(scale.name, int((WIDTH - 4 - x + gap / 2) / _CHARACTER) if x == _LAST else fits)
    half = len(name) * _CHARACTER / 2
    yield Label(min(max(x, half), WIDTH - half), BOTTOM + 18, name, "middle name")


def _scale(name: str, varied: Range) -> _Scale:
    match varied:
        case Choices(values):
            places = {value: at / (len(values) - 1) for at, value in enumerate(values)}
            shown = thinned(values, _TICKS)
            return _Scale(name, places.__getitem__, tuple((places[v], v) for v in shown))
        case Wholes(low, high, log):
            return _numbers(name, low, high, log=log, is_whole=True)
        case Reals(lowest, highest, log):
            return _numbers(name, lowest, highest, log=log, is_whole=False)


def _numbers(name: str, low: float, high: float, *, log: bool, is_whole: bool) -> _Scale:
    if log:
        first, last = math.log10(low), math.log10(high)
        powers = [10.0**power for power in range(math.ceil(first), math.floor(last) + 1)]
        # Between two powers the ends say more.
        ticks = powers if len(powers) > 2 else [low, high]
    else:
        first, last = low, high
        ticks = Axis(name, str).ticks(low, high, 5)
        if is_whole:
            ticks = [tick for tick in ticks if math.isclose(tick, round(tick))]

    def place(text: str) -> float:
        value = math.log10(float(text)) if log else float(text)
        return (value - first) / (last - first)

    return _Scale(name, place, tuple((place(repr(tick)), f"{tick:.4g}") for tick in ticks))


def _metric_scale(past: Past, ended: Sequence[Trial]) -> _Scale:
    """The better the higher; what is far worse than most lies at the bottom."""
    sign = 1 if past.metric.higher_is_better else -1

    def worth_of(value: float) -> float:
        return min(max(sign * value, -LARGEST), LARGEST)

    worth = [worth_of(trial.value) for trial in ended if trial.value is not None]
    best = max(worth)
    far = best - _FAR * (best - median(worth))
    is_cut = min(worth) < far < best
    axis = Axis(past.metric.name, str)
    low, high = axis.range(max(value, far) if is_cut else value for value in worth)

    def place(text: str) -> float:
        return max(0.0, (worth_of(float(text)) - low) / (high - low))

    ticks = [(place(repr(sign * at)), f"{sign * at:.4g}") for at in axis.ticks(low, high, 5)]
    if is_cut:
        ticks = [(0.0, "worse"), *(tick for tick in ticks if tick[0] > 1 / _TICKS)]
    return _Scale(axis.name, place, tuple(ticks))


def importance_bars(past: Past) -> Plot | None:
    """None where nothing is known of it."""
    shares = list(past.importances.items())[:_MOST]
    if not shares:
        return None
    widest = shares[0][1]
    paths, labels = [], []
    for number, (name, share) in enumerate(shares):
        top = TOP + number * _ROW
        end = _BAR + max(1.0, share / widest * (_BAR_END - _BAR))
        paths.append(("bar", f"M{_BAR},{top}H{end:.1f}V{top + _ROW - 8}H{_BAR}Z"))
        middle = top + _ROW / 2
        fits = int(_BAR / _CHARACTER) - 1
        labels.append(Label(_BAR - 8, middle, _cut(name, fits), "end name"))
        labels.append(Label(end + 6, middle, share_text(share), "tick"))
    title = f"What mattered for {past.metric.name}"
    return Plot(
        title=title,
        text=f"Each parameter's share in what made trials good: {importance_text(past)}.",
        x_name="",
        x_ticks=(),
        y_ticks=(),
        paths=tuple(paths),
        keys=(),
        labels=tuple(labels),
        height=min(HEIGHT, TOP + len(shares) * _ROW),
    )


def _up(height: float) -> float:
    return BOTTOM - height * (BOTTOM - TOP)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
