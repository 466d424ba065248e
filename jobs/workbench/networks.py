"""Five networks like the pack's references, and what each is fitted with: data of the shape of a
category's, made by a seed. Which numbers are learned makes no difference to how long that takes.
"""

import numpy as np
import tensorflow as tf

layers = tf.keras.layers
WORDS = 10_000


def regression(samples, batch):
    """Nine numbers to one, through two dense layers."""
    x, y = noise(samples, 9), noise(samples, 1)
    model = tf.keras.Sequential(
        [
            layers.Input(shape=(9,)),
            layers.BatchNormalization(momentum=0.9),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(64, activation="relu"),
            layers.Dense(1),
        ]
    )
    return model, "mae", arrays(x, y, batch)


def digits(samples, batch):
    """Grey pictures, 28x28, to ten classes."""
    x, y = noise(samples, 28, 28, 1), classes(samples, 10)
    model = tf.keras.Sequential(
        [
            layers.Input(shape=(28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return model, "sparse_categorical_crossentropy", arrays(x, y, batch)


def photos(samples, batch):
    """Coloured pictures, 32x32, to eight classes; turned and lit by chance, on the CPU."""
    x, y = noise(samples, 32, 32, 3), classes(samples, 8)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(samples).batch(batch)
    model = tf.keras.Sequential(
        [
            layers.Input(shape=(32, 32, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(64, activation="relu"),
            layers.Dense(8, activation="softmax"),
        ]
    )
    return model, "sparse_categorical_crossentropy", {"x": batches.map(augmented)}


def text(samples, batch):
    """Two hundred words to yes or no, through a convolution and a recurrent layer side by side."""
    x = np.random.randint(0, WORDS, (samples, 200)).astype("int32")
    words = layers.Input(shape=(200,))
    known = layers.Dropout(0.3)(layers.Embedding(WORDS, 32)(words))
    near = layers.GlobalAveragePooling1D()(layers.Conv1D(32, 3, activation="relu")(known))
    far = layers.LSTM(16)(layers.AveragePooling1D(8)(known))
    hidden = layers.Dropout(0.4)(layers.Concatenate()([near, far]))
    model = tf.keras.Model(words, layers.Dense(1, activation="sigmoid")(hidden))
    return model, "binary_crossentropy", arrays(x, classes(samples, 2), batch)


def series(samples, batch):
    """Twelve hours to the next twenty-four, as changes since the last."""
    x, y = noise(samples, 12, 1), noise(samples, 24)
    hours = layers.Input(shape=(12, 1))
    last = layers.Flatten()(layers.Cropping1D((11, 0))(hours))
    shape = layers.Subtract()([layers.Flatten()(hours), repeated(last, 12)])
    hidden = layers.Dense(64, activation="relu")(shape)
    hidden = layers.Dense(64, activation="relu")(hidden)
    model = tf.keras.Model(hours, layers.Add()([repeated(last, 24), layers.Dense(24)(hidden)]))
    return model, "mae", arrays(x, y, batch)


NETWORKS = {made.__name__: made for made in (regression, digits, photos, text, series)}


def noise(*shape):
    """float32, in 0..1."""
    return np.random.random_sample(shape).astype("float32")


def classes(samples, count):
    """uint8 [samples], below `count`."""
    return np.random.randint(0, count, samples).astype("uint8")


def arrays(x, y, batch):
    """As `fit` takes them."""
    return {"x": x, "y": y, "batch_size": batch}


def augmented(images, labels):
    images = tf.image.random_flip_left_right(images)
    images = tf.image.random_flip_up_down(images)
    images = tf.image.rot90(images, tf.random.uniform([], 0, 4, tf.int32))
    light = tf.random.uniform([tf.shape(images)[0], 1, 1, 1], 0.5, 1.5)
    return tf.clip_by_value(images * light, 0.0, 1.0), labels


def repeated(number, times):
    """One number of each window, `times` times side by side."""
    return layers.Flatten()(layers.RepeatVector(times)(number))
