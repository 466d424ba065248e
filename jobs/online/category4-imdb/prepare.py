"""Write the held-out data: film reviews as numbers, and whether each is favourable.

`heldout.npz` holds `x`, int32 [5000, 200], and `y`, uint8 [5000]: every fifth review of the data
set's own test part, encoded as `category4.py` encodes those for training. The machine that trains
fetches the data set anew, from the address in `data/origin.txt`, which is followed by the digest of
what came from there; the environment variable DATA_ORIGIN names a mirror.

The data set is one file: the other machine gets the test part with the training part, and its
script passes it over. The reviews are pickled, which could run any code. So they are read here by
an unpickler that makes arrays only, and there only if it is the same file.
"""

import hashlib
import io
import pickle
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jobs.fetching import fetched, origin, write

HERE = Path(__file__).parent
ORIGIN = origin("https://storage.googleapis.com/tensorflow/tf-keras-datasets/")
WORDS, LENGTH = 10_000, 200
RARE, FIRST = 2, 3
SPOILT = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error)
ARRAYS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def read(archive, name):
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is of an unknown version")
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
        if kind.hasobject:
            return ArraysOnly(file).load()
        return np.frombuffer(file.read(), kind).reshape(shape)


def encoded(texts):
    rows = np.zeros((len(texts), LENGTH), "int32")
    for row, text in zip(rows, texts, strict=True):
        last = np.array(text[-LENGTH:], "int32") + FIRST
        row[: len(last)] = np.where(last < WORDS, last, RARE)
    return rows


data = fetched(ORIGIN + "imdb.npz")
try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        texts, labels = read(archive, "x_test")[::5], read(archive, "y_test")[::5]
        x, y = encoded(texts), labels.astype("uint8")
except (*SPOILT, ValueError, KeyError, EOFError) as error:
    sys.exit(f"error: {ORIGIN}imdb.npz is not what it should be: {error}")
write(HERE, f"{ORIGIN} {hashlib.sha256(data).hexdigest()}", x=x, y=y)
