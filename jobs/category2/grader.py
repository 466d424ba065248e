"""Grade category 2, handwritten digits.

Measured, as the accuracy on the 1,000 held-out pictures (seeds 1 to 3): a constant 0.100, 0 points;
the starter, one softmax layer, 0.884 to 0.887, 2; the reference, two convolutions, 0.973 to 0.980,
5.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (28, 28, 1)
OUTPUT_SHAPE = (10,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.7, 0.84, 0.92, 0.945, 0.96)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, float32 [1000, 28, 28, 1], 0 is black and 1 white, and y, uint8 [1000]."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"][..., np.newaxis].astype("float32") / 255, data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows whose largest output is at the right place."""
    return float((predictions.argmax(axis=1) == y).mean())
