import itertools
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from bnhead.census import Probe, count
from bnhead.census.sites import default_layers
from bnhead.errors import UsageError
from bnhead.models import resnet8
from tests.census import zoo

UNITS = 24
DEAD, ALWAYS_ON, RARE = slice(0, 5), slice(5, 8), 8


def planted_dense(seed, inputs=500):
    """A random net with a ReLU layer in which units are dead, always on, and active on 2 of the inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(inputs, 6)).astype("float32")
    features = keras.Input((6,), name="features")
    hidden = layers.Dense(
        UNITS, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed), name="hidden"
    )
    model = keras.Model(features, layers.Dense(3)(hidden(features)))
    kernel, bias = (np.array(w) for w in hidden.get_weights())
    before = np.sort(x @ kernel[:, RARE])
    bias[DEAD], bias[ALWAYS_ON], bias[RARE] = -1e3, 1e3, -(before[-2] + before[-3]) / 2
    hidden.set_weights([kernel, bias])
    return model, "hidden", x


def planted_conv(seed, inputs=300):
    """The same behind convolution, batch norm in evaluation mode and ReLU, on a feature map."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(inputs, 5, 4, 2)).astype("float32")
    image = keras.Input((5, 4, 2))
    y = layers.Conv2D(UNITS, 3, kernel_initializer=keras.initializers.HeNormal(seed))(image)
    norm = layers.BatchNormalization()
    y = layers.Activation("relu", name="map")(norm(y))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    beta = rng.normal(-2.5, 1, UNITS).astype("float32")
    beta[DEAD], beta[ALWAYS_ON] = -1e3, 1e3
    norm.beta.assign(beta)
    norm.moving_mean.assign(rng.normal(size=UNITS))
    norm.moving_variance.assign(rng.uniform(0.5, 2, UNITS))
    return model, "map", x


def by_numpy(model, layer, x, eps=0.0, y=None, loss=None):
    """The definitions, on all activations at once, in the plainest way."""
    output = model.get_layer(layer).output
    out = keras.Model(model.inputs, output).predict(x, batch_size=len(x), verbose=0)
    a = out.reshape(len(x), -1, out.shape[-1]).astype("float64")  # (inputs, positions, units)
    loud = np.abs(a) > eps
    silent = ~loud.any(1)
    shares, dead = silent.mean(1), silent.all(0)
    score = np.abs(a).mean((0, 1)) / np.abs(a).mean()
    figures = {
        "per_input": shares.mean(),
        "per_input_p05": np.percentile(shares, 5),
        "per_input_p50": np.percentile(shares, 50),
        "per_input_p95": np.percentile(shares, 95),
        "dataset": dead.mean(),
        "rarely_active": ((~silent).mean(0) < 0.01).mean(),
        "always_on": loud.all((0, 1)).mean(),
        "runs": sum(1 for _ in re.finditer("1+", "".join(map(str, dead.astype(int))))),
        "runs_expected": dead.sum() * (len(dead) - dead.sum() + 1) / len(dead),
        "runs_z_per_input": np.mean([z for z in map(wald_wolfowitz, silent) if z is not None] or [0]),
        "dormant_0": (score <= 0).mean(),
        "dormant_0025": (score <= 0.025).mean(),
        "dormant_01": (score <= 0.1).mean(),
    }
    if len(out.shape) == 2:
        figures["constant"] = (a.var((0, 1)) <= 1e-12).mean()
    if y is not None:
        on_class = np.array([silent[y == c].all(0) & ~dead for c in np.unique(y)])
        figures["class_dead"] = on_class.any(0).mean()
    return figures


def wald_wolfowitz(silent):
    """z of one input's silent units, by the textbook."""
    first, second = silent.sum(), (~silent).sum()
    n = first + second
    runs = sum(1 for _ in itertools.groupby(silent))
    mean = 2 * first * second / n + 1
    variance = 2 * first * second * (2 * first * second - n) / (n * n * (n - 1))
    return (runs - mean) / math.sqrt(variance) if first and second and variance > 0 else None


def figures_of(counts, expected):
    """Those of the figures that have a plain counterpart; the others have tests of their own."""
    return {name: value for name, value in counts.figures().items() if name in expected}


