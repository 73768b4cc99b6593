import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from bnhead.census import count
from bnhead.census.sites import activations, default_layers, inventory_of
from bnhead.errors import UsageError
from tests.census.planted import by_numpy, figures_of, nested, sequential


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
    "encoder/conv_relu": "relu",
    "encoder/relu_layer": "relu",
    "encoder/depthwise": "relu6",
    "gelu_layer": "gelu",
    "leaky": "leaky_relu",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "re_lu": "relu",
    "prelu": "prelu",
    "dense_with_layer": "relu",
    "dense_with_leaky": "leaky_relu",
}


def test_every_form_of_activation_is_a_site():
    kinds = {site.name: site.kind for site in activations(zoo())}
    names = {re.sub(r"_\d+$", "", name): kind for name, kind in kinds.items()}  # operations are numbered
    assert names == KINDS
    assert list(names) == list(KINDS)  # in the order in which they run
    assert [site.name for site in inventory_of(zoo()).norms] == ["encoder/norm", "outer_norm"]
    assert default_layers(zoo()) == ["dense_with_leaky"]


def test_they_are_all_counted():
    model = zoo()
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 4)).astype("float32")
    census = count(model, x, "all", batch_size=6)
    assert list(census.layers) == [site.name for site in activations(model)]
    assert not any(counts.unknown for counts in census.layers.values())
    shares = {name: counts.figures()["per_input"] for name, counts in census.layers.items()}
    assert shares["dense_with_leaky"] == 0 and shares["dense_with_layer"] > 0


def relu_by_another_rule(x, slope=0.1):
    return ops.maximum(slope * x, x)


relu_by_another_rule.__name__ = "relu"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.ReLU(max_value=6), "relu6"),
        (layers.ReLU(negative_slope=0.1), "leaky_relu"),
        (layers.ReLU(threshold=0.5), "leaky_relu"),
        (layers.Activation("relu6"), "relu6"),
        (layers.Activation("linear"), None),
        (layers.Activation("softmax"), None),
        (layers.Dense(3), None),
        (layers.Dense(3, "silu"), "silu"),
        (layers.Dense(3, relu_by_another_rule), "function"),
        (layers.Dense(3, functools.partial(keras.activations.relu, negative_slope=0.1)), "leaky_relu"),
        (layers.Dense(3, layers.ReLU(negative_slope=0.1)), "leaky_relu"),
        (layers.TimeDistributed(layers.Dense(3, "relu")), "relu"),
        (layers.LSTM(3), "recurrent"),
        (layers.Bidirectional(layers.GRU(3)), "recurrent"),
        (layers.ELU(), "elu"),
        (layers.BatchNormalization(), None),
        (layers.LayerNormalization(), None),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_kinds(layer, expected):
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    kinds = {site.kind for site in activations(model)}
    assert kinds == ({expected} if expected else set())


def test_a_layer_called_several_times_has_a_name_for_each_call():
    relu, inputs = layers.ReLU(name="relu"), keras.Input((4,))
    x = relu(layers.Dense(3)(inputs))
    x = relu(layers.Dense(4)(x))
    model = keras.Model(inputs, layers.Dense(2)(relu(layers.Dense(5)(x))))
    sites = activations(model)
    assert [(site.name, site.units) for site in sites] == [("relu", 3), ("relu#2", 4), ("relu#3", 5)]
    assert default_layers(model) == ["relu#3"]
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    assert [c.units for c in count(model, x, "all").layers.values()] == [3, 4, 5]


@pytest.mark.slow
def test_keras_applications():
    net = keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10)
    sites = activations(net)
    assert len(sites) == 35 and {site.kind for site in sites} <= {"relu", "relu6"}
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
    groups = {site.name: site.groups for site in inventory_of(model).sites}
    assert groups["join"] == groups["norm"] == groups["relu"] == (6, 2, 3)
    assert groups["after"] == ()
    across = layers.Concatenate(axis=1, name="rows")([a, a])
    model = keras.Model(inputs, layers.ReLU(name="relu")(across))
    assert {site.groups for site in inventory_of(model).sites} == {()}
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype("float32")
    assert "blocks_p" not in count(model, x, ["relu"]).layers["relu"].figures()


def test_words_names_and_layers_mix():
    model = zoo()
    sites = inventory_of(model).select(["norms", "plain", model.get_layer("pool"), "outer_norm"])
    assert [site.name for site in sites] == ["encoder/norm", "outer_norm", "plain", "pool"]
    assert [site.name for site in inventory_of(model).select("plain")] == ["plain"]


def test_missing_layers():
    with pytest.raises(
        UsageError, match=r"has no layer 'encoder/relu_leyer'; did you mean 'encoder/relu_layer'"
    ):
        inventory_of(zoo()).select(["encoder/relu_leyer"])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    with pytest.raises(UsageError, match="layers must name at least one layer"):
        inventory_of(model).select("norms")


class Opaque(keras.Model):
    def __init__(self):
        super().__init__(name="opaque")
        self.dense = layers.Dense(3, "relu")

    def call(self, x):
        return self.dense(x)


def test_layers_by_identity():
    model, copy = zoo(), zoo()
    inside = model.get_layer("encoder").get_layer("relu_layer")
    assert [site.name for site in inventory_of(model).select([inside])] == ["encoder/relu_layer"]
    with pytest.raises(UsageError, match="does not call this layer 'gelu_layer'"):
        inventory_of(model).select([copy.get_layer("gelu_layer")])


