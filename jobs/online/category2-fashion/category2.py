# %%
"""Category 2: pieces of clothing. A first model, to be improved.

The pictures are fetched from the network by the machine that trains, once: Keras keeps them.
"""

import gzip
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
SEED = int(os.environ.get("SEED", "1"))
ORIGIN = (HERE / "data" / "origin.txt").read_text().strip()


# %%
def fetched(name, read):
    """What `read` makes of a file of the data set."""
    try:
        path = tf.keras.utils.get_file(
            name, origin=ORIGIN + name, cache_subdir="datasets/fashion-mnist"
        )
    except Exception as error:  # noqa: BLE001  Keras raises no other class
        sys.exit(
            f"error: {ORIGIN}{name} cannot be fetched\n  cause: {error}\n"
            "  fix:   check this machine's network; without one, category2 of a workspace that is\n"
            "         made without --online asks for the same with data of its own"
        )
    try:
        return read(path)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        # A download that was killed leaves half a file, which Keras would take for the whole.
        Path(path).unlink()
        sys.exit(f"error: {path} is damaged and was removed\n  cause: {error}\n  fix:   run again")


def training_data():
    """Pictures, float32 [60000, 28, 28, 1], 0 is black and 1 white, and kinds, uint8 [60000]."""

    def numbers(path):
        return np.frombuffer(gzip.decompress(Path(path).read_bytes()), "uint8")

    # Both are in the IDX format: a head of 16 bytes before pictures, of 8 before labels.
    x = fetched("train-images-idx3-ubyte.gz", numbers)[16:].reshape(-1, 28, 28, 1)
    return x.astype("float32") / 255, fetched("train-labels-idx1-ubyte.gz", numbers)[8:]


# %%
def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(28, 28, 1)),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    model.fit(x, y, epochs=1)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
