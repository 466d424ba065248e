# %%
"""Category 1: how far diabetes went within a year. A first model, to be improved."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
SEED = int(os.environ.get("SEED", "1"))


# %%
def training_data():
    """Features, float32 [332, 10], in their own units, and the measure, float32 [332]."""
    with np.load(HERE / "data" / "train.npz") as data:
        return data["x"], data["y"]


# %%
def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(10,)),
            tf.keras.layers.Rescaling(1 / 100),
            tf.keras.layers.Dense(8, activation="relu"),
            tf.keras.layers.Dense(1),
        ]
    )
    model.compile(loss="mae", optimizer=tf.keras.optimizers.Adam(0.02))
    model.fit(x, y, epochs=40)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
