"""Makes `tf<version>.zip` beside this file, with the TensorFlow of the Python that runs it.

    python3.8 -m venv old && old/bin/pip install tensorflow-cpu==2.5.3 && old/bin/python make.py

Runs on Python 3.8 and TensorFlow 2.5, and on all later ones. In the zip are small models as that
version saves them, and in `expected.npz` for each an input (`x-NAME`) and what the saver itself
predicted for it (`y-NAME`).
"""

# mypy: ignore-errors

from __future__ import annotations

import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")

import numpy as np
import tensorflow as tf

VERSION = tuple(map(int, tf.__version__.split(".")[:2]))
keras = tf.keras
layers = keras.layers
# Until 2.5 they were experimental.
early = layers if VERSION >= (2, 6) else layers.experimental.preprocessing
policy = keras.mixed_precision.set_global_policy
random = np.random.RandomState(7)


def numbers(*shape):
    # Few different ones, so that they pack well.
    return (random.randint(-8, 9, shape) / 8).astype("float32")


def whole(top, *shape):
    return random.randint(0, top, shape)


def stack(*parts):
    return keras.Sequential(list(parts))


def own_loss(wanted, found):
    return tf.reduce_mean(tf.square(wanted - found))


class OwnMetric(keras.metrics.MeanAbsoluteError):
    pass


class OwnLayer(layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


class OwnModel(keras.Model):
    def __init__(self, **known):
        super().__init__(**known)
        self.out = layers.Dense(1)

    def call(self, inputs):
        return self.out(inputs)

    def get_config(self):
        return {}


def dense():
    model = stack(
        layers.Dense(4, "relu", input_shape=(3,), kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.LeakyReLU(),
        layers.Dropout(0.5),
        layers.LayerNormalization(),
        layers.Dense(2, "softmax", kernel_constraint=keras.constraints.MaxNorm(2.0)),
    )
    model.compile("adam", own_loss, metrics=["mse", OwnMetric(name="own")])
    x = numbers(6, 3)
    model.fit(x, numbers(6, 2), verbose=0)
    return model, x


def conv():
    model = stack(
        layers.InputLayer((8, 8, 3)),
        early.RandomFlip("horizontal"),
        early.RandomRotation(0.1),
        early.RandomZoom(0.1),
        early.RandomTranslation(0.1, 0.1),
        early.RandomContrast(0.1),
        early.Rescaling(1 / 255.0),
        layers.Conv2D(3, 3, activation="relu", padding="same"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.ZeroPadding2D(),
        layers.Conv2D(2, 3, use_bias=False),
        layers.Activation("relu"),
        layers.UpSampling2D(),
        layers.Conv2DTranspose(2, 2),
        layers.Flatten(),
        layers.Dense(2, "sigmoid"),
    )
    return model, numbers(3, 8, 8, 3) * 255


def separable():
    return stack(
        layers.SeparableConv2D(4, 3, input_shape=(8, 8, 2), depth_multiplier=2),
        layers.DepthwiseConv2D(3, depthwise_initializer="he_normal"),
        layers.ReLU(6.0),
        layers.GlobalAveragePooling2D(),
        layers.Dense(1),
    ), numbers(3, 8, 8, 2)


def series():
    return stack(
        layers.Conv1D(3, 3, padding="causal", dilation_rate=2, input_shape=(12, 1)),
        layers.SeparableConv1D(3, 3),
        layers.AveragePooling1D(2),
        layers.SimpleRNN(3, return_sequences=True),
        layers.TimeDistributed(layers.Dense(2)),
        layers.GRU(3, return_sequences=True),
        layers.Bidirectional(layers.GRU(2)),
        layers.RepeatVector(2),
        layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)]),
        layers.Reshape((2, 1)),
    ), numbers(4, 12, 1)


def text():
    return stack(
        layers.InputLayer((6,)),
        layers.Embedding(
            20, 4, mask_zero=True, **({"input_length": 6} if VERSION < (2, 16) else {})
        ),
        layers.SpatialDropout1D(0.2),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="sum"),
        layers.LSTM(2, return_sequences=True, recurrent_dropout=0.1),
        layers.GlobalMaxPooling1D(),
        layers.Dense(1, "sigmoid"),
    ), whole(20, 4, 6)


def normalised():
    scale = early.Normalization(axis=-1)
    scale.adapt(numbers(50, 3) * 9)
    return stack(layers.InputLayer((3,)), scale, layers.Dense(1)), numbers(4, 3)


