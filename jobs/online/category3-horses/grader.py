"""Grade category 3, horse or human.

The thresholds are provisional: this data set was not at hand when the others were measured.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (60, 60, 3)
OUTPUT_SHAPE = (1,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.6, 0.68, 0.75, 0.8, 0.85)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, float32 [256, 60, 60, 3], in 0..1, and y, uint8 [256], 1 is a human."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"].astype("float32") / 255, data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows on the right side of 0.5."""
    return float(((predictions.reshape(y.shape) > 0.5) == y).mean())
