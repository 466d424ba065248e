# %%
"""Category 3: patches by another camera. The reference."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
SEED = int(os.environ.get("SEED", "1"))


# %%
def training_data():
    """Patches, float32 [2400, 32, 32, 3], in 0..1, and photographs, uint8 [2400]."""
    with np.load(HERE / "data" / "train.npz") as data:
        return data["x"].astype("float32") / 255, data["y"]


# %%
EPOCHS, BATCH = 16, 64


def augmented(images, labels):
    """A batch with tint and grain by chance, as the brief says that unseen patches have."""
    images = tf.image.random_flip_left_right(images)
    tint = tf.random.uniform([tf.shape(images)[0], 1, 1, 3], 0.55, 1.45)
    grain = tf.random.normal(tf.shape(images), 0.0, 0.05)
    return tf.clip_by_value(images * tint + grain, 0.0, 1.0), labels


# %%
def solution_model():
    tf.keras.utils.set_random_seed(SEED)
    x, y = training_data()
    # Augmentation belongs to the data and not to the model: the file then holds plain layers only.
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(BATCH).map(augmented)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input(shape=(32, 32, 3)),
            tf.keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            tf.keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            tf.keras.layers.MaxPooling2D(),
            tf.keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            tf.keras.layers.GlobalAveragePooling2D(),
            tf.keras.layers.Dense(64, activation="relu"),
            tf.keras.layers.Dense(6, activation="softmax"),
        ]
    )
    # A rate that falls to nothing: the last steps would otherwise decide the result.
    rate = tf.keras.optimizers.schedules.CosineDecay(0.004, EPOCHS * -(-len(x) // BATCH))
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=tf.keras.optimizers.Adam(rate),
        metrics=["accuracy"],
    )
    model.fit(batches, epochs=EPOCHS)
    return model


# %%
if __name__ == "__main__":
    model = solution_model()
    model.save(str(HERE / "mymodel.h5"))
