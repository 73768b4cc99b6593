"""Models with random weights, and bounds of weighted sums in the plainest way."""

import keras
import numpy as np
from keras import layers

MAP = (6, 6, 4)


def on(activation, *made, shape=MAP):
    """A model with random weights: the activation, then layers or functions of tensors."""
    x = inputs = keras.Input(shape)
    x = layers.Activation(activation)(x)
    for layer in made:
        x = layer(x)
    model, rng = keras.Model(inputs, x), np.random.default_rng(0)
    for variable in model.variables:
        if "seed" not in variable.path:
            positive = "variance" in variable.path
            values = rng.uniform(0.5, 2, variable.shape) if positive else rng.normal(size=variable.shape)
            variable.assign(values.astype("float32"))
    return model


def slow_bounds(low, high, kernel, bias):
    """Least and greatest weighted sum of values between `low` and `high`, term by term."""
    least, most = bias.astype(float), bias.astype(float)
    for index, weight in np.ndenumerate(kernel.astype(float)):
        ends = sorted((weight * low, weight * high))
        least[index[-1]] += ends[0]
        most[index[-1]] += ends[1]
    return least, most
