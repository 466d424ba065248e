"""Grade category 4, film reviews.

Measured, as the accuracy on the 2,000 held-out reviews (seeds 1 to 3): a constant 0.500, 0 points;
the starter 0.729 to 0.768, 2; the reference 0.868 to 0.875, 5.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (200,)
OUTPUT_SHAPE = (1,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.58, 0.64, 0.79, 0.82, 0.85)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, int32 [2000, 200], word numbers, and y, uint8 [2000], 1 is favourable."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"], data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows on the right side of 0.5."""
    return float(((predictions.reshape(y.shape) > 0.5) == y).mean())
