"""Write the data of category 3: small colour patches of eight photographs.

`data/train.npz` holds `x`, uint8 [n, 32, 32, 3], and `y`, uint8 [n], the place in `PHOTOS`;
`heldout.npz` the same for patches of other regions, which are also turned, mirrored and lit
differently.

Each photograph is cut into blocks of 64 x 64 pixels. Every fourth block, by chance, is held out,
and no patch leaves its block: no pixel is in both sets. Patches without any structure (sky, black)
are left out.

Source: the photographs that ship in the scikit-image package; nothing is downloaded.
"""

import os
import sys
from pathlib import Path

try:
    import numpy as np
    from skimage import data_dir
    from skimage.io import imread
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is missing: pip install '.[practice]' in trainshed's folder")

HERE = Path(__file__).parent
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 3
PHOTOS = (
    "astronaut.png",
    "chelsea.png",  # a cat
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",  # tissue under the microscope
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
BLOCK, PATCH = 64, 32
TRAIN_PER_PHOTO, HELD_OUT_PER_PHOTO = 400, 100
LEAST_CONTRAST = 10  # mean over the channels of the standard deviation, of 255


def patches(block):
    """The patches of one block that show something; they overlap."""
    steps = range(0, BLOCK - PATCH + 1, 8)
    cut = [block[top : top + PATCH, left : left + PATCH] for top in steps for left in steps]
    return [patch for patch in cut if patch.std(axis=(0, 1)).mean() > LEAST_CONTRAST]


def regions(photo, random):
    """The patches of `photo` for training and those held out, each shuffled."""
    height, width, _ = photo.shape
    blocks = [
        photo[top : top + BLOCK, left : left + BLOCK]
        for top in range(0, height - BLOCK + 1, BLOCK)
        for left in range(0, width - BLOCK + 1, BLOCK)
    ]
    found = [cut for cut in map(patches, blocks) if cut]
    order = random.permutation(len(found))
    held_out, train = order[: len(found) // 4], order[len(found) // 4 :]
    return tuple(
        random.permutation(np.concatenate([found[block] for block in side]))
        for side in (train, held_out)
    )


def photographed_again(patch, random):
    """The patch as another photographer would bring it: turned, mirrored, darker or brighter."""
    turned = np.rot90(patch, random.randint(4))
    if random.randint(2):
        turned = turned[:, ::-1]
    return np.clip(turned * random.uniform(0.5, 1.5), 0, 255).astype("uint8")


def write_npz(path, **arrays):
    """Make `arrays` the content of `path`, or leave `path` as it was.

    Equal arrays give equal bytes: a data folder is sent again only when its content changed.
    """
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def main():
    # RandomState and not default_rng: numpy promises never to change its stream.
    random = np.random.RandomState(SEED)
    train, held_out = [], []
    for label, name in enumerate(PHOTOS):
        photo = imread(Path(data_dir) / name)
        for_training, unseen = regions(photo, random)
        train += [(patch, label) for patch in for_training[:TRAIN_PER_PHOTO]]
        held_out += [
            (photographed_again(patch, random), label) for patch in unseen[:HELD_OUT_PER_PHOTO]
        ]
    for path, rows in ((HERE / "heldout.npz", held_out), (HERE / "data" / "train.npz", train)):
        order = random.permutation(len(rows))
        x = np.array([rows[row][0] for row in order])
        y = np.array([rows[row][1] for row in order], "uint8")
        write_npz(path, x=x, y=y)


if __name__ == "__main__":
    main()
