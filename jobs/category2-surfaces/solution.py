# %%
"""Category 2: which of five surfaces a picture shows. The reference."""

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
EPOCHS, BATCH = 14, 32


def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(28, 28, 1)),
            # How bright a picture is says nothing here: each layer sees differences.
            tf.keras.layers.Conv2D(16, 5, strides=2),
            tf.keras.layers.BatchNormalization(momentum=0.9),
            tf.keras.layers.ReLU(),
            tf.keras.layers.Conv2D(32, 3, activation="relu"),
            tf.keras.layers.Conv2D(32, 3, activation="relu"),
            tf.keras.layers.GlobalAveragePooling2D(),
            tf.keras.layers.Dropout(0.2),
            tf.keras.layers.Dense(5, activation="softmax"),
        ]
    )
    # A rate that falls to nothing: the last steps would otherwise decide the result.
    rate = tf.keras.optimizers.schedules.CosineDecay(0.004, EPOCHS * -(-len(x) // BATCH))
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=tf.keras.optimizers.Adam(rate),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
