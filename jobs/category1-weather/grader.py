"""Grade category 1, how warm a day in Seattle became.

What the thresholds come from is in docs/problems.md.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (9,)
OUTPUT_SHAPE = (1,)
METRIC = "mean absolute error"
HIGHER_IS_BETTER = False
THRESHOLDS = (5.0, 3.5, 2.75, 2.55, 2.4)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, float32 [365, 9], and y, float32 [365], degrees Celsius."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"], data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """In degrees Celsius; nan, below no threshold, for nan."""
    return float(np.abs(predictions.reshape(y.shape) - y).mean())
