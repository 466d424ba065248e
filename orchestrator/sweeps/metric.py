"""What a sweep looks for: a metric that training tells, never the held-out grade. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import UsageError

# Parts of the names that Keras gives its metrics and losses.
# Source: keras.metrics and keras.losses; what is in neither list is asked for.
_HIGHER = ("acc", "auc", "f1", "fbeta", "iou", "precision", "r2", "recall", "similarity")
_LOWER = (
    *("loss", "error", "mae", "mse", "mape", "msle", "rmse", "perplexity"),
    *("crossentropy", "hinge", "poisson", "divergence", "deviance"),
)


@dataclass(frozen=True)
class Metric:
    """Attributes:
    name: as in metrics.jsonl.
    """

    name: str
    higher_is_better: bool

    @classmethod
    def parse(cls, text: str) -> Metric:
        """`val_accuracy`; `score:max` and `score:min` where the name does not tell.

        Raises:
            UsageError: nobody can tell which way is better, or another word stands for it.
        """
        name, colon, way = text.rpartition(":")
        if colon and name and way in ("min", "max"):
            return cls(name, way == "max")
        if colon:
            raise UsageError(
                f"--metric takes NAME, NAME:min or NAME:max, not {text!r}",
                fix=f"--metric {name}:min, or --metric {name}:max",
            )
        lower = any(part in text.lower() for part in _LOWER)
        higher = any(part in text.lower() for part in _HIGHER)
        if lower == higher:
            raise UsageError(
                f"it is not known whether more or less of {text!r} is better",
                fix=f"--metric {text}:max, or --metric {text}:min",
            )
        return cls(text, higher)

    def __str__(self) -> str:
        return f"{self.name}:{'max' if self.higher_is_better else 'min'}"
