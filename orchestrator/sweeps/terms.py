"""What a sweep was begun with, and no command that goes on with it may change. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.sweeps.metric import Metric
from orchestrator.sweeps.space import Space

_PARAM = "--param "


@dataclass(frozen=True)
class Terms:
    """What makes two trials comparable, but for the code.

    Attributes:
        sampler: `tpe`, `grid` or `random`.
        pruner: `median`, `hyperband` or `none`.
    """

    category: str
    space: Space
    metric: Metric
    sampler: str
    pruner: str

    @classmethod
    def parse(cls, words: Mapping[str, str]) -> Terms:
        """What `words` gave.

        Raises:
            UsageError, KeyError: it gave something else.
        """
        params = {
            name.removeprefix(_PARAM): text
            for name, text in words.items()
            if name.startswith(_PARAM)
        }
        return cls(
            words["category"],
            Space.parse(params),
            Metric.parse(words["--metric"]),
            words["--sampler"],
            words["--pruner"],
        )

    def words(self) -> dict[str, str]:
        """For people and for comparison."""
        params = {f"{_PARAM}{name}": text for name, text in self.space.words().items()}
        return {
            "category": self.category,
            "--metric": str(self.metric),
            "--sampler": self.sampler,
            "--pruner": self.pruner,
            **params,
        }