def branches():
    """Functional; an inner model of two inputs and a shared layer."""
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    shared = layers.Dense(2, "tanh")
    joined = layers.Concatenate()([shared(left), shared(right)])
    inner = keras.Model([left, right], [joined, layers.Dot(1)([left, right])], name="inner")
    whole_input = keras.Input((3,))
    first, second = inner([whole_input, layers.Dense(3)(whole_input)])
    summed = layers.Add()([first, layers.Dense(4)(second)])
    return keras.Model(whole_input, layers.Multiply()([summed, first])), numbers(4, 3)


def heads():
    tokens = keras.Input((5, 4))
    mixed = layers.MultiHeadAttention(2, 3)(tokens, tokens)
    out = layers.Attention()([layers.Add()([tokens, mixed]), mixed])
    return keras.Model(tokens, layers.GlobalAveragePooling1D()(out)), numbers(4, 5, 4)


def mixed():
    policy("mixed_float16")
    try:
        return stack(
            layers.Conv2D(3, 3, input_shape=(6, 6, 1)),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(4, "relu"),
            layers.Dense(1, dtype="float32"),
        ), numbers(4, 6, 6, 1)
    finally:
        policy("float32")


def residual():
    """What a pretrained network is made of, as one layer of another."""
    shape = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, padding="same", name="block_conv")(shape)
    y = layers.BatchNormalization(name="block_bn")(y)
    y = layers.Add()([y, layers.Conv2D(4, 1)(shape)])
    base = keras.Model(shape, layers.ReLU(6.0)(y), name="base")
    base.get_layer("block_conv").trainable = False
    return stack(base, layers.GlobalAveragePooling2D(), layers.Dense(1)), numbers(3, 8, 8, 3)


def transfer():
    """An inner model that is called with an argument, twice."""
    base = keras.Sequential([layers.Conv2D(3, 3, input_shape=(8, 8, 3)), layers.Dropout(0.5)])
    inputs = keras.Input((8, 8, 3))
    joined = layers.Concatenate()([base(inputs, training=False), base(layers.ReLU()(inputs))])
    return keras.Model(inputs, layers.GlobalMaxPooling2D()(joined)), numbers(3, 8, 8, 3)


def two_inputs():
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    out = layers.Dense(1)(layers.Concatenate()([left, right]))
    return keras.Model([left, right], out), [numbers(4, 3), numbers(4, 2)]


def words():
    look = early.TextVectorization(output_sequence_length=4)
    look.adapt(np.array(["good film", "bad film"], object))
    body = [look, layers.Embedding(9, 3), layers.GlobalAveragePooling1D(), layers.Dense(1)]
    model = stack(keras.Input((1,), dtype="string"), *body)
    return model, tf.constant([["good"], ["bad film"], ["x"]])


def raw_operation():
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Dense(1)(inputs / 255.0)), numbers(4, 3)


def lambda_layer():
    return stack(layers.Lambda(abs, input_shape=(3,)), layers.Dense(1)), numbers(4, 3)


def own_layer():
    return stack(layers.InputLayer((3,)), OwnLayer(), layers.Dense(1)), numbers(4, 3)


def own_model():
    model = OwnModel()
    x = numbers(4, 3)
    model(x)
    return model, x


IN_BOTH = (
    dense,
    conv,
    separable,
    series,
    text,
    normalised,
    branches,
    heads,
    mixed,
    residual,
    transfer,
)
CASES = (*IN_BOTH, two_inputs, words, raw_operation, lambda_layer, own_layer, own_model)


def main():
    # Keras 2 packs a model into a file of its own from 2.13 on.
    kinds = ("h5", "keras") if VERSION >= (2, 13) else ("h5",)
    expected = {}
    target = Path(__file__).parent / ("tf%d.%d.zip" % VERSION)
    scratch = tempfile.TemporaryDirectory()
    name = scratch.name
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for case in CASES:
            keras.backend.clear_session()
            random.seed(7)
            keras.utils.set_random_seed(7) if hasattr(keras.utils, "set_random_seed") else None
            model, x = case()
            saved = []
            for kind in kinds:
                path = Path(name, "%s.%s" % (case.__name__, kind))
                try:
                    model.save(path)
                except Exception as error:  # this version cannot
                    print(target.stem, path.name, "-", str(error)[:100].replace("\n", " "))
                    continue
                saved.append(path)
            if not saved:
                continue
            y = model(x, training=False)
            expected["y-" + case.__name__] = np.asarray(y)
            for number, part in enumerate(x if isinstance(x, list) else [x]):
                key = "x-" + case.__name__ + ("" if number == 0 else "-%d" % number)
                expected[key] = np.asarray(part).astype("S") if case is words else np.asarray(part)
            for path in saved:
                archive.write(path, path.name)
        held = io.BytesIO()
        np.savez_compressed(held, **expected)
        archive.writestr("expected.npz", held.getvalue())
    print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    sys.exit(main())
