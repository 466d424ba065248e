"""Write the held-out data: pieces of clothing.

`heldout.npz` holds `x`, uint8 [10000, 28, 28], and `y`, uint8 [10000]: the data set's own
test part, which is a file apart. The part for training is fetched by the machine that trains, from
the address in `data/origin.txt`; the environment variable DATA_ORIGIN names a mirror.
"""

import gzip
import os
import sys
import urllib.request
from pathlib import Path

import numpy as np

from jobs.preparing import write_npz

HERE = Path(__file__).parent
ORIGIN = os.environ.get(
    "DATA_ORIGIN", "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
)


def fetched(name):
    try:
        with urllib.request.urlopen(ORIGIN + name, timeout=60) as answer:  # noqa: S310
            return answer.read()
    except OSError as error:
        sys.exit(f"error: {ORIGIN}{name} cannot be fetched: {error}")


def numbers(name):
    return np.frombuffer(gzip.decompress(fetched(name)), "uint8")


# Both are in the IDX format: a head of 16 bytes before pictures, of 8 before labels.
x = numbers("t10k-images-idx3-ubyte.gz")[16:].reshape(-1, 28, 28)
y = numbers("t10k-labels-idx1-ubyte.gz")[8:]
write_npz(HERE / "heldout.npz", x=x, y=y)
(HERE / "data").mkdir(exist_ok=True)
(HERE / "data" / "origin.txt").write_text(ORIGIN + "\n")
