# %%
"""Category 5: the sunspots of the next month. The reference.

They are fetched from the network by the machine that trains, once: Keras keeps them.
"""

import csv
import os
import sys
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
        path = tf.keras.utils.get_file(name, origin=ORIGIN + name, cache_subdir="datasets/sunspots")
    except Exception as error:  # noqa: BLE001  Keras raises no other class
        sys.exit(
            f"error: {ORIGIN}{name} cannot be fetched\n  cause: {error}\n"
            "  fix:   check this machine's network; without one, category5 of a workspace that is\n"
            "         made without --online asks for the same with data of its own"
        )
    try:
        return read(path)
    except (OSError, ValueError, IndexError) as error:
        # A download that was killed leaves half a file, which Keras would take for the whole.
        Path(path).unlink()
        sys.exit(f"error: {path} is damaged and was removed\n  cause: {error}\n  fix:   run again")


# To 1998; what comes after them is marked.
MONTHS, MONTHS_IN = 3000, 30


def training_data():
    """Windows: months, float32 [2970, 30, 1], and the one that follows, float32 [2970, 1]."""

    def spots(path):
        rows = list(csv.reader(Path(path).read_text().splitlines()))[1 : MONTHS + 1]
        if len(rows) < MONTHS:
            raise ValueError(f"it has only {len(rows)} months")
        return np.array([row[2] for row in rows], "float32")

    monthly = fetched("Sunspots.csv", spots)
    windows = np.lib.stride_tricks.sliding_window_view(monthly, MONTHS_IN + 1)
    return windows[:, :MONTHS_IN, np.newaxis], windows[:, MONTHS_IN:]


# %%
def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(MONTHS_IN, 1)),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(64, activation="relu"),
            tf.keras.layers.Dense(64, activation="relu"),
            tf.keras.layers.Dense(1),
        ]
    )
    model.compile(loss="mae", optimizer="adam")
    model.fit(x, y, batch_size=64, epochs=100)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
