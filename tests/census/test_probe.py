import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from bnhead.census import Probe, count
from bnhead.census.probe import default_layers
from bnhead.errors import UsageError

UNITS = 24
DEAD, ALWAYS_ON, RARE = slice(0, 5), slice(5, 8), 8


def planted_dense(seed, inputs=500):
    """A random net with a ReLU layer in which units are dead, always on, and active on 2 of the inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(inputs, 6)).astype("float32")
    features = keras.Input((6,))
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


def by_numpy(model, layer, x, eps=0.0):
    """The definitions, on all activations at once."""
    out = keras.Model(model.inputs, model.get_layer(layer).output).predict(x, batch_size=len(x), verbose=0)
    loud = np.abs(out.reshape(len(x), -1, out.shape[-1])) > eps
    silent = ~loud.any(1)
    shares = silent.mean(1)
    return {
        "per_input": shares.mean(),
        "per_input_p05": np.percentile(shares, 5),
        "per_input_p50": np.percentile(shares, 50),
        "per_input_p95": np.percentile(shares, 95),
        "dataset": silent.all(0).mean(),
        "rarely_active": ((~silent).mean(0) < 0.01).mean(),
        "always_on": loud.all((0, 1)).mean(),
    }


@pytest.mark.parametrize("net", [planted_dense, planted_conv])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_figures_equal_those_of_numpy_on_model_predict(net, seed, eps):
    model, layer, x = net(seed)
    counts = count(model, x, [layer], batch_size=64, eps=eps).layers[layer]
    expected = by_numpy(model, layer, x, eps)
    assert counts.figures() == pytest.approx(expected, abs=1e-12)
    assert counts.inputs == len(x)


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
    assert counts.figures() == pytest.approx(by_numpy(model, layer, x), abs=1e-12)


def test_arrays_tuples_and_datasets_give_the_same_counts():
    model, layer, x = planted_dense(1)
    y = np.zeros(len(x))
    slices = tf.data.Dataset.from_tensor_slices
    kinds = [x, (x, y), (x, y, y), slices(x).batch(33), slices((x, y)).batch(500)]
    figures = [count(model, data).layers[layer].figures() for data in kinds]
    assert all(f == figures[0] for f in figures)


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


def test_inputs_that_are_not_finite_void_the_count_though_the_kernel_returns_zeros():
    model, layer, x = planted_dense(0)
    x[[123, 300], 2] = np.nan
    counts = count(model, x, batch_size=50).layers[layer]
    assert counts.unknown == "values are not finite on 2 inputs, first on input 123"
    assert np.isnan(counts.figures()["dataset"])


def test_weights_that_are_not_finite_void_the_count():
    model, layer, x = planted_dense(0)
    kernel, bias = (np.array(w) for w in model.get_layer(layer).get_weights())
    bias[3] = np.nan
    model.get_layer(layer).set_weights([kernel, bias])
    assert count(model, x).layers[layer].unknown == "the model's weights are not finite"


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


def test_a_nested_model_is_counted_at_its_output_and_never_passed_over():
    model, name = nested(layers.ReLU())
    assert default_layers(model) == [name]
    x = np.random.default_rng(0).normal(size=(50, 6, 6, 2)).astype("float32")
    assert count(model, x).layers[name].figures() == pytest.approx(by_numpy(model, name, x), abs=1e-12)
    model, name = nested(layers.MaxPooling2D())
    with pytest.raises(
        UsageError, match=f"may be inside the nested model '{name}'; name the layers to count"
    ):
        default_layers(model)


def test_softmax_is_no_activation_to_count():
    inputs = keras.Input((6,))
    x = layers.Dense(3, "softmax")(layers.Dense(5, "relu", name="fc")(inputs))
    model = keras.Model(inputs, layers.Activation("linear", dtype="float32")(x))
    assert default_layers(model) == ["fc"]


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        (np.zeros((5, 6)), 0, "batch_size must be a whole number of at least 1, got 0"),
        ((row for row in [1]), 8, "data must be arrays, .* got generator"),
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
    with pytest.raises(UsageError, match="must be a built functional or Sequential model"):
        Probe(keras.Sequential([layers.Dense(3, "relu")]))


def test_a_layer_that_is_called_twice_is_counted_where_it_is_called_first():
    shared, inputs = layers.Dense(6, "relu", name="shared"), keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(shared(shared(inputs))))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    kernel, bias = shared.get_weights()
    expected = (x @ kernel + bias <= 0).mean()
    assert count(model, x, ["shared"]).figures()["dead/shared/per_input"] == pytest.approx(expected)
