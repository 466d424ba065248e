"""Grade category 4, where in a review the words stood.

What the thresholds come from is in docs/problems.md.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (30,)
OUTPUT_SHAPE = (3,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.38, 0.46, 0.54, 0.565, 0.58)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, int32 [2100, 30], word numbers, and y, uint8 [2100], 0 to 2."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"], data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows whose largest output is at the right place."""
    return float((predictions.argmax(axis=1) == y).mean())
