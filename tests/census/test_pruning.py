"""Pruned copies compute the same, on large inputs too, and lack exactly the planted units."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from bnhead import census
from bnhead.errors import UsageError

DEAD = [1, 3, 4]


def planted(layer):
    """Kills three units of a layer that reads values of at least 0: two by weights, one by its bias."""
    kernel, bias = layer.get_weights()
    bias[:] = 0.1  # of units that fire where all inputs are 0
    kernel[..., DEAD[:2]], bias[DEAD[:2]] = 0, -0.5
    kernel[..., DEAD[2]], bias[DEAD[2]] = -np.abs(kernel[..., DEAD[2]]), -0.1
    layer.set_weights([kernel, bias])


def randomised(norm, seed=0):
    rng = np.random.default_rng(seed)
    norm.set_weights(
        [*rng.normal(size=(3, norm.moving_mean.shape[0])), rng.uniform(0.5, 2, norm.moving_mean.shape)]
    )


def net(*between, first=None, rank=4):
    """ReLU, a layer with dead units, what lies between, and a Dense layer."""
    inputs = keras.Input((6, 6, 2) if rank == 4 else (7,))
    dead = first or (layers.Conv2D(8, 3, name="dead") if rank == 4 else layers.Dense(8, name="dead"))
    x = dead(layers.ReLU()(inputs))
    planted(dead)
    if "activation" not in dead.name:
        x = layers.ReLU(name="units")(x)
    for layer in between:
        x = layer(x)
        if isinstance(layer, layers.BatchNormalization):
            randomised(layer)
    x = x if len(x.shape) == 2 else layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(3, bias_initializer="ones")(x))


def agree(model, pruned, scale=1.0):
    shape = (32, *model.inputs[0].shape[1:])
    x = (scale * np.random.default_rng(0).normal(size=shape)).astype("float32")
    expected, actual = (ops.convert_to_numpy(m(x, training=False)) for m in (model, pruned.model))
    assert np.abs(actual - expected).max() <= 2e-6 * max(1, np.abs(expected).max())


@pytest.mark.parametrize(
    ("between", "rank"),
    [
        (lambda: [], 2),
        (lambda: [layers.Dropout(0.5), layers.BatchNormalization()], 2),
        (lambda: [layers.Dense(5, "elu", use_bias=False)], 2),
        (lambda: [layers.BatchNormalization(), layers.Dense(5, "elu", use_bias=False)], 2),
        (lambda: [], 4),
        (lambda: [layers.GlobalAveragePooling2D()], 4),
        (lambda: [layers.MaxPooling2D(2), layers.Conv2D(4, 2, padding="same", strides=2)], 4),
        (lambda: [layers.BatchNormalization(), layers.Conv2D(4, 3)], 4),
        (lambda: [layers.BatchNormalization(), layers.Conv2D(4, 1, padding="same"), layers.ReLU()], 4),
        (lambda: [layers.BatchNormalization(), layers.Activation("tanh"), layers.GlobalMaxPooling2D()], 4),
        (lambda: [layers.ZeroPadding2D(1), layers.Conv2D(4, 3, 2)], 4),
        (lambda: [layers.AveragePooling2D(2), layers.SpatialDropout2D(0.5)], 4),
        (lambda: [layers.Identity(), layers.Conv2D(4, 3)], 4),
    ],
)
def test_dead_units_go_with_their_weights(between, rank):
    model = net(*between(), rank=rank)
    pruned = census.prune_dead(model)
    assert {name: units.tolist() for name, units in pruned.removed.items()} == {"units": DEAD}
    assert pruned.kept == {}
    assert pruned.model.get_layer("dead").kernel.shape[-1] == 5
    assert pruned.parameters == (model.count_params(), pruned.model.count_params())
    assert pruned.parameters[1] < pruned.parameters[0]
    assert pruned.difference <= 1e-6
    agree(model, pruned)
    agree(model, pruned, scale=1e4)


def test_a_norm_between_a_layer_and_its_relu_is_sliced_too():
    inputs = keras.Input((7,))
    dead, norm = layers.Dense(8, name="dead", use_bias=False), layers.BatchNormalization()
    x = layers.ReLU(name="units")(norm(dead(layers.ReLU()(inputs))))
    randomised(norm)
    gamma, beta, mean, variance = norm.get_weights()
    gamma[DEAD], beta[DEAD] = 0, -0.2
    norm.set_weights([gamma, beta, mean, variance])
    model = keras.Model(inputs, layers.Dense(2)(x))
    pruned = census.prune_dead(model)
    assert pruned.removed["units"].tolist() == DEAD
    assert pruned.parameters == (7 * 8 + 4 * 8 + 8 * 2 + 2, 7 * 5 + 4 * 5 + 5 * 2 + 2)
    agree(model, pruned)


def test_layers_in_a_row_and_branches():
    inputs = keras.Input((7,))
    x = layers.ReLU()(inputs)
    first, second, third = (layers.Dense(8, "relu", name=name) for name in ("a", "b", "c"))
    y = layers.Concatenate()([second(first(x)), third(x)])
    for layer in (first, second, third):
        planted(layer)
    model = keras.Model(inputs, layers.Dense(2)(y))
    pruned = census.prune_dead(model)
    assert {name: units.tolist() for name, units in pruned.removed.items()} == {
        "a": DEAD,
        "b": DEAD,
        "c": DEAD,
    }
    assert pruned.model.count_params() == 7 * 5 + 5 + 5 * 5 + 5 + 7 * 5 + 5 + 10 * 2 + 2
    agree(model, pruned)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (
            lambda: [layers.BatchNormalization(), layers.Conv2D(4, 3, padding="same")],
            "pads what a batch",
        ),
        (lambda: [lambda x: layers.Add(name="sum")([x, x])], "'sum', after them, combines them with others"),
        (lambda: [layers.LayerNormalization(name="ln")], "'ln', after them, reads them in its own way"),
        (lambda: [layers.Reshape((-1,), name="shape")], "'shape', after them, reads them in its own way"),
        (lambda: [layers.DepthwiseConv2D(3, name="each")], "'each', after them, reads them in its own way"),
    ],
)
def test_units_stay_where_they_are_needed(between, reason):
    model = net(*between())
    pruned = census.prune_dead(model)
    assert pruned.removed == {}
    assert list(pruned.kept) == ["units"]
    assert reason in pruned.kept["units"]
    assert pruned.model.count_params() == model.count_params()
    assert f"units: kept, {pruned.kept['units']}" in str(pruned)


def test_units_of_an_output_stay_and_a_layer_keeps_one_unit():
    inputs = keras.Input((7,))
    x = layers.ReLU()(inputs)
    out, all_dead = layers.Dense(8, "relu", name="out"), layers.Dense(4, "relu", name="all_dead")
    model = keras.Model(inputs, [out(x), layers.Dense(2)(all_dead(x))])
    planted(out)
    all_dead.set_weights([np.zeros((7, 4)), -np.ones(4)])
    pruned = census.prune_dead(model)
    assert pruned.kept == {"out": "they are an output of the model"}
    assert pruned.removed["all_dead"].tolist() == [1, 2, 3]
    assert pruned.model.get_layer("all_dead").units == 1


def test_a_census_chooses_the_layers_and_unused_units_stay():
    inputs = keras.Input((7,))
    a, b = layers.Dense(8, "relu", name="a"), layers.Dense(8, "relu", name="b")
    model = keras.Sequential([inputs, layers.ReLU(), a, b, layers.Dense(2)])
    planted(a)
    planted(b)
    kernel, bias = b.get_weights()
    bias[7] = -1e6  # unused, and alive for large inputs
    b.set_weights([kernel, bias])
    x = np.random.default_rng(0).normal(size=(20, 7)).astype("float32")
    counted = census.count(model, x, layers=["b"])
    assert counted.layers["b"].dead[7]
    pruned = census.prune_dead(model, counted)
    assert {name: units.tolist() for name, units in pruned.removed.items()} == {"b": DEAD}
    assert str(pruned).splitlines()[0] == "3 units of 1 layer removed, 33 of 154 parameters (21.4%)"
    with pytest.raises(UsageError, match=r"census: the model has no layer 'b' of 8 units"):
        census.prune_dead(keras.Sequential([keras.Input((7,)), layers.Dense(4, "relu")]), counted)


def test_a_nested_model_is_pruned_inlined():
    inner = keras.Sequential([keras.Input((7,)), layers.Dense(8, "relu", name="fc")], name="inner")
    inputs = keras.Input((7,))
    model = keras.Model(inputs, layers.Dense(2)(inner(layers.ReLU()(inputs))))
    planted(inner.get_layer("fc"))
    pruned = census.prune_dead(model)
    assert pruned.removed["inner/fc"].tolist() == DEAD
    agree(model, pruned)