@pytest.mark.parametrize("net", [planted_dense, planted_conv])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_figures_equal_those_of_numpy_on_model_predict(net, seed, eps):
    model, layer, x = net(seed)
    y = np.random.default_rng(seed).integers(0, 3, len(x))
    y[:2] = 2
    counts = count(model, (x, y), [layer], batch_size=64, eps=eps).layers[layer]
    expected = by_numpy(model, layer, x, eps, y)
    assert figures_of(counts, expected) == pytest.approx(expected, abs=1e-9)
    assert counts.inputs == len(x)
    sizes = np.bincount(y)
    np.testing.assert_array_equal(counts.class_inputs, sizes)
    loud = activations_of(model, layer, x, eps)
    np.testing.assert_array_equal(counts.class_active, [loud[y == c].sum(0) for c in range(3)])
    np.testing.assert_allclose(counts.class_activity, [loud[y == c].mean(0) for c in range(3)])


def activations_of(model, layer, x, eps=0.0):
    """`(inputs, units)` bool: active somewhere."""
    out = keras.Model(model.inputs, model.get_layer(layer).output).predict(x, batch_size=len(x), verbose=0)
    return (np.abs(out.reshape(len(x), -1, out.shape[-1])) > eps).any(1)


@pytest.mark.parametrize("net", [planted_dense, planted_conv])
def test_units_that_are_active_together(net):
    model, layer, x = net(2)
    counts = count(model, x, [layer], batch_size=70, together=True).layers[layer]
    loud = activations_of(model, layer, x)
    expected = np.array([[(a & b).sum() for a in loud.T] for b in loud.T])
    np.testing.assert_array_equal(counts.together, expected)
    changing = (loud.mean(0) > 0) & (loud.mean(0) < 1)
    np.testing.assert_allclose(
        counts.phi[np.ix_(changing, changing)], np.corrcoef(~loud[:, changing].T), atol=1e-12
    )
    assert counts.figures()["patterns"] == pytest.approx(
        changing.sum() ** 2 / (np.corrcoef(loud[:, changing].T) ** 2).sum()
    )


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
    # dL/dz of unit 2 is p1 - [y = 1] times -1 plus p0 - [y = 0]; Keras takes the mean over each batch
    logits = model.predict(x, verbose=0)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = p - np.eye(2)[y]
    per_input = np.abs(wrong[:, 0] - wrong[:, 1]) / np.array([2, 2, 2, 2, 1])
    assert counts.gradient[2] == pytest.approx(per_input.sum(), rel=1e-5)
    assert set(counts.figures()) - set(count(model, (x, y)).layers["hidden"].figures()) == {"gradient_dead"}


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


