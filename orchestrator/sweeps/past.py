"""A sweep as its study tells it: what was looked for, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.sweeps.metric import Metric
from orchestrator.sweeps.space import Range
from orchestrator.sweeps.trial import Trial, best_of, ranked


@dataclass(frozen=True)
class Past:
    """Attributes:
    varied: the parameters' ranges.
    trials: by number.
    importances: each parameter's share in what made trials good, the largest first; they sum to 1.
        Empty where there are too few trials to tell, or only one parameter is varied.
    """

    name: str
    category: str
    metric: Metric
    varied: Mapping[str, Range]
    trials: tuple[Trial, ...]
    importances: Mapping[str, float]

    @property
    def best(self) -> Trial | None:
        """Of those that came to their end."""
        return best_of(self.trials, higher_is_better=self.metric.higher_is_better)

    def ranked(self) -> list[Trial]:
        return ranked(self.trials, higher_is_better=self.metric.higher_is_better)


def importance_text(past: Past) -> str:
    """`lr 74 %, layers 26 %, others under 1 %`; empty where nothing is known of it."""
    known = {name: share for name, share in past.importances.items() if share >= 0.01}
    told = [f"{name} {share_text(share)}" for name, share in known.items()]
    others = [name for name in past.importances if name not in known]
    if others:
        told.append(f"{others[0] if len(others) == 1 else 'others'} {share_text(0)}")
    return ", ".join(told)


def share_text(share: float) -> str:
    return f"{share * 100:.0f} %" if share >= 0.01 else "under 1 %"
