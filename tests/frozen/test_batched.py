"""The layers of several heads at once, against each head alone in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from bnhead import layers as ours
from bnhead.frozen import batched

RNG = np.random.default_rng(0)
HEADS, BATCH, FEATURES = 3, 16, 5
X = RNG.gamma(1.0, 1.0, (BATCH, FEATURES)).astype("float32")
BATCHED = batched.Batch(ops.convert_to_tensor(X), ops.zeros(BATCH))
SHARED = batched.Activations(BATCHED.x, True, (FEATURES,) * HEADS)
NORM = {
    "gamma": RNG.uniform(0.5, 2, (HEADS, FEATURES)).astype("float32"),
    "beta": RNG.normal(0, 1, (HEADS, FEATURES)).astype("float32"),
    "moving_mean": RNG.normal(0, 1, (HEADS, FEATURES)).astype("float32"),
    "moving_variance": RNG.uniform(0.5, 2, (HEADS, FEATURES)).astype("float32"),
}


def built(make, units=FEATURES):
    layers = [make() for _ in range(HEADS)]
    for layer in layers:
        layer.build((None, units))
    return layers


def normalised(x, head, layer, mean=True, variance=True):
    z = x - x.mean(0) if mean else x
    return z / np.sqrt(x.var(0) + layer.epsilon) if variance else z


@pytest.mark.parametrize("shared", [True, False])
def test_batch_norm_then_dense(shared):
    """Gamma and beta go into the kernel; the batch's statistics are those of the batch."""
    norms = built(lambda: ours.BatchNormalization(momentum=0.9, epsilon=1e-5))
    dense = built(lambda: keras.layers.Dense(4, "relu"))
    kernel = RNG.normal(0, 1, (HEADS, FEATURES, 4)).astype("float32")
    bias = RNG.normal(0, 1, (HEADS, 4)).astype("float32")
    own = np.stack([X * (head + 1) + head for head in range(HEADS)])
    start = SHARED if shared else SHARED.with_values(ops.convert_to_tensor(own))
    x, updates = batched.batch_norm(norms, NORM, start, BATCHED)
    assert x.gain is not None and (x.values is not start.values) == shared
    each, outputs = x.each, batched.dense(dense, {"kernel": kernel, "bias": bias}, x).values
    for head in range(HEADS):
        inputs = X if shared else own[head]
        z = normalised(inputs, head, norms[0]) * NORM["gamma"][head] + NORM["beta"][head]
        np.testing.assert_allclose(each[head], z, atol=1e-4)
        expected = np.maximum(z @ kernel[head] + bias[head], 0)
        np.testing.assert_allclose(outputs[head], expected, atol=1e-4)
        for name, value in (("moving_mean", inputs.mean(0)), ("moving_variance", inputs.var(0))):
            average = 0.9 * NORM[name][head] + 0.1 * value
            np.testing.assert_allclose(updates[name][head], average, rtol=1e-5)


def test_parts_of_a_batch_norm_and_frozen_statistics():
    averages = {name: NORM[name] for name in ("moving_mean", "moving_variance")}
    for make, mean, variance in ((ours.BatchCentering, True, False), (ours.BatchScaling, False, True)):
        layers = built(make)
        x, _ = batched.batch_norm(layers, averages, SHARED, BATCHED)
        assert x.shared and x.gain is None
        np.testing.assert_allclose(x.values, normalised(X, 0, layers[0], mean, variance), atol=1e-5)
    layers = built(ours.FrozenBatchNormalization)
    x, updates = batched.batch_norm(layers, NORM, SHARED, BATCHED)
    assert x.shared and x.values is SHARED.values and not updates
    z = (X - NORM["moving_mean"][1]) / np.sqrt(NORM["moving_variance"][1] + layers[0].epsilon)
    np.testing.assert_allclose(x.each[1], z * NORM["gamma"][1] + NORM["beta"][1], atol=1e-5)


def test_head_by_head_at_its_width():
    """A layer norm over padding would have another mean."""
    widths = (3, 5, 4)
    layers = [keras.layers.LayerNormalization(epsilon=1e-6) for _ in widths]
    values = RNG.normal(0, 1, (HEADS, BATCH, 5)).astype("float32")
    for head, (layer, width) in enumerate(zip(layers, widths, strict=True)):
        layer.build((None, width))
        values[head, :, width:] = 0
    named = {name: np.ones((HEADS, 5), "float32") for name in ("gamma", "beta")}
    x, _ = batched.head_by_head(
        layers, named, SHARED.with_values(ops.convert_to_tensor(values), widths), BATCHED
    )
    assert x.widths == widths
    for head, width in enumerate(widths):
        inputs = values[head, :, :width]
        z = (inputs - inputs.mean(1, keepdims=True)) / np.sqrt(inputs.var(1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(x.values[head][:, :width], z + 1, atol=1e-4)
        assert (np.asarray(x.values[head])[:, width:] == 0).all()


def test_padding_is_0_after_every_function():
    inputs = ops.zeros((2, 1, 4))
    outputs = batched.with_padding_at_zero(keras.activations.sigmoid, inputs, (2, 4))
    np.testing.assert_array_equal(outputs, [[[0.5, 0.5, 0, 0]], [[0.5] * 4]])
    assert batched.with_padding_at_zero(keras.activations.relu, inputs, (2, 4)).shape == (2, 1, 4)


def test_buckets():
    for width in range(1, 300):
        same = [other for other in range(1, 600) if batched.bucket(other) == batched.bucket(width)]
        assert max(same) < 2 * min(same) or width == 1
    assert batched.bucket(64) == batched.bucket(33) != batched.bucket(65)
