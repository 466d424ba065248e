"""What the `prepare.py` of the exam's problems share: their seed, and how data is written.

The practice pack's own five do without it, for they are copied into a workspace.
"""

import os
import sys

import numpy as np


def chance():
    """The stream that the seed on the command line gives.

    RandomState and not default_rng: numpy promises never to change its stream.
    """
    return np.random.RandomState(int(sys.argv[1]))


def parted(random, count, held_out):
    """The numbers below `count` in two shuffled parts: for training, and `held_out` of them."""
    order = random.permutation(count)
    return order[held_out:], order[:held_out]


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


def write(folder, train, held_out):
    """Both halves of a problem's data, each a dict of arrays."""
    write_npz(folder / "heldout.npz", **held_out)
    write_npz(folder / "data" / "train.npz", **train)
