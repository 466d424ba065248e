"""Write the data: small grey pictures of five surfaces.

`data/train.npz` holds `x`, uint8 [1800, 28, 28], and `y`, uint8 [1800], the place in `SURFACES`;
`heldout.npz` the same for 500 pictures of other regions. All are lit by chance, so that how bright
a picture is says nothing of what it shows.

Source: photographs that ship in scikit-image.
"""

from pathlib import Path

import numpy as np

from jobs.photographs import labelled
from jobs.preparing import chance, write

SURFACES = ("brick.png", "grass.png", "gravel.png", "coins.png", "camera.png")


def lit(x, random):
    """The pictures at another mean and contrast each."""
    x = x.astype("float32")
    mean, spread = x.mean(axis=(1, 2), keepdims=True), x.std(axis=(1, 2), keepdims=True)
    light = random.uniform(90, 160, (len(x), 1, 1))
    contrast = random.uniform(15, 45, (len(x), 1, 1))
    return np.clip((x - mean) / spread * contrast + light, 0, 255).astype("uint8")


random = chance()
(x, y), (held_x, held_y) = labelled(SURFACES, 28, random, train=360, held_out=100)
write(
    Path(__file__).parent,
    {"x": lit(x, random), "y": y},
    {"x": lit(held_x, random), "y": held_y},
)
