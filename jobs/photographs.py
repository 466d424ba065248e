"""Patches of real photographs, those for training and those held out from different regions.

Source: the photographs that ship in scikit-image and scikit-learn; nothing is downloaded.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from skimage.io import imread

BLOCK = 64
LEAST_CONTRAST = 10  # mean over the channels of the standard deviation, of 255


def photograph(name):
    """uint8, [height, width] or [height, width, 3]."""
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        path = Path(find_spec(package).submodule_search_locations[0], folder, name)
        if path.exists():
            return imread(path)
    raise FileNotFoundError(name)


def regions(photo, size, random):
    """The patches of `photo` for training and those held out, each shuffled.

    The photograph is cut into blocks of 64 x 64 pixels. Every fourth block, by chance, is held
    out, and no patch leaves its block: no pixel is in both. Patches without any structure (sky,
    black) are left out.
    """
    height, width = photo.shape[:2]
    steps = range(0, BLOCK - size + 1, 8)
    found = []
    for top in range(0, height - BLOCK + 1, BLOCK):
        for left in range(0, width - BLOCK + 1, BLOCK):
            corners = [(top + down, left + right) for down in steps for right in steps]
            cut = [photo[y : y + size, x : x + size] for y, x in corners]
            showing = [one for one in cut if one.std(axis=(0, 1)).mean() > LEAST_CONTRAST]
            if showing:
                found.append(np.array(showing))
    order = random.permutation(len(found))
    held_out, train = order[: len(found) // 4], order[len(found) // 4 :]
    return tuple(
        random.permutation(np.concatenate([found[block] for block in side]))
        for side in (train, held_out)
    )


def labelled(photos, size, random, *, train, held_out):
    """((x, y), (x, y)): at most `train` and `held_out` patches of each photograph, shuffled."""
    sides = ([], [])
    for label, name in enumerate(photos):
        cuts = regions(photograph(name), size, random)
        for side, cut, most in zip(sides, cuts, (train, held_out), strict=True):
            side += [(patch, label) for patch in cut[:most]]
    return tuple(
        (
            np.array([side[row][0] for row in order]),
            np.array([side[row][1] for row in order], "uint8"),
        )
        for side in sides
        for order in [random.permutation(len(side))]
    )