def test_a_unit_behind_a_batch_norm_turns_constant():
    inputs = keras.Input((6,))
    hidden = layers.Dense(5, "relu", name="hidden")
    norm = layers.BatchNormalization(name="norm")
    model = keras.Model(inputs, layers.Dense(2)(norm(hidden(inputs))))
    kernel, _ = hidden.get_weights()
    hidden.set_weights([kernel, np.array([-99, 0, 0, -99, 0], "float32")])
    norm.beta.assign([1000, 0, 0, 3, 0])  # large means must not drown the variance, nor make one
    norm.moving_mean.assign(np.random.default_rng(1).normal(size=5))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    census = count(model, x, ["hidden", "norm"], batch_size=7)
    assert census.layers["norm"].constant.tolist() == [True, False, False, True, False]
    assert census.figures()["dead/norm/constant"] == pytest.approx(0.4)
    assert not census.layers["norm"].dead.any()
    out = keras.Model(model.inputs, norm.output).predict(x, verbose=0).astype("float64")
    np.testing.assert_allclose(census.layers["norm"].moments.variance, out.var(0), rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(census.layers["norm"].moments.mean, out.mean(0), rtol=1e-5)


def test_a_batch_norm_on_a_feature_map_turns_constant():
    model, _, x = planted_conv(0)
    norm = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    norm.gamma.assign(np.where(np.arange(UNITS) < 4, 0, 1))
    counts = count(model, x, "norms", batch_size=33).layers[norm.name]
    assert counts.constant.tolist() == [u < 4 for u in range(UNITS)]
    out = keras.Model(model.inputs, norm.output).predict(x, verbose=0).astype("float64")
    np.testing.assert_allclose(counts.moments.variance, out.var((0, 1, 2)), rtol=1e-4, atol=1e-12)


def test_planted_units_are_found():
    model, layer, x = planted_dense(0)
    counts = count(model, x).layers[layer]
    assert counts.dead[DEAD].all() and counts.always_on[ALWAYS_ON].all()
    assert counts.active[RARE] == 2 and counts.rarely_active[RARE] and not counts.dead[RARE]
    assert not counts.dead[RARE:].any() and not counts.always_on[RARE:].any()


@pytest.mark.parametrize("size", [1, 7, 499, 500, 1000])
def test_the_last_partial_batch_counts(size):
    model, layer, x = planted_dense(0)
    counts = count(model, x, batch_size=size).layers[layer]
    assert counts.inputs == 500
    expected = by_numpy(model, layer, x)
    assert figures_of(counts, expected) == pytest.approx(expected, abs=1e-9)


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def test_arrays_tuples_and_datasets_give_the_same_counts():
    model, layer, x = planted_dense(1)
    y = np.zeros(len(x), int)
    slices = tf.data.Dataset.from_tensor_slices
    whole = (x[:300], y[:300]), (x[300:], y[300:])
    kinds = [
        x,
        (x, y),
        (x, y, y),
        slices(x).batch(33),
        slices((x, y)).batch(500),
        iter(whole),
        Batches(whole),
    ]
    figures = [count(model, data).layers[layer].figures() for data in kinds]
    assert "class_dead" not in figures[0] and figures[1].pop("class_dead") == 0
    for f in figures:
        assert {name: f[name] for name in figures[0]} == pytest.approx(figures[0], abs=1e-12)


def test_evaluation_mode_and_present_weights():
    inputs = keras.Input((6,))
    hidden = layers.Dense(UNITS, "relu", name="hidden")(layers.Dropout(0.9)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    probe = Probe(model)
    assert probe.count(x).figures()["dead/hidden/per_input"] == pytest.approx(
        by_numpy(model, "hidden", x)["per_input"], abs=1e-12
    )
    model.get_layer("hidden").bias.assign(np.full(UNITS, -1e3))
    assert probe.count(x).figures()["dead/hidden/dataset"] == 1


def by_predict(model, x):
    """`(units,)`: inputs on which each unit of the layer "fc" is active, in evaluation mode."""
    return (keras.Model(model.inputs, model.get_layer("fc").output).predict(x, verbose=0) > 0).sum(0)


AS_TRAINING = {  # layers that train, augment or draw unless Keras tells them that it evaluates
    "flip": lambda x: layers.RandomFlip()(x),
    "rotation": lambda x: layers.RandomRotation(0.5)(x),
    "brightness": lambda x: layers.RandomBrightness(0.5, (0, 1))(x),
    "dropout": lambda x: layers.Dropout(0.5)(x, training=True),
    "batch norm": lambda x: layers.BatchNormalization()(x, training=True),
    "nested": lambda x: keras.Sequential([keras.Input((8, 8, 3)), layers.RandomFlip()])(x, training=True),
}


@pytest.mark.parametrize("name", AS_TRAINING)
def test_what_was_recorded_as_training_is_counted_as_predict_runs_it(name):
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(AS_TRAINING[name](inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(32, "relu", name="fc")(x)))
    images = np.random.default_rng(0).random((40, 8, 8, 3)).astype("float32")
    before, expected = [np.array(v) for v in model.variables], by_predict(model, images)
    for _ in range(2):
        np.testing.assert_array_equal(count(model, images).layers["fc"].active, expected)
    for one, other in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, np.array(other))


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
def test_nan_that_an_earlier_layer_has_swallowed_voids_the_count(where):
    inputs = keras.Input((6,))
    first, second = layers.Dense(8, "relu", name="first"), layers.Dense(8, "relu", name="second")
    model = keras.Model(inputs, layers.Dense(2)(second(first(inputs))))
    x = np.ones((30, 6), "float32")
    if where == "input":
        x[:] = np.nan
    else:
        first.kernel.assign(np.full((6, 8), np.nan))
    assert count(model, x, ["second"]).layers["second"].unknown


def test_a_layer_named_twice_is_counted_once():
    model, layer, x = planted_dense(0)
    other = model.layers[-1].name
    twice = count(model, x, [layer, layer, other])
    assert list(twice.layers) == [layer, other]
    assert twice.figures() == count(model, x, [layer, other]).figures()


def test_several_inputs_and_several_layers():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    one = layers.Dense(4, "relu", name="one")(a)
    two = layers.Dense(5, "relu", name="two")(b)
    model = keras.Model([a, b], layers.Dense(1)(layers.Concatenate()([one, two])))
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(30, n)).astype("float32") for n in (3, 2)]
    census = count(model, (x,), ["one", model.get_layer("two")], batch_size=8)
    assert list(census.layers) == ["one", "two"]
    for name, values in zip(("one", "two"), x, strict=True):
        kernel, bias = model.get_layer(name).get_weights()
        silent = values @ kernel + bias <= 0
        assert census.layers[name].figures()["per_input"] == pytest.approx(silent.mean())


