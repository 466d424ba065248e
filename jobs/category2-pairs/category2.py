# %%
"""Category 2: is the left digit the larger one. A first model, to be improved."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
SEED = int(os.environ.get("SEED", "1"))


# %%
def training_data():
    """Pictures, float32 [6000, 28, 56, 1], 0 is black, and labels, uint8 [6000]."""
    with np.load(HERE / "data" / "train.npz") as data:
        return data["x"][..., np.newaxis].astype("float32") / 255, data["y"]


# %%
def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(28, 56, 1)),
            tf.keras.layers.AveragePooling2D(2),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        loss="binary_crossentropy",
        optimizer=tf.keras.optimizers.Adam(0.001),
        metrics=["accuracy"],
    )
    model.fit(x, y, epochs=4)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
