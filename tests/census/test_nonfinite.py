import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import count
from bnhead.models import resnet8
from tests.census.planted import nested, planted_dense


def test_inputs_that_are_not_finite_void_the_count_though_the_kernel_returns_zeros():
    model, layer, x = planted_dense(0)
    x[[123, 300], 2] = np.nan
    counts = count(model, x, batch_size=50).layers[layer]
    assert counts.unknown == "values are not finite on 2 inputs, first on input 123, at input 'features'"
    assert np.isnan(counts.figures()["dataset"])


def test_weights_that_are_not_finite_void_the_count():
    model, layer, x = planted_dense(0)
    kernel, bias = (np.array(w) for w in model.get_layer(layer).get_weights())
    bias[3] = np.nan
    model.get_layer(layer).set_weights([kernel, bias])
    assert count(model, x).layers[layer].unknown == "the model's weights are not finite, first hidden/bias"


@pytest.mark.parametrize("where", ["input", "weights"])
def test_nan_that_an_earlier_rectifier_hides_voids_the_count(where):
    inputs = keras.Input((6,))
    first, second = layers.Dense(8, "relu", name="first"), layers.Dense(8, "relu", name="second")
    model = keras.Model(inputs, layers.Dense(2)(second(first(inputs))))
    x = np.ones((30, 6), "float32")
    if where == "input":
        x[:] = np.nan
    else:
        first.kernel.assign(np.full((6, 8), np.nan))
    assert count(model, x, ["second"]).layers["second"].unknown


HEADS_THAT_MASK = ["fc", "bn_fc", "fc_fc", "fc_bn", "bn_gap_fc", "catpool_fc", "flatten_bn_dropout0.5_fc"]


@pytest.mark.parametrize(
    "head", [h if h in ("fc", "bn_fc") else pytest.param(h, marks=pytest.mark.slow) for h in HEADS_THAT_MASK]
)
def test_one_image_of_nan_makes_every_head_unknown_and_never_dead(head):
    model = resnet8((8, 8, 3), head, 4, fc_units=6, seed=0)
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
    healthy = count(model, x, "all")
    x[17, 3, 3, 1] = np.nan
    census = count(model, x, "all", batch_size=16)
    assert len(census.layers) == len(healthy.layers) > 7
    for name, counts in census.layers.items():
        assert counts.unknown == "values are not finite on 1 input, first on input 17, at input 'image'"
        assert np.isnan(list(counts.figures().values())).all()
        assert set(counts.figures()) == set(healthy.layers[name].figures())
    assert not any(counts.unknown for counts in count(model, np.delete(x, 17, 0), "all").layers.values())


def test_an_overflow_names_its_layer_and_voids_only_later_layers():
    """A finite input and finite weights whose product is not: relu(-inf) is 0 and looks like silence."""
    inputs = keras.Input((2,))
    x = layers.Dense(3, "relu", name="one")(inputs)
    x = layers.Dense(3, "relu", name="two")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(3, "relu", name="three")(x)))
    model.get_layer("one").set_weights([np.full((2, 3), 1e30), np.zeros(3)])
    model.get_layer("two").set_weights([np.full((3, 3), -1e9), np.zeros(3)])
    x = np.ones((5, 2), "float32")
    x[3] = 1e5  # 2e35, times -3e9
    assert (keras.Model(inputs, model.get_layer("two").output).predict(x, verbose=0) == 0).all()
    census = count(model, x, ["one", "two", "three"])
    assert [counts.nonfinite for counts in census.layers.values()] == [0, 5, 5]  # even 2e30 * 3e9 overflows
    assert census.layers["three"].unknown == "values are not finite on 5 inputs, first on input 0, at two"
    assert count(model, x, ["three"]).layers["three"].nonfinite_at == "two"


def test_nan_inside_a_nested_model_is_named_with_its_path():
    model, name = nested(layers.ReLU(name="last"))
    model.get_layer(name).get_layer("map").kernel.assign(np.full((3, 3, 2, 4), 1e38))
    model.get_layer("adapter").kernel.assign(np.full((1, 1, 2, 2), 1.0))
    x = np.full((3, 6, 6, 2), 10.0, "float32")
    assert count(model, x, ["adapter"]).layers["adapter"].unknown == ""
    assert count(model, x, [name]).layers[name].nonfinite_at == f"{name}/map"
