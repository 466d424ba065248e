# %%
"""Category 4: is a film review favourable. The reference."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
SEED = int(os.environ.get("SEED", "1"))


# %%
def training_data():
    """Word numbers, int32 [8000, 200], and labels, uint8 [8000], 1 is favourable."""
    with np.load(HERE / "data" / "train.npz") as data:
        return data["x"], data["y"]


# %%
def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(200,)),
            tf.keras.layers.Embedding(10_000, 32),
            tf.keras.layers.Dropout(0.3),
            tf.keras.layers.Conv1D(32, 3, activation="relu"),
            tf.keras.layers.GlobalAveragePooling1D(),
            tf.keras.layers.Dropout(0.3),
            tf.keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        loss="binary_crossentropy",
        optimizer=tf.keras.optimizers.Adam(0.002),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=64, epochs=6)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
