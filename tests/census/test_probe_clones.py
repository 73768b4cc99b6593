"""Clones against `np.corrcoef` of all activations."""

import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import Counts, count
from bnhead.errors import UsageError
from tests.census.planted import planted_conv, planted_dense


def plant(model, seed):
    """Units 10 to 12 become multiples of unit 9, unit 13 nearly one, unit 14 its opposite."""
    layer = next(layer for layer in model.layers if isinstance(layer, (layers.Dense, layers.Conv2D)))
    norm = next((layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)), None)
    kernel, bias = (np.array(w) for w in layer.get_weights())
    noise = np.random.default_rng(seed).normal(size=kernel[..., 9].shape) * np.abs(kernel[..., 9]).mean()
    for unit, scale in ((10, 2.0), (11, 0.5), (12, 1e-3), (14, -1.0)):
        kernel[..., unit], bias[unit] = scale * kernel[..., 9], scale * bias[9]
    kernel[..., 13], bias[13] = kernel[..., 9] + 0.02 * noise, bias[9]
    layer.set_weights([kernel, bias])
    if norm is not None:
        weights = [np.array(w) for w in norm.get_weights()]
        for weight, value in zip(weights, (1, 0, 0, 1), strict=True):
            weight[9:15] = value
        norm.set_weights(weights)


@pytest.mark.parametrize("net", [planted_dense, planted_conv])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch_size", [64, 1000])
def test_clones_are_those_of_corrcoef(net, seed, batch_size):
    model, name, x = net(seed)
    plant(model, seed)
    counts = count(model, x, [name], batch_size=batch_size, clones=True).layers[name]
    a = keras.Model(model.inputs, model.get_layer(name).output).predict(x, verbose=0).astype("float64")
    a = a.reshape(-1, a.shape[-1])  # inputs and positions
    changing = np.flatnonzero(a.var(0) > 1e-12)
    expected = np.corrcoef(a[:, changing].T)
    within = np.ix_(changing, changing)
    np.testing.assert_allclose(counts.correlations[within], expected, atol=2e-5)
    pairs = [
        (i, j)
        for n, i in enumerate(changing)
        for m, j in enumerate(changing)
        if n < m and expected[n, m] >= 0.99
    ]
    assert [tuple(pair) for pair in counts.clone_pairs()] == pairs
    assert {(9, 10), (9, 11), (9, 12), (10, 11)} <= set(pairs) and 14 not in np.ravel(pairs)
    cloned = np.isin(np.arange(24), np.ravel(pairs))
    np.testing.assert_array_equal(counts.cloned, cloned)
    assert counts.figures()["clones"] == cloned.mean()
    assert not counts.cloned[counts.dead].any() and counts.dead.any()
    assert {9, 10, 11, 12} <= set(next(group for group in counts.clone_groups() if 9 in group))
    assert len(counts.clone_pairs(0.9)) >= len(pairs) >= len(counts.clone_pairs(0.9999))


def test_a_large_mean_hides_no_clone_and_makes_none():
    """Values of 10,000 and more that differ by 0.01: products in float32 would cancel to nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu", name="fc"), layers.Dense(2)])
    kernel = np.array([[0.5, 0, 0.25, 0.5], [0, 0.5, 0, 0], [0, 0, 0, 0.5]])
    model.layers[0].set_weights([kernel, np.full(4, 1e4)])
    counts = count(model, x, ["fc"], batch_size=30, clones=True).layers["fc"]
    assert counts.clone_pairs().tolist() == [[0, 2]]
    parts = [count(model, half, ["fc"], clones=True).layers["fc"] for half in (x[:150], x[150:])]
    merged = parts[0].merge(parts[1])
    np.testing.assert_allclose(merged.correlations, counts.correlations, atol=1e-4)
    again = Counts.from_dict(merged.to_dict())
    np.testing.assert_array_equal(again.correlations, merged.correlations)


def test_masked_positions_do_not_count():
    tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 0], [2, 0, 0, 0]])
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Dense(3, "relu", name="d", bias_initializer="ones")(
        layers.Embedding(5, 6, mask_zero=True)(inputs)
    )
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    counts = count(model, tokens, ["d"], batch_size=2, clones=True).layers["d"]
    a = keras.Model(inputs, model.get_layer("d").output).predict(tokens, verbose=0)[tokens > 0]
    np.testing.assert_allclose(counts.correlations, np.corrcoef(a.T), atol=1e-5)


def test_without_the_option_nothing_is_counted():
    model, name, x = planted_dense(0)
    counts = count(model, x, [name]).layers[name]
    assert counts.correlations is None and counts.cloned is None and "clones" not in counts.figures()
    with pytest.raises(UsageError, match="count with clones=True"):
        counts.clone_groups()