def test_a_subclassed_model_is_looked_into():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Opaque()(layers.Dense(3, "relu", name="first")(inputs))))
    inventory = inventory_of(model)
    assert [site.name for site in inventory.activations] == ["first", f"opaque/{model.layers[2].dense.name}"]
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    assert 0 < count(model, x, ["opaque"]).figures()["dead/opaque/per_input"] < 1
    with pytest.raises(UsageError, match="model 'opaque' must be built: call it on a batch of inputs first"):
        inventory_of(Opaque())
    alone = Opaque()
    alone(x)
    with pytest.raises(UsageError, match="model 'opaque': its inputs are not known; pass data to count on"):
        inventory_of(alone)
    assert [site.kind for site in inventory_of(alone, x).activations] == ["relu"]


class WithMaximum(layers.Layer):
    def call(self, x):
        return ops.maximum(x, 0.0)


def test_an_activation_without_a_hook_is_listed():
    inputs = keras.Input((4,))
    x = WithMaximum(name="hidden_relu")(layers.Dense(3, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    inventory = inventory_of(model)
    assert inventory.missed == {"hidden_relu": "maximum with 0 that no hook saw"}
    with pytest.raises(UsageError, match=r"no activation before its output \(hidden_relu: maximum with 0"):
        inventory.select(None)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    census = count(model, x, ["hidden_relu"])
    out = keras.Model(inputs, model.get_layer("hidden_relu").output).predict(x, verbose=0)
    np.testing.assert_array_equal(census.layers["hidden_relu"].active, (out > 0).sum(0))
    assert "not looked at: hidden_relu, maximum with 0" in str(census)


def test_default_is_the_last_activation_before_the_output():
    pool = layers.GlobalAveragePooling2D
    plain = sequential(pool(), layers.Dense(5, "relu", name="fc"), layers.Dense(3, "softmax"))
    assert default_layers(plain) == ["fc"]
    assert default_layers(sequential(pool(), layers.Dense(3, "softmax"))) == ["map"]
    split = layers.Dense(5), layers.BatchNormalization(), layers.ReLU(name="after_bn"), layers.Dropout(0.5)
    assert default_layers(sequential(pool(), *split, layers.Dense(3), layers.Softmax())) == ["after_bn"]
    inputs = keras.Input((6,))
    message = "has no activation before its output; name the layers to count"
    with pytest.raises(UsageError, match=f"{message}$"):
        default_layers(keras.Model(inputs, layers.Dense(3, "softmax")(inputs)))
    hidden = layers.BatchNormalization(name="norm")(layers.Dense(5, name="linear")(inputs))
    with pytest.raises(UsageError, match=f"{message}, such as 'linear', 'norm'$"):
        default_layers(keras.Model(inputs, layers.Dense(3, "softmax")(hidden)))


def test_a_nested_model_is_counted_inside_or_at_its_output():
    model, name = nested(layers.ReLU(name="last"))
    assert default_layers(model) == [f"{name}/last"]
    x = np.random.default_rng(0).normal(size=(50, 6, 6, 2)).astype("float32")
    census = count(model, x, [name, f"{name}/last", f"{name}/map"])
    expected = by_numpy(model, name, x)
    assert figures_of(census.layers[name], expected) == pytest.approx(expected, abs=1e-9)
    assert figures_of(census.layers[f"{name}/last"], expected) == pytest.approx(expected, abs=1e-9)
    images = keras.Model(model.inputs, model.get_layer("adapter").output).predict(x, verbose=0)
    expected = by_numpy(model.get_layer(name), "map", images)
    assert figures_of(census.layers[f"{name}/map"], expected) == pytest.approx(expected, abs=1e-9)
    model, name = nested(layers.MaxPooling2D())
    assert default_layers(model) == [f"{name}/map"]


def test_softmax_is_not_counted():
    inputs = keras.Input((6,))
    x = layers.Dense(3, "softmax")(layers.Dense(5, "relu", name="fc")(inputs))
    model = keras.Model(inputs, layers.Activation("linear", dtype="float32")(x))
    assert default_layers(model) == ["fc"]


def test_softmax_and_the_identity_as_functions_are_not_counted():
    inputs = keras.Input((6,))
    x = layers.Dense(5, tf.nn.softmax, name="weights")(layers.Dense(4, tf.identity, name="linear")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(3, tf.nn.relu, name="fc")(x)))
    assert list(count(model, np.zeros((3, 6)), "all").layers) == ["fc"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (["encoder/*"], ["encoder/conv_relu", "encoder/relu_layer", "encoder/depthwise"]),
        (["dense_with_*", "leaky"], ["dense_with_layer", "dense_with_leaky", "leaky"]),
        (["encoder/[cd]*"], ["encoder/conv_relu", "encoder/depthwise"]),
        ("*_layer", ["encoder/relu_layer", "gelu_layer", "dense_with_layer"]),
        (["p?ol"], ["pool"]),  # no activation matches
    ],
)
def test_patterns_select_activations_first(layers, expected):
    assert [site.name for site in inventory_of(zoo()).select(layers)] == expected


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(UsageError, match=r"has no layer 'stage9_\*'"):
        inventory_of(zoo()).select(["stage9_*"])
