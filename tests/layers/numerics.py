"""Inputs, weights and numerical gradients that the layers' tests share."""

import numpy as np
import tensorflow as tf

SHAPES = [(1, 4), (2, 4), (7, 4), (5, 3, 4), (4, 3, 2, 4)]


def batch(shape, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 2 + 1).astype("float32")


def drawn_mask(shape, seed):
    """A mask of the positions of an array; about 7 of 10 count."""
    return np.random.default_rng(seed).uniform(size=shape[:-1]) < 0.7


def weights_like(layer, seed=1):
    """Random positive values for all of a layer's float weights."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        if "float" in str(weight.dtype):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))


def numerical_gradient(function, x, upstream, step=1e-5):
    """d sum(upstream * function(x)) / dx by central differences in float64."""
    x, gradient = x.astype("float64"), np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        shift = np.zeros(x.shape)
        shift[index] = step
        rise = function(x + shift) - function(x - shift)
        gradient[index] = np.sum(upstream * rise) / (2 * step)
    return gradient


def compare_gradients(layer, x, reference, mask=None):
    """The gradient of a layer in training against the numerical one of its reference."""
    upstream = np.random.default_rng(5).normal(size=reference(x.astype("float64")).shape)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True) if mask is None else layer(inputs, training=True, mask=mask)
        loss = tf.reduce_sum(outputs * upstream.astype("float32"))
    expected = numerical_gradient(reference, x, upstream)
    np.testing.assert_allclose(tape.gradient(loss, inputs), expected, rtol=2e-3, atol=2e-3)
