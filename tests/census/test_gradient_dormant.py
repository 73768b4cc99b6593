"""GraMa against gradients written out by hand in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import count
from bnhead.errors import UsageError
from tests.census.planted import sequence_model

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "gelu": lambda z: z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))) / 2,
}
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy


def planted(activation, seed, units=24):
    """Dense, activation, tanh, logits. Nothing reads unit 0, units 1 and 2 are read weakly, 3 is dead."""
    rng = np.random.default_rng(seed)
    if activation == "gelu":
        activation = keras.ops.gelu  # the tanh approximation
    hidden, then, out = (
        layers.Dense(units, activation, name="hidden"),
        layers.Dense(7, "tanh", name="then"),
        layers.Dense(3, name="out"),
    )
    model = keras.Sequential([keras.Input((6,)), hidden, then, out])
    weights = [rng.normal(size=w.shape) for w in model.get_weights()]
    weights[1][3] = -500
    weights[2][:3] *= np.array([[0], [0.004], [0.04]])
    model.set_weights(weights)
    return model, rng.normal(size=(50, 6)).astype("float32"), rng.integers(0, 3, 50)


def by_hand(model, activation, x, y):
    """Sums over inputs of |dL/dz| and |dL/da| of the hidden layer: the chain rule, in float64."""
    k1, b1, k2, b2, k3, b3 = (w.astype("float64") for w in model.get_weights())
    z = x.astype("float64") @ k1 + b1
    f = ACTIVATIONS[activation]
    then = np.tanh(f(z) @ k2 + b2)
    logits = then @ k3 + b3
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    by_output = ((p - np.eye(3)[y]) @ k3.T * (1 - then**2)) @ k2.T
    slope = (f(z + 1e-6) - f(z - 1e-6)) / 2e-6
    return np.abs(by_output * slope).sum(0), np.abs(by_output).sum(0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch_size", [7, 50])
def test_scores_equal_those_of_the_chain_rule(activation, batch_size):
    model, x, y = planted(activation, seed=1)
    model.compile("sgd", CROSS_ENTROPY(from_logits=True))
    counts = count(model, (x, y), ["hidden"], batch_size=batch_size, gradients=True).layers["hidden"]
    by_input, by_output = by_hand(model, activation, x, y)
    np.testing.assert_allclose(counts.gradient, by_input, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(counts.output_gradient, by_output, rtol=2e-4, atol=1e-6)
    scores = by_output / by_output.mean()
    np.testing.assert_allclose(counts.gradient_scores, scores, rtol=2e-4, atol=1e-6)
    assert scores[0] == 0 < scores[1] <= 0.025 < scores[2] <= 0.1 < scores[3]
    for tau, name in ((0, "0"), (0.025, "0025"), (0.1, "01")):
        assert counts.gradient_dormant(tau).tolist() == (scores <= tau).tolist()
        assert counts.figures()[f"gradient_dormant_{name}"] == (scores <= tau).mean()
    # unit 3 is dead and read: its pre-activation moves nothing, its output would
    assert counts.gradient_dead[3] and not counts.gradient_dormant(0.025)[3]


@pytest.mark.parametrize("batch_size", [8, 30])
def test_scores_of_a_feature_map_sum_over_its_positions(batch_size):
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((5, 4, 2)),
            layers.Conv2D(6, 3, activation="silu", name="map"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="out"),
        ]
    )
    kernel, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    kernel[2] = 0
    model.get_layer("out").set_weights([kernel, bias])
    model.compile("sgd", CROSS_ENTROPY(from_logits=True))
    x, y = rng.normal(size=(30, 5, 4, 2)).astype("float32"), rng.integers(0, 3, 30)
    counts = count(model, (x, y), ["map"], batch_size=batch_size, gradients=True).layers["map"]
    logits = model.predict(x, verbose=0).astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # each of the 3 x 2 positions has a sixth of the gradient of the mean
    expected = np.abs((p - np.eye(3)[y]) @ kernel.T).sum(0)
    np.testing.assert_allclose(counts.output_gradient, expected, rtol=1e-4, atol=1e-7)
    assert counts.gradient_dormant(0).tolist() == [u == 2 for u in range(6)]


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_no_figure_depends_on_the_batch_size(reduction):
    model, x, y = planted("silu", seed=2)
    model.compile("sgd", CROSS_ENTROPY(from_logits=True, reduction=reduction))
    parts = [
        count(model, (x, y), ["hidden"], batch_size=size, gradients=True).layers["hidden"]
        for size in (3, 20, 50)
    ]
    for counts in parts[1:]:
        np.testing.assert_allclose(counts.output_gradient, parts[0].output_gradient, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(counts.gradient, parts[0].gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        parts[0].output_gradient, by_hand(model, "silu", x, y)[1], rtol=2e-4, atol=1e-6
    )


def test_of_a_layers_output_both_gradients_are_the_same():
    model, x, y = sequence_model(layers.LSTM(5, name="l"))
    counts = count(model, (x, y), ["l"], gradients=True).layers["l"]
    np.testing.assert_array_equal(counts.gradient, counts.output_gradient)
    assert counts.gradient_scores.mean() == pytest.approx(1)


def test_steps_of_a_time_distributed_layer_add_up():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4, 6)).astype("float32"), rng.integers(0, 3, 20)
    scores = []
    for wrapped in (False, True):
        keras.utils.set_random_seed(0)
        layer = layers.Dense(5, "relu", name="inner")
        layer = layers.TimeDistributed(layer, name="steps") if wrapped else layer
        model = keras.Sequential([keras.Input((4, 6)), layer, layers.Flatten(), layers.Dense(3)])
        model.compile("sgd", CROSS_ENTROPY(from_logits=True))
        (counts,) = count(model, (x, y), "all", gradients=True).layers.values()
        scores.append(counts.gradient_scores)
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_a_loss_that_reads_no_unit_gives_scores_of_0():
    model, x, y = planted("sigmoid", seed=0)
    kernel, bias = model.get_layer("then").get_weights()
    model.get_layer("then").set_weights([0 * kernel, bias])
    model.compile("sgd", CROSS_ENTROPY(from_logits=True))
    counts = count(model, (x, y), ["hidden"], gradients=True).layers["hidden"]
    assert counts.gradient_scores.tolist() == [0] * 24 and counts.gradient_dormant(0).all()
    with pytest.raises(UsageError, match="count with gradients=True"):
        count(model, x, ["hidden"]).layers["hidden"].gradient_dormant(0.1)
