"""Grade category 4, is a critic's sentence favourable.

What the thresholds come from is in docs/problems.md.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (40,)
OUTPUT_SHAPE = (1,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.53, 0.62, 0.66, 0.69, 0.715)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, int32 [1600, 40], word numbers, and y, uint8 [1600], 1 is favourable."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"], data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows on the right side of 0.5."""
    return float(((predictions.reshape(y.shape) > 0.5) == y).mean())
