# %%
"""Category 4: is a critic's sentence favourable. The reference."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
SEED = int(os.environ.get("SEED", "1"))


# %%
def training_data():
    """Word numbers, int32 [6400, 40], and labels, uint8 [6400], 1 is favourable."""
    with np.load(HERE / "data" / "train.npz") as data:
        return data["x"], data["y"]


# %%
EPOCHS, BATCH = 6, 64


def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(40,)),
            # Masked, so that the filling of short sentences does not thin out their words.
            tf.keras.layers.Embedding(6000, 32, mask_zero=True),
            tf.keras.layers.Dropout(0.5),
            tf.keras.layers.GlobalAveragePooling1D(),
            tf.keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    # A rate that falls to nothing: the last steps would otherwise decide the result.
    rate = tf.keras.optimizers.schedules.CosineDecay(0.01, EPOCHS * -(-len(x) // BATCH))
    model.compile(
        loss="binary_crossentropy",
        optimizer=tf.keras.optimizers.Adam(rate),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
