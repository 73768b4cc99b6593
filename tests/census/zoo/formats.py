"""Rows, masks, dtypes and data formats."""

import warnings

import numpy as np
from keras import layers, ops

from tests.census.zoo.table import INPUTS, case, on, policy, relu, tokens, vectors


@case("window", "after")
def windows_folded_into_the_batch():
    x = np.random.default_rng(0).normal(size=(INPUTS, 4, 6)).astype("float32")
    window = relu(5, "window")

    def folded(h):
        return ops.reshape(window(ops.reshape(h, (-1, 6))), (-1, 20))

    return on(x, folded, relu(7, "after"))


@case("each", "fc", masks={"each": tokens() > 0})
def masked():
    return on(
        tokens(),
        layers.Embedding(9, 6, mask_zero=True),
        relu(5, "each"),
        layers.GlobalAveragePooling1D(),
        relu(),
        dtype="int32",
    )


@case("fc", "second")
def half_precision():
    return on(vectors(), relu(dtype="mixed_float16"), relu(name="second", dtype="mixed_bfloat16"))


@case("fc", backends=("tensorflow", "torch"))
def double_precision():
    with policy("float64"):
        return on(vectors().astype("float64"), relu(), dtype="float64")


@case("fc", trains=False)
def quantised():
    model, x = on(vectors(), relu(16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of every layer that it leaves as it is
        model.quantize("int8")
    return model, x


@case("conv", "fc", axes={"conv": 1})
def channels_first():
    x = np.random.default_rng(0).normal(size=(INPUTS, 3, 8, 6)).astype("float32")
    conv = layers.Conv2D(4, 3, activation="relu", data_format="channels_first", name="conv")
    return on(x, conv, layers.Flatten(), relu())


@case("pool_relu", "fc", axes={"pool_relu": 1})
def channels_first_without_a_convolution():
    x = np.random.default_rng(0).normal(size=(INPUTS, 4, 8, 6)).astype("float32")
    pool = layers.AveragePooling2D(2, data_format="channels_first")
    norm = layers.BatchNormalization(axis=1)
    return on(x, pool, norm, layers.ReLU(name="pool_relu"), layers.Flatten(), relu())