def test_a_softplus_is_counted_by_threshold_only():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(9, "softplus", name="soft")(inputs)))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    assert count(model, x).figures()["dead/soft/per_input"] == 0
    expected = by_numpy(model, "soft", x, 0.5)["per_input"]
    assert expected > 0
    assert count(model, x, eps=0.5).figures()["dead/soft/per_input"] == pytest.approx(expected, abs=1e-12)


def test_negative_outputs_are_not_silent():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(9, "tanh", name="odd")(inputs)))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    figures = count(model, x).layers["odd"].figures()
    assert (figures["per_input"], figures["always_on"]) == (0, 1)


def sequential(*stack):
    return keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3, activation="relu", name="map"), *stack]
    )


def test_default_is_the_last_activation_before_the_output():
    pool = layers.GlobalAveragePooling2D
    plain = sequential(pool(), layers.Dense(5, "relu", name="fc"), layers.Dense(3, "softmax"))
    assert default_layers(plain) == ["fc"]
    assert default_layers(sequential(pool(), layers.Dense(3, "softmax"))) == ["map"]
    split = layers.Dense(5), layers.BatchNormalization(), layers.ReLU(name="after_bn"), layers.Dropout(0.5)
    assert default_layers(sequential(pool(), *split, layers.Dense(3), layers.Softmax())) == ["after_bn"]
    inputs = keras.Input((6,))
    with pytest.raises(UsageError, match="has no activation before its output; name the layers to count"):
        default_layers(keras.Model(inputs, layers.Dense(3, "softmax")(inputs)))


def nested(*stack):
    """Layers in a model of their own, called inside another, as in transfer learning."""
    inside = sequential(*stack)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(2, 1, activation="relu", name="adapter")(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(inside(x)))), inside.name


def test_a_nested_model_is_counted_inside_or_at_its_output():
    model, name = nested(layers.ReLU(name="last"))
    assert default_layers(model) == [f"{name}/last"]
    x = np.random.default_rng(0).normal(size=(50, 6, 6, 2)).astype("float32")
    census = count(model, x, [name, f"{name}/last", f"{name}/map"])
    expected = by_numpy(model, name, x)
    assert figures_of(census.layers[name], expected) == pytest.approx(expected, abs=1e-9)
    assert figures_of(census.layers[f"{name}/last"], expected) == pytest.approx(expected, abs=1e-9)
    before = keras.Model(model.inputs, model.get_layer("adapter").output).predict(x, verbose=0)
    expected = by_numpy(model.get_layer(name), "map", before)
    assert figures_of(census.layers[f"{name}/map"], expected) == pytest.approx(expected, abs=1e-9)
    model, name = nested(layers.MaxPooling2D())
    assert default_layers(model) == [f"{name}/map"]


def test_softmax_is_no_activation_to_count():
    inputs = keras.Input((6,))
    x = layers.Dense(3, "softmax")(layers.Dense(5, "relu", name="fc")(inputs))
    model = keras.Model(inputs, layers.Activation("linear", dtype="float32")(x))
    assert default_layers(model) == ["fc"]


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        (np.zeros((5, 6)), 0, "batch_size must be a whole number of at least 1, got 0"),
        (
            [[1.0, 2.0], [3.0, 4.0]],
            8,
            "data must be arrays, .* got list of numbers; np.asarray makes an array",
        ),
        ((np.zeros((2, 6)), [0, 1]), 8, "labels must be an array, got a list; np.asarray makes one"),
        (tf.ragged.constant([[1.0], [1.0, 2.0]]), 8, "got a RaggedTensor; to_tensor"),
        ("images", 8, "data must be arrays, .* got str"),
        (tf.data.Dataset.from_tensors(np.zeros((5, 6))).repeat(), 8, "this one repeats for ever"),
    ],
)
def test_data_that_cannot_be_read_is_said_at_once(data, batch_size, message):
    from bnhead import DeadUnits

    with pytest.raises(UsageError, match=message):
        DeadUnits(data, batch_size=batch_size)
    with pytest.raises(UsageError, match=message):
        Probe(planted_dense(0)[0]).count(data, batch_size=batch_size)


