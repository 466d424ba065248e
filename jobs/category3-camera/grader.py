"""Grade category 3, patches by another camera.

What the thresholds come from is in docs/problems.md.
"""

from pathlib import Path

import numpy as np

INPUT_SHAPE = (32, 32, 3)
OUTPUT_SHAPE = (6,)
METRIC = "accuracy"
HIGHER_IS_BETTER = True
THRESHOLDS = (0.28, 0.36, 0.45, 0.53, 0.6)


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """x, float32 [480, 32, 32, 3], each channel in 0..1, and y, uint8 [480]."""
    with np.load(Path(__file__).parent / "heldout.npz") as data:
        return data["x"].astype("float32") / 255, data["y"]


def score(y: np.ndarray, predictions: np.ndarray) -> float:
    """The share of rows whose largest output is at the right place."""
    return float((predictions.argmax(axis=1) == y).mean())
