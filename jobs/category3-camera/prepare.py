"""Write the data: colour patches of six photographs, the held-out ones by another camera.

`data/train.npz` holds `x`, uint8 [2400, 32, 32, 3], and `y`, uint8 [2400], the place in `PHOTOS`;
`heldout.npz` the same for 480 patches of other regions, which have a tint and grain.

Source: photographs that ship in scikit-image and scikit-learn.
"""

from pathlib import Path

import numpy as np

from jobs.photographs import labelled
from jobs.preparing import chance, write

PHOTOS = (
    "china.jpg",
    "flower.jpg",
    "coffee.png",
    "astronaut.png",
    "ihc.png",
    "motorcycle_left.png",
)


def by_another_camera(x, random):
    tint = random.uniform(0.6, 1.4, (len(x), 1, 1, 3))
    grain = random.normal(0, 12, x.shape)
    return np.clip(x * tint + grain, 0, 255).astype("uint8")


random = chance()
(x, y), (held_x, held_y) = labelled(PHOTOS, 32, random, train=400, held_out=80)
write(
    Path(__file__).parent,
    {"x": x, "y": y},
    {"x": by_another_camera(held_x, random), "y": held_y},
)