def test_what_cannot_be_counted_is_said():
    model, _, _ = planted_dense(0)
    with pytest.raises(UsageError, match="has no layer 'hiden'; did you mean 'hidden'"):
        Probe(model, ["hiden"])
    with pytest.raises(UsageError, match="layers must name at least one layer"):
        Probe(model, [])
    with pytest.raises(UsageError, match="eps must be at least 0, got -1"):
        Probe(model, eps=-1)
    with pytest.raises(UsageError, match="eps must be at least 0, got nan"):
        Probe(model, eps=float("nan"))
    with pytest.raises(UsageError, match="must be built: call it on a batch of inputs first"):
        Probe(keras.Sequential([layers.Dense(3, "relu")]))


def test_a_layer_that_is_called_twice_is_counted_where_it_is_called_first():
    shared, inputs = layers.Dense(6, "relu", name="shared"), keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(shared(shared(inputs))))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    kernel, bias = shared.get_weights()
    expected = (x @ kernel + bias <= 0).mean()
    assert count(model, x, ["shared"]).figures()["dead/shared/per_input"] == pytest.approx(expected)


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
        assert counts.unknown == "values are not finite on 1 inputs, first on input 17, at input 'image'"
        assert np.isnan(list(counts.figures().values())).all()
        assert set(counts.figures()) == set(healthy.layers[name].figures())
    assert not any(counts.unknown for counts in count(model, np.delete(x, 17, 0), "all").layers.values())


def test_an_overflow_inside_names_the_layer_and_voids_what_follows_alone():
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


def test_float16_that_overflows_is_unknown():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, "relu", dtype="mixed_float16", name="fc")
    model = keras.Model(inputs, layers.Dense(2)(hidden(inputs)))
    model.get_layer("fc").kernel.assign(np.full((4, 3), -300.0))
    x = np.ones((6, 4), "float32")
    x[2] = 300.0
    counts = count(model, x).layers["fc"]
    assert (counts.nonfinite, counts.first_nonfinite, counts.nonfinite_at) == (1, 2, "fc")
    x[2] = 1.0
    assert count(model, x).figures()["dead/fc/dataset"] == 1


def test_nan_inside_a_nested_model_is_named_with_its_path():
    model, name = nested(layers.ReLU(name="last"))
    model.get_layer(name).get_layer("map").kernel.assign(np.full((3, 3, 2, 4), 1e38))
    model.get_layer("adapter").kernel.assign(np.full((1, 1, 2, 2), 1.0))
    x = np.full((3, 6, 6, 2), 10.0, "float32")
    assert count(model, x, ["adapter"]).layers["adapter"].unknown == ""
    assert count(model, x, [name]).layers[name].nonfinite_at == f"{name}/map"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_counts_what_the_model_computes(policy):
    inputs = keras.Input((5, 4, 2))
    x = layers.Conv2D(8, 3, activation="relu", dtype=policy, name="conv")(inputs)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.GlobalAveragePooling2D(dtype=policy)(layers.ReLU(dtype=policy, name="map")(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(9, "relu", dtype=policy, name="fc")(x)))
    x = np.random.default_rng(0).normal(size=(70, 5, 4, 2)).astype("float32")
    census = count(model, x, "all", batch_size=70)
    for name in ("conv", "map", "fc"):
        np.testing.assert_array_equal(census.layers[name].active, activations_of(model, name, x).sum(0))


