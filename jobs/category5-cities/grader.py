"""Grade category 5, the next twelve hours of two cities.

What the thresholds come from is in docs/problems.md.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (24, 2)
OUTPUT_SHAPE = (12, 2)
METRIC = "mean absolute error"
HIGHER_IS_BETTER = False
THRESHOLDS = (4.5, 2.0, 0.6, 0.3, 0.2)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, float32 [1806, 24, 2], and y, float32 [1806, 12, 2], degrees Fahrenheit."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"], data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """In degrees Fahrenheit, over all hours of all windows; nan, below no threshold, for nan."""
    return float(np.abs(predictions.reshape(y.shape) - y).mean())
