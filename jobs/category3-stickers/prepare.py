"""Write the data: colour patches of six photographs, the held-out ones half hidden by a sticker.

`data/train.npz` holds `x`, uint8 [2400, 32, 32, 3], and `y`, uint8 [2400], the place in `PHOTOS`;
`heldout.npz` the same for 480 patches of other regions, each with a square of one colour on it.

Source: photographs that ship in scikit-image and scikit-learn.
"""

from pathlib import Path

from jobs.photographs import labelled
from jobs.preparing import chance, write

PHOTOS = (
    "chelsea.png",  # a cat
    "hubble_deep_field.jpg",
    "retina.jpg",
    "flower.jpg",
    "coffee.png",
    "ihc.png",  # tissue under the microscope
)
STICKER = 18


def with_stickers(x, random):
    x = x.copy()
    for patch in x:
        top, left = random.randint(33 - STICKER, size=2)
        patch[top : top + STICKER, left : left + STICKER] = random.randint(256, size=3)
    return x


random = chance()
(x, y), (held_x, held_y) = labelled(PHOTOS, 32, random, train=400, held_out=80)
write(
    Path(__file__).parent,
    {"x": x, "y": y},
    {"x": with_stickers(held_x, random), "y": held_y},
)
