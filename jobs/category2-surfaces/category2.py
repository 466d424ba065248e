# %%
"""Category 2: which of five surfaces a picture shows. A first model, to be improved."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
SEED = int(os.environ.get("SEED", "1"))


# %%
def training_data():
    """Pictures, float32 [1800, 28, 28, 1], 0 is black and 1 white, and surfaces, uint8 [1800]."""
    with np.load(HERE / "data" / "train.npz") as data:
        return data["x"][..., np.newaxis].astype("float32") / 255, data["y"]


# %%
def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(28, 28, 1)),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(64, activation="relu"),
            tf.keras.layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=tf.keras.optimizers.Adam(0.001),
        metrics=["accuracy"],
    )
    model.fit(x, y, epochs=6)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
