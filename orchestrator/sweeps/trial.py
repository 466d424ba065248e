"""A trial, what a run means for it, and which is the best. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.records.curves import Epoch

# So many that fail one after the other, with none that did not, fail for the same reason.
HOPELESS = 3


class Fate(StrEnum):
    OPEN = "open"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """A point of the space, and what became of it.

    Attributes:
        number: from 0, in the order in which they were asked for.
        params: the varied ones, as the script gets them.
        run: the id of its run; empty until one is made up.
        told: the last step whose value the study has; 0 for none.
        value: of a complete one at its end, of a pruned one when it was last heard of.
        given_up: whether its run was asked to end before its time.
    """

    number: int
    params: Mapping[str, str]
    fate: Fate
    run: str = ""
    told: int = 0
    value: float | None = None
    given_up: bool = False


def last_value(epochs: Sequence[Epoch], metric: str) -> float | None:
    """What training told of it last; None where that was no finite number, or it never did."""
    return next((e.metrics[metric] for e in reversed(epochs) if metric in e.metrics), None)


def fate_of(verdict: str, value: float | None, *, given_up: bool) -> Fate:
    """What an ended run means. One that came to its end although it was asked to stop counts.

    Args:
        verdict: the run's, in a word.
        value: what it told last.
    """
    if verdict == "succeeded":
        return Fate.FAILED if value is None else Fate.COMPLETE
    return Fate.PRUNED if given_up else Fate.FAILED


def opened(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    return tuple(trial for trial in trials if trial.fate is Fate.OPEN)


def is_hopeless(trials: Iterable[Trial]) -> bool:
    ended = [trial.fate for trial in trials if trial.fate is not Fate.OPEN]
    return len(ended) >= HOPELESS and set(ended) == {Fate.FAILED}


def is_void(trials: Iterable[Trial]) -> bool:
    """Whether nothing was learned and nothing goes on."""
    return all(trial.fate is Fate.FAILED for trial in trials)


def ranked(trials: Iterable[Trial], *, higher_is_better: bool) -> list[Trial]:
    """The best first; behind the complete ones the pruned, the failed, and what goes on."""
    order = [Fate.COMPLETE, Fate.PRUNED, Fate.FAILED, Fate.OPEN]
    sign = -1 if higher_is_better else 1

    def key(trial: Trial) -> tuple[int, float, int]:
        value = sign * trial.value if trial.value is not None else float("inf")
        return order.index(trial.fate), value, trial.number

    return sorted(trials, key=key)


def best_of(trials: Iterable[Trial], *, higher_is_better: bool) -> Trial | None:
    """The first of the best among those that came to their end."""
    first = next(iter(ranked(trials, higher_is_better=higher_is_better)), None)
    return first if first is not None and first.fate is Fate.COMPLETE else None


def short(text: str) -> str:
    """A number with as many digits as a person compares."""
    try:
        return text if len(text) < 8 else f"{float(text):.4g}"
    except ValueError:
        return text