def test_inputs_as_dict_as_list_and_left_out():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", optional=True)

    class AddIfThere(layers.Layer):
        def call(self, x, other=None):
            return x if other is None else x + other

        def compute_output_shape(self, x_shape, other_shape=None):
            return x_shape

    hidden = layers.Dense(6, "relu", name="hidden")(AddIfThere()(a, b))
    model = keras.Model({"a": a, "b": b}, layers.Dense(1)(hidden))
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(30, 3)).astype("float32") for _ in "ab")
    kernel, bias = model.get_layer("hidden").get_weights()
    for x, total in (({"a": one, "b": other}, one + other), ({"a": one, "b": None}, one)):
        found = count(model, x, batch_size=8).layers["hidden"]
        np.testing.assert_array_equal(found.active, (total @ kernel + bias > 0).sum(0))
    dataset = tf.data.Dataset.from_tensor_slices({"a": one, "b": other}).batch(7)
    assert count(model, dataset).layers["hidden"].inputs == 30


def test_leaky_relus_by_slope_are_silent_on_their_negative_side():
    inputs = keras.Input((6,))
    x = layers.Dense(9, name="linear")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.LeakyReLU(negative_slope=0.2, name="leaky")(x)))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    assert count(model, x).figures()["dead/leaky/per_input"] == 0
    kernel, bias = model.get_layer("linear").get_weights()
    expected = (x @ kernel + bias < 0).sum(0)
    found = count(model, x, by="slope", eps=0.2).layers["leaky"]
    np.testing.assert_array_equal(found.active, 50 - expected)
    assert count(model, x, by="slope", eps=0.1).figures()["dead/leaky/per_input"] == 0


def test_counting_changes_neither_the_model_nor_what_is_saved(tmp_path):
    model, _, x = planted_conv(0)
    before, nodes = model.get_weights(), [len(layer._inbound_nodes) for layer in model.layers]
    config = model.get_config()
    count(model, x, "all")
    assert model.get_config() == config
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    dense, layer, x = planted_dense(0)
    activation = dense.get_layer(layer).activation
    count(dense, x)
    assert dense.get_layer(layer).activation is activation


def test_options_that_make_no_sense():
    model, _, x = planted_dense(0)
    with pytest.raises(UsageError, match="by must be 'output' or 'slope', got 'gradient'"):
        Probe(model, by="gradient")
    with pytest.raises(UsageError, match="gradient-dead units need the loss of a compiled model"):
        Probe(model, gradients=True)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(UsageError, match=r"gradient-dead units need labels: data must be \(x, y\)"):
        count(model, x, gradients=True)
    with pytest.raises(UsageError, match="labels must be 0 to 2, got 0 to 3"):
        count(model, (x, np.arange(len(x)) % 4), classes=3)


@pytest.mark.parametrize(
    "targets", [np.arange(1, 6), np.array([-1, 1]), np.array([0, 255]), np.array([3.0, 4.0])]
)
def test_targets_that_are_no_classes_neither_end_a_training_nor_are_classes(targets):
    """Ratings, hinge labels, a label to be ignored: whole numbers that are no classes of one output."""
    from bnhead import DeadUnits

    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(8, "relu", name="fc")(inputs)))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    y = np.resize(targets, 50)
    dead_units = DeadUnits((x, y))
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[dead_units]).history
    assert len(history["dead/fc/per_input"]) == 2 and "dead/fc/class_dead" not in history
    assert dead_units.census.layers["fc"].inputs == 50


@pytest.mark.parametrize("labels", [lambda y: y, lambda y: y.astype("float32"), lambda y: np.eye(2)[y]])
def test_binary_labels_are_classes_in_every_form(labels):
    model, layer, x = planted_dense(0)
    model = keras.Model(model.input, layers.Dense(1 if labels(np.zeros(1, int)).ndim == 1 else 2)(
        model.get_layer(layer).output))  # fmt: skip
    y = np.arange(len(x)) % 2
    counts = count(model, (x, labels(y)), [layer]).layers[layer]
    loud = activations_of(model, layer, x)
    np.testing.assert_array_equal(counts.class_active, [loud[y == c].sum(0) for c in range(2)])


def test_labels_beyond_the_classes_that_were_given_are_said_before_training():
    from bnhead import DeadUnits

    with pytest.raises(UsageError, match="labels must be 0 to 2, got 0 to 3"):
        DeadUnits((np.zeros((4, 6)), np.arange(4)), classes=3)


def test_labels_of_more_classes_than_outputs():
    model, layer, x = planted_dense(0)
    y = np.arange(len(x)) % 7
    counts = count(model, (x, y), classes=7).layers[layer]
    assert counts.class_active.shape == (7, UNITS) and counts.class_active.sum() == counts.active.sum()


