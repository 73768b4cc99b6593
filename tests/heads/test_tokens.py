"""Bounds and noise of a batch norm in a head, against their formulas."""

import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.layers import BatchNoise

BATCH_NORMS = ("bn", "gbn4", "brn")


def normalised(token, x):
    """Output of `token` on a vector in training mode."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, heads.apply(f"{token}_out", inputs, 3, seed=0))
    layer = model.get_layer(f"head_{token.rstrip('0123456789')}")
    return np.asarray(keras.Model(inputs, layer.output)(x, training=True))


@pytest.mark.parametrize("token", BATCH_NORMS)
@pytest.mark.parametrize("batch", [2, 3, 8, 33])
def test_a_training_mode_batch_norm_is_bounded(token, batch):
    """|z| <= sqrt(B - 1); an outlier comes close to it."""
    x = np.random.default_rng(batch).normal(size=(batch, 6)).astype("float32")
    x[0] = 1e4
    z = np.abs(normalised(token, x))
    largest = batch if token != "gbn4" else min(batch, 2 * 4 - 1)
    assert z.max() <= np.sqrt(largest - 1) * (1 + 1e-5)
    if token != "gbn4":
        assert z.max() >= 0.99 * np.sqrt(batch - 1)
        np.testing.assert_allclose(z.max(), np.abs((x - x.mean(0)) / x.std(0)).max(), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "draw", "skewness", "kurtosis"),
    [
        ("normal", lambda rng, size: rng.normal(size=size), 0, 3),
        ("exponential", lambda rng, size: rng.exponential(size=size) - 1, 2, 9),
        ("uniform", lambda rng, size: rng.uniform(-(3**0.5), 3**0.5, size=size), 0, 1.8),
    ],
)
@pytest.mark.parametrize("value", [-0.9, 0.5, 2.0])
def test_batch_noise_agrees_with_its_formula(name, draw, skewness, kurtosis, value):
    """Var[z] ~ (1 + z k3 + z^2 (k4 - 1) / 4) / B: the same value among random batch-mates."""
    batch, repeats = 512, 4000
    x = draw(np.random.default_rng(0), (batch, repeats)).astype("float32")  # a unit for each repetition
    x[0] = value
    z = normalised("bn", x)[0]
    expected = (1 + value * skewness + value**2 * (kurtosis - 1) / 4) / batch
    # the variance's own error: sqrt(2 / repeats) = 2.2 %, and what the formula leaves out at B = 512
    np.testing.assert_allclose(z.var(), expected, rtol=0.12)


def test_the_noise_layer_adds_a_batch_norms_noise():
    rng = np.random.default_rng(0)
    layer = keras.Sequential([keras.Input((3000,)), BatchNoise(momentum=0.98)]).layers[0]
    for _ in range(60):
        layer(rng.normal(size=(256, 3000)).astype("float32"), training=True)
    x = rng.normal(size=(256, 3000)).astype("float32")
    noise = np.asarray(layer(x, training=True))[0] - x[0]
    expected = ((x - x.mean(0)) / x.std(0))[0] - x[0]
    np.testing.assert_allclose(np.corrcoef(noise, expected)[0, 1], 1, atol=0.05)
    np.testing.assert_allclose(noise.var(), expected.var(), rtol=0.2)
