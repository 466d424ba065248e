"""Write the held-out data: pieces of clothing.

`heldout.npz` holds `x`, uint8 [10000, 28, 28], and `y`, uint8 [10000]: the data set's own
test part, which is a file apart. The part for training is fetched by the machine that trains, from
the address in `data/origin.txt`; the environment variable DATA_ORIGIN names a mirror.
"""

import gzip
from pathlib import Path

import numpy as np

from jobs.fetching import fetched, origin, write

HERE = Path(__file__).parent
ORIGIN = origin("https://storage.googleapis.com/tensorflow/tf-keras-datasets/")


def numbers(name):
    return np.frombuffer(gzip.decompress(fetched(ORIGIN + name)), "uint8")


# Both are in the IDX format: a head of 16 bytes before pictures, of 8 before labels.
x = numbers("t10k-images-idx3-ubyte.gz")[16:].reshape(-1, 28, 28)
y = numbers("t10k-labels-idx1-ubyte.gz")[8:]
write(HERE, ORIGIN, x=x, y=y)
