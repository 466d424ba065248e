"""Grade category 1, how far diabetes went within a year.

What the thresholds come from is in docs/problems.md.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (10,)
OUTPUT_SHAPE = (1,)
METRIC = "error as a share of the best constant's"
HIGHER_IS_BETTER = False
THRESHOLDS = (0.95, 0.85, 0.765, 0.758, 0.75)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, float32 [110, 10], and y, float32 [110]."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"], data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The mean absolute error by that of y's median; nan, below no threshold, for nan.

    A share and not the error itself, which depends on how ill the people are that a seed holds out.
    """
    error = np.abs(predictions.reshape(y.shape) - y).mean()
    return float(error / np.abs(np.median(y) - y).mean())
