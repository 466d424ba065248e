"""Grade category 2, is the left digit the larger one.

What the thresholds come from is in docs/problems.md.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (28, 56, 1)
OUTPUT_SHAPE = (1,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.6, 0.7, 0.8, 0.85, 0.89)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, float32 [1000, 28, 56, 1], 0 is black and 1 white, and y, uint8 [1000]."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"][..., np.newaxis].astype("float32") / 255, data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows on the right side of 0.5."""
    return float(((predictions.reshape(y.shape) > 0.5) == y).mean())
