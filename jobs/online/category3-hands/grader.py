"""Grade category 3, rock, paper or scissors.

The thresholds are provisional: this data set was not at hand when the others were measured.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (60, 60, 3)
OUTPUT_SHAPE = (3,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.45, 0.6, 0.75, 0.85, 0.9)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, float32 [372, 60, 60, 3], in 0..1, and y, uint8 [372]."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"].astype("float32") / 255, data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows whose largest output is at the right place."""
    return float((predictions.argmax(axis=1) == y).mean())
