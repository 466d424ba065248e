"""Grade category 4, film reviews from the network.

The thresholds are provisional: this data set was not at hand when the others were measured.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (200,)
OUTPUT_SHAPE = (1,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.6, 0.7, 0.8, 0.84, 0.86)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, int32 [5000, 200], word numbers, and y, uint8 [5000], 1 is favourable."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"], data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows on the right side of 0.5."""
    return float(((predictions.reshape(y.shape) > 0.5) == y).mean())
