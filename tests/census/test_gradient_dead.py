import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import count
from tests.census.planted import sequence_model


def test_units_that_no_input_moves_are_gradient_dead():
    """Unit 0 is dead, unit 1 fires and nothing reads it, unit 2 fires and is read."""
    inputs = keras.Input((1,))
    hidden = layers.Dense(3, "relu", name="hidden")
    out = layers.Dense(2, name="out")
    model = keras.Model(inputs, out(hidden(inputs)))
    hidden.set_weights([np.array([[1.0, 1, 1]]), np.array([-9.0, 1, 1])])
    out.set_weights([np.array([[1.0, 2], [0, 0], [1, -1]]), np.zeros(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.linspace(0, 1, 5, dtype="float32")[:, None], np.array([0, 1, 0, 1, 1])
    counts = count(model, (x, y), batch_size=2, gradients=True).layers["hidden"]
    assert counts.gradient_dead.tolist() == [True, True, False]
    assert counts.figures()["gradient_dead"] == pytest.approx(2 / 3)
    # dL/dz of unit 2 is p1 - [y = 1] times -1 plus p0 - [y = 0]
    logits = model.predict(x, verbose=0)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = p - np.eye(2)[y]
    assert counts.gradient[2] == pytest.approx(np.abs(wrong[:, 0] - wrong[:, 1]).sum(), rel=1e-5)
    asked = set(counts.figures()) - set(count(model, (x, y)).layers["hidden"].figures())
    assert asked == {"gradient_dead", *(f"gradient_dormant_{tau}" for tau in ("0", "0025", "01"))}


def test_gradients_of_feature_maps_inside_a_nested_model():
    inside = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.Conv2D(6, 3, name="conv"), layers.ReLU(name="act")], name="encoder"
    )
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(inside(inputs))))
    kernel, _ = inside.get_layer("conv").get_weights()
    inside.get_layer("conv").set_weights([kernel, np.array([-99.0, 0, 0, 0, 0, 0])])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(20, 4, 4, 2)).astype("float32")
    y = np.random.default_rng(0).integers(0, 3, 20)
    counts = count(model, (x, y), ["encoder/act"], gradients=True).layers["encoder/act"]
    assert counts.gradient_dead.tolist() == [True] + [False] * 5


def test_gradients_of_a_time_distributed_layer_are_those_of_the_layer_on_all_steps():
    x = np.random.default_rng(0).normal(size=(20, 4, 6)).astype("float32")
    y = np.random.default_rng(0).integers(0, 3, 20)
    gradients = []
    for wrapped in (False, True):
        keras.utils.set_random_seed(0)
        layer = layers.Dense(5, "relu", name="inner")
        layer = layers.TimeDistributed(layer, name="steps") if wrapped else layer
        model = keras.Sequential([keras.Input((4, 6)), layer, layers.Flatten(), layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        (counts,) = count(model, (x, y), "all", gradients=True).layers.values()
        gradients.append(counts.gradient)
    np.testing.assert_allclose(*gradients, rtol=1e-5)


RECURRENT = {
    "lstm": lambda: layers.LSTM(9, name="l"),
    "gru": lambda: layers.GRU(9, name="l"),
    "simple": lambda: layers.SimpleRNN(6, name="l"),  # as many units as inputs, so that shapes hide nothing
    "over time": lambda: layers.SimpleRNN(9, return_sequences=True, name="l"),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_gradients_of_a_recurrent_layer_are_those_of_its_output(name):
    layer = RECURRENT[name]()
    model, x, y = sequence_model(layer)
    out = model.layers[-1]
    kernel, bias = (np.array(w) for w in out.get_weights())
    kernel.reshape(-1, layer.units, 3)[:, 2] = 0  # nothing reads unit 2
    out.set_weights([kernel, bias])
    counts = count(model, (x, y), ["l"], gradients=True, batch_size=7).layers["l"]
    assert counts.units == len(counts.gradient) == layer.units
    assert counts.gradient_dead.tolist() == [u == 2 for u in range(layer.units)]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_small_gradients_are_not_dead_in_any_dtype(policy):
    """Weights of 1e-6 after the layer: its gradients are below what float16 can hold."""
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(24, "relu", name="fc", dtype=policy),
            layers.Dense(4, name="out", dtype="float32"),
        ]
    )
    model.get_layer("out").kernel.assign(model.get_layer("out").kernel * 1e-6)
    bias = np.zeros(24)
    bias[3] = -100
    model.get_layer("fc").bias.assign(bias)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    data = rng.normal(size=(320, 12)).astype("float32"), rng.integers(0, 4, 320)
    counts = count(model, data, gradients=True).layers["fc"]
    assert counts.gradient_dead.tolist() == [u == 3 for u in range(24)]


def test_gradients_by_units_that_are_not_on_the_last_axis():
    inputs = keras.Input((4, 8, 6))
    x = layers.AveragePooling2D(2, data_format="channels_first")(inputs)
    x = layers.ReLU(name="map")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = keras.Model(inputs, layers.Dense(3, name="out")(x))
    kernel, bias = (np.array(w) for w in model.get_layer("out").get_weights())
    kernel[1] = 0
    model.get_layer("out").set_weights([kernel, bias])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    data = rng.normal(size=(20, 4, 8, 6)).astype("float32"), rng.integers(0, 3, 20)
    counts = count(model, data, ["map"], gradients=True).layers["map"]
    assert counts.gradient_dead.tolist() == [False, True, False, False]