@pytest.mark.slow
def test_masks_and_further_arguments_reach_the_layers():
    """Padding must not be averaged, and a recurrent layer must get its initial state."""
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    x = layers.Dense(5, "relu", name="each")(x)
    start = layers.Dense(3, name="start")(layers.GlobalAveragePooling1D(name="mean")(x))
    end = layers.GRU(3, name="gru")(x, initial_state=start)
    model = keras.Model(tokens, layers.Dense(2)(layers.Dense(8, "relu", name="fc")(end)))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x = rng.integers(1, 9, (60, 6)) * (np.arange(6) < rng.integers(1, 6, (60, 1)))
    for options in ({}, {"gradients": True}):
        census = count(model, (x, x[:, 0] % 2), ["mean", "gru", "fc"], **options)
        for name, counts in census.layers.items():
            out = keras.Model(tokens, model.get_layer(name).output).predict(x, verbose=0)
            np.testing.assert_allclose(counts.magnitude, np.abs(out).sum(0), rtol=1e-4, atol=1e-4)


def sequence_model(layer):
    inputs = keras.Input((5, 6))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layer(inputs))))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    return model, rng.normal(size=(20, 5, 6)).astype("float32"), rng.integers(0, 3, 20)


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


def test_what_has_no_slope_is_said():
    model, x, _ = sequence_model(layers.LSTM(9, name="l"))
    with pytest.raises(UsageError, match="by='slope' needs an activation; 'l' is counted at its output"):
        count(model, x, ["l"], by="slope")
    inputs = keras.Input((5, 6))
    h = layers.Dense(4, "relu", name="fc")(layers.LSTM(9, name="l")(inputs))
    census = count(keras.Model(inputs, layers.Dense(2)(h)), x, "all", by="slope")
    assert list(census.layers) == ["fc"]
    assert census.not_looked_at == {"l": "an output, which has no slope"}


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


def test_float64_is_judged_in_float64():
    inputs = keras.Input((2,), dtype="float64")
    hidden = layers.Dense(3, "relu", name="fc", dtype="float64")
    model = keras.Model(inputs, layers.Dense(2, dtype="float64")(hidden(inputs)))
    hidden.set_weights([np.full((2, 3), 1.0), np.array([0, 0, 1e-50])])
    x = np.array([[1e200, 1e200], [0, 0], [-1.0, 0]])
    counts = count(model, x).layers["fc"]
    assert counts.unknown == ""  # finite, though beyond float32
    assert counts.active.tolist() == [1, 1, 2]  # 1e-50 is 0 in float32
    assert counts.magnitude[0] == pytest.approx(2e200)


def test_a_threshold_is_not_rounded_to_the_layers_dtype():
    inputs = keras.Input((1,))
    hidden = layers.Dense(2, "relu", name="fc", dtype="bfloat16")
    model = keras.Model(inputs, layers.Dense(2)(hidden(inputs)))
    hidden.set_weights([np.zeros((1, 2)), np.array([0.1, 1.0])])  # 0.1 is 0.10009766 in bfloat16
    assert count(model, np.zeros((4, 1)), eps=0.0999).layers["fc"].active.tolist() == [4, 4]
    assert count(model, np.zeros((4, 1)), eps=0.1001).layers["fc"].active.tolist() == [0, 4]


def test_masked_positions_do_not_count():
    """Unit 0 fires on padding alone, unit 1 everywhere but on padding, unit 2 everywhere."""
    tokens = keras.Input((4,), dtype="int32")
    embed = layers.Embedding(3, 2, mask_zero=True)
    each = layers.Dense(3, "relu", name="each")
    model = keras.Model(tokens, layers.GlobalAveragePooling1D()(each(embed(tokens))))
    embed.set_weights([np.array([[1.0, 0], [0, 1], [0, 2]])])
    each.set_weights([np.array([[1.0, -1, 1], [-1, 1, 1]]), np.zeros(3)])
    x = np.array([[1, 2, 0, 0], [2, 0, 0, 0], [1, 1, 1, 1]])
    counts = count(model, x, ["each"]).layers["each"]
    assert counts.active.tolist() == [0, 3, 3] and counts.active_everywhere.tolist() == [0, 3, 3]
    np.testing.assert_allclose(counts.magnitude, [0, 1.5 + 2 + 1, 1.5 + 2 + 1])


