import functools
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from bnhead.census import count
from bnhead.census.find import activations, default_layers, find, kind_of, norms, sites
from bnhead.errors import UsageError


def zoo():
    """Every way to write an activation, inside and outside of a nested model."""
    keras.utils.set_random_seed(0)
    inside = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="conv_relu"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu_layer"),
            layers.DepthwiseConv2D(3, activation="relu6", name="depthwise"),
        ],
        name="encoder",
    )
    inputs = keras.Input((8, 8, 4))
    x = inside(inputs)
    x = layers.Activation("gelu", name="gelu_layer")(layers.Conv2D(4, 1, name="plain")(x))
    x = layers.LeakyReLU(name="leaky")(x)
    x = ops.relu(x)
    x = ops.leaky_relu(x)
    x = keras.activations.relu(ops.add(x, 1.0))
    x = layers.PReLU(name="prelu")(layers.BatchNormalization(name="outer_norm")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, activation=layers.ReLU(), name="dense_with_layer")(x)
    x = layers.Dense(5, activation=layers.LeakyReLU(), name="dense_with_leaky")(x)
    x = layers.Softmax(name="attention")(x)
    return keras.Model(inputs, layers.Dense(3, "softmax", name="out")(x))


KINDS = {
    "encoder.conv_relu": "rectifier",
    "encoder.relu_layer": "rectifier",
    "encoder.depthwise": "rectifier",
    "gelu_layer": "activation",
    "leaky": "activation",
    "relu": "rectifier",
    "leaky_relu": "activation",
    "re_lu": "rectifier",
    "prelu": "activation",
    "dense_with_layer": "rectifier",
    "dense_with_leaky": "activation",
}


def test_every_activation_is_found_wherever_it_stands():
    found = {site.name: site.kind for site in activations(zoo())}
    names = {re.sub(r"_\d+$", "", name): kind for name, kind in found.items()}  # operations are numbered
    assert names == KINDS
    assert list(names) == list(KINDS)  # in the order in which they run
    assert [site.name for site in norms(zoo())] == ["encoder.norm", "outer_norm"]
    assert default_layers(zoo()) == ["dense_with_leaky"]


def test_they_are_all_counted():
    model = zoo()
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 4)).astype("float32")
    census = count(model, x, "all", batch_size=6)
    assert list(census.layers) == [site.name for site in activations(model)]
    assert not any(counts.unknown for counts in census.layers.values())
    shares = {name: counts.figures()["per_input"] for name, counts in census.layers.items()}
    assert shares["dense_with_leaky"] == 0 and shares["dense_with_layer"] > 0


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (layers.ReLU(max_value=6), ("rectifier", False)),
        (layers.ReLU(negative_slope=0.1), ("activation", False)),
        (layers.ReLU(threshold=0.5), ("activation", False)),
        (layers.Activation("relu6"), ("rectifier", False)),
        (layers.Activation("linear"), ("other", False)),
        (layers.Activation("softmax"), ("other", False)),
        (layers.Dense(3), ("other", False)),
        (layers.Dense(3, "silu"), ("activation", True)),
        (
            layers.Dense(3, functools.partial(keras.activations.relu, negative_slope=0.1)),
            ("activation", True),
        ),
        (layers.Dense(3, layers.ReLU(negative_slope=0.1)), ("activation", True)),
        (layers.Conv1D(3, 3, activation="relu"), ("rectifier", True)),
        (layers.SeparableConv2D(3, 3, activation="relu"), ("rectifier", True)),
        (layers.Conv2DTranspose(3, 3, activation="elu"), ("activation", True)),
        (layers.TimeDistributed(layers.Dense(3, "relu")), ("activation", False)),
        (layers.LSTM(3), ("activation", False)),
        (layers.ELU(), ("activation", False)),
        (layers.BatchNormalization(), ("norm", False)),
        (layers.MaxPooling2D(), ("other", False)),
        (layers.LayerNormalization(), ("other", False)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_kinds(operation, expected):
    assert kind_of(operation) == expected


def test_a_layer_called_several_times_has_a_name_for_each_call():
    relu, inputs = layers.ReLU(name="relu"), keras.Input((4,))
    x = relu(layers.Dense(3)(inputs))
    x = relu(layers.Dense(4)(x))
    model = keras.Model(inputs, layers.Dense(2)(relu(layers.Dense(5)(x))))
    found = activations(model)
    assert [(site.name, site.units) for site in found] == [("relu", 3), ("relu#2", 4), ("relu#3", 5)]
    assert default_layers(model) == ["relu#3"]
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    assert [c.units for c in count(model, x, "all").layers.values()] == [3, 4, 5]


@pytest.mark.slow
def test_keras_applications():
    net = keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10)
    found = activations(net)
    assert len(found) == 35 and {site.kind for site in found} == {"rectifier"}
    net = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    assert len(activations(net)) == 49
    assert default_layers(net) == ["conv5_block3_out"]


def test_the_output_is_counted_only_where_it_is_a_rectifier():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, "relu", name="hidden")(inputs)
    gate = keras.Model(inputs, layers.Dense(3, "tanh", name="gate")(hidden))
    assert [site.name for site in activations(gate)] == ["hidden"]
    feature_net = keras.Model(inputs, hidden)
    assert [site.name for site in activations(feature_net)] == ["hidden"]
    with pytest.raises(UsageError, match="has no activation before its output"):
        default_layers(feature_net)
    outer = keras.Model(inputs, keras.Sequential([keras.Input((4,)), layers.Dense(2, "tanh")])(inputs))
    assert not activations(outer)


def test_groups_are_those_of_the_nearest_concatenation():
    inputs = keras.Input((4, 4, 3))
    a, b = layers.Conv2D(6, 1)(inputs), layers.Conv2D(2, 1)(inputs)
    joined = layers.Concatenate(name="join")([a, b, inputs])
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(joined))
    y = layers.Conv2D(5, 1, activation="relu", name="after")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(y))
    groups = {site.name: site.groups for site in sites(model)}
    assert groups["join"] == groups["norm"] == groups["relu"] == (6, 2, 3)
    assert groups["after"] == ()
    across = layers.Concatenate(axis=1, name="rows")([a, a])
    model = keras.Model(inputs, layers.ReLU(name="relu")(across))
    assert {site.groups for site in sites(model)} == {()}
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype("float32")
    assert "blocks_p" not in count(model, x, ["relu"]).layers["relu"].figures()


def test_words_names_and_layers_mix():
    model = zoo()
    found = find(model, ["norms", "plain", model.get_layer("pool"), "outer_norm"])
    assert [site.name for site in found] == ["encoder.norm", "outer_norm", "plain", "pool"]
    assert [site.name for site in find(model, "plain")] == ["plain"]


def test_what_is_not_there():
    with pytest.raises(
        UsageError, match=r"has no layer 'encoder.relu_leyer'; did you mean 'encoder.relu_layer'"
    ):
        find(zoo(), ["encoder.relu_leyer"])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    with pytest.raises(UsageError, match="layers must name at least one layer"):
        find(model, "norms")


class Opaque(keras.Model):
    def __init__(self):
        super().__init__(name="opaque")
        self.dense = layers.Dense(3, "relu")

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_inside_is_counted_at_its_output_when_named():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Opaque()(layers.Dense(3, "relu")(inputs))))
    with pytest.raises(UsageError, match="may be inside the nested model 'opaque'; name the layers to count"):
        default_layers(model)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    assert 0 < count(model, x, ["opaque"]).figures()["dead/opaque/per_input"] < 1
    with pytest.raises(UsageError, match="'opaque' must be a built functional or Sequential model"):
        sites(Opaque())