def test_every_relu_inside_transformer_blocks_is_seen_dead():
    model, x = zoo.CASES["transformer_blocks"].build()
    for name in ("block", "second"):
        up = model.get_layer(name).up
        up.bias.assign(up.bias - 100)
    census = count(model, x, "all")
    assert census.figures()["dead/block/up/dataset"] == census.figures()["dead/second/up/dataset"] == 1
    assert default_layers(model) == ["fc"]


def test_softmax_and_the_identity_as_functions_are_no_activations_to_count():
    inputs = keras.Input((6,))
    x = layers.Dense(5, tf.nn.softmax, name="weights")(layers.Dense(4, tf.identity, name="linear")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(3, tf.nn.relu, name="fc")(x)))
    assert list(count(model, np.zeros((3, 6)), "all").layers) == ["fc"]


class Once:
    """Batches without a length, as a generator gives them, to be read again and again."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_labels_that_turn_out_to_be_no_classes_are_said_and_not_counted():
    model, layer, x = planted_dense(0)
    good, bad = (x[:100], np.arange(100) % 3), (x[100:200], np.full(100, 7))
    census = count(model, Once(good, bad), [layer])
    assert census.layers[layer].inputs == 200 and census.layers[layer].class_active is None
    assert census.notes == ["labels: not counted by class, since 100 are not 0 to 2"]
    assert census.notes[0] in str(census)
    soft = count(model, (x, np.full((len(x), 3), 1 / 3)), [layer])
    assert "neither whole numbers nor one-hot of 3 classes" in soft.notes[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x: ([x, x],), "data must have the 1 inputs of the model, got 2"),
        (
            lambda x: tf.data.Dataset.from_tensor_slices(x),
            r"batches of shape \(batch, 5, 4, 2\).*is it batched",
        ),
        (lambda x: x[:0], "data must have at least one batch of inputs"),
        (lambda x: x[..., :1], "data does not fit the model"),
        (lambda x: iter([1, 2]), "data must be arrays, .* got batch"),
    ],
)
def test_data_that_does_not_fit_the_model_is_said_in_one_line(data, message):
    model, _, x = planted_conv(0)
    with pytest.raises(UsageError, match=message) as error:
        count(model, data(x))
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_model_with_a_batch_size_of_its_own_takes_whole_batches():
    inputs = keras.Input(batch_shape=(8, 6))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(5, "relu", name="fc")(inputs)))
    x = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
    assert count(model, x).layers["fc"].inputs == 24
    with pytest.raises(UsageError, match="data must be whole batches of 8, the model's own size; one has 4"):
        count(model, x[:20])


def test_rows_that_are_no_inputs_are_counted_as_rows_and_said():
    inputs = keras.Input((4, 6))
    h = layers.Dense(5, "relu", name="window")(keras.ops.reshape(inputs, (-1, 6)))
    h = layers.Dense(7, "relu", name="after")(keras.ops.reshape(h, (-1, 20)))
    model = keras.Model(inputs, layers.Dense(3)(h))
    x = np.random.default_rng(0).normal(size=(30, 4, 6)).astype("float32")
    x[4, 0, 0] = np.nan
    census = count(model, (x, np.arange(30) % 3), ["window", "after"], batch_size=8)
    assert census.layers["window"].nonfinite == 1 and census.layers["after"].first_nonfinite == 4
    census = count(model, (x[5:], np.arange(25) % 3), ["window", "after"], batch_size=8)
    assert (census.layers["window"].inputs, census.layers["after"].inputs) == (100, 25)
    assert census.layers["window"].class_active is None and census.layers["after"].class_active is not None
    assert census.notes == ["window: counted by row, since it has 4 rows for each input; not by class"]


def test_labels_of_a_subclassed_model_are_classes_in_the_first_count_too():
    model, x = zoo.CASES["subclassed"].build()
    y, probe = np.arange(len(x)) % 3, Probe(model)
    for _ in range(2):
        census = probe.count((x, y))
        assert not census.notes and census.layers["fc"].class_inputs.tolist() == [4, 4, 4]
    assert count(model, (x, y)).layers["fc"].class_active is not None
