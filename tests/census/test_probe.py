import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import Probe, count
from bnhead.census.sites import default_layers
from bnhead.errors import UsageError
from tests.census import zoo
from tests.census.planted import (
    ALWAYS_ON,
    DEAD,
    RARE,
    UNITS,
    activations_of,
    by_numpy,
    figures_of,
    planted_conv,
    planted_dense,
    sequence_model,
)


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


@pytest.mark.parametrize("net", [planted_dense, planted_conv])
def test_outputs_and_silent_shares_of_every_input(net):
    model, layer, x = net(1)
    probe = Probe(model, [layer])
    outputs, silent, labels = probe.per_input(x, batch_size=50)
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(silent[:, 0], 1 - activations_of(model, layer, x).mean(1), rtol=1e-6)
    assert labels is None and silent.shape == (len(x), 1)
    assert silent.mean() == pytest.approx(probe.count(x).figures()[f"dead/{layer}/per_input"])
    census, *arrays = probe.count_per_input(x, batch_size=50)
    assert census.figures() == probe.count(x).figures()
    np.testing.assert_allclose(arrays[0], outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(arrays[1], silent)
    x = x.copy()
    x[3] = np.nan
    _, silent, labels = probe.per_input((x, np.arange(len(x))), batch_size=50)
    assert np.flatnonzero(np.isnan(silent[:, 0])).tolist() == [3]
    np.testing.assert_array_equal(labels, np.arange(len(x)))


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


def test_a_dead_unit_is_constant_after_a_batch_norm():
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


def test_planted_units_are_counted():
    model, layer, x = planted_dense(0)
    counts = count(model, x).layers[layer]
    assert counts.dead[DEAD].all() and counts.always_on[ALWAYS_ON].all()
    assert counts.active[RARE] == 2 and counts.rarely_active[RARE] and not counts.dead[RARE]
    assert not counts.dead[RARE:].any() and not counts.always_on[RARE:].any()


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
def test_layers_recorded_in_training_mode_are_counted_as_in_predict(name):
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(AS_TRAINING[name](inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(32, "relu", name="fc")(x)))
    images = np.random.default_rng(0).random((40, 8, 8, 3)).astype("float32")
    initial, expected = [np.array(v) for v in model.variables], by_predict(model, images)
    for _ in range(2):
        np.testing.assert_array_equal(count(model, images).layers["fc"].active, expected)
    for expected_value, variable in zip(initial, model.variables, strict=True):
        np.testing.assert_array_equal(expected_value, np.array(variable))


def test_a_layer_named_twice_is_counted_once():
    model, layer, x = planted_dense(0)
    output = model.layers[-1].name
    twice = count(model, x, [layer, layer, output])
    assert list(twice.layers) == [layer, output]
    assert twice.figures() == count(model, x, [layer, output]).figures()


def test_a_layer_that_is_called_twice_is_counted_where_it_is_called_first():
    shared, inputs = layers.Dense(6, "relu", name="shared"), keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(shared(shared(inputs))))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    kernel, bias = shared.get_weights()
    expected = (x @ kernel + bias <= 0).mean()
    assert count(model, x, ["shared"]).figures()["dead/shared/per_input"] == pytest.approx(expected)


def test_several_inputs_and_several_layers():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    first = layers.Dense(4, "relu", name="one")(a)
    second = layers.Dense(5, "relu", name="two")(b)
    model = keras.Model([a, b], layers.Dense(1)(layers.Concatenate()([first, second])))
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


def test_leaky_relus_by_slope_are_silent_on_their_negative_side():
    inputs = keras.Input((6,))
    x = layers.Dense(9, name="linear")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.LeakyReLU(negative_slope=0.2, name="leaky")(x)))
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    assert count(model, x).figures()["dead/leaky/per_input"] == 0
    kernel, bias = model.get_layer("linear").get_weights()
    expected = (x @ kernel + bias < 0).sum(0)
    counts = count(model, x, by="slope", eps=0.2).layers["leaky"]
    np.testing.assert_array_equal(counts.active, 50 - expected)
    assert count(model, x, by="slope", eps=0.1).figures()["dead/leaky/per_input"] == 0


def test_an_output_without_a_slope_is_reported():
    model, x, _ = sequence_model(layers.LSTM(9, name="l"))
    with pytest.raises(UsageError, match="by='slope' needs an activation; 'l' is counted at its output"):
        count(model, x, ["l"], by="slope")
    inputs = keras.Input((5, 6))
    h = layers.Dense(4, "relu", name="fc")(layers.LSTM(9, name="l")(inputs))
    census = count(keras.Model(inputs, layers.Dense(2)(h)), x, "all", by="slope")
    assert list(census.layers) == ["fc"]
    assert census.not_looked_at == {"l": "an output, which has no slope"}


def test_counting_changes_neither_the_model_nor_its_config(tmp_path):
    model, _, x = planted_conv(0)
    initial, nodes = model.get_weights(), [len(layer._inbound_nodes) for layer in model.layers]
    config = model.get_config()
    count(model, x, "all")
    assert model.get_config() == config
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    for expected, actual in zip(initial, model.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, actual)
    dense, layer, x = planted_dense(0)
    activation = dense.get_layer(layer).activation
    count(dense, x)
    assert dense.get_layer(layer).activation is activation


def test_layers_and_thresholds_that_cannot_be_counted():
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


def test_many_models_are_counted_without_a_warning_of_retracing(caplog):
    """TensorFlow warns from the fifth tracing of one function on, and every model is traced once."""
    x = np.ones((4, 3), "float32")
    for _ in range(8):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(2)])
        assert len(count(model, x).layers) == 1
    assert [record.message for record in caplog.records if "retracing" in record.message] == []


def test_dead_after_so_many_inputs_is_numpys_in_batches_and_in_parts():
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(64, "relu", name="fc"), keras.layers.Dense(3)]
    )
    kernel, _ = model.get_layer("fc").get_weights()
    model.get_layer("fc").set_weights([kernel, np.linspace(-3, 0, 64, dtype="float32")])
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    active = keras.Model(model.inputs, model.get_layer("fc").output).predict(x, verbose=0) > 0
    whole = count(model, x, batch_size=77)
    parts = [count(model, x[start:stop], first=start) for start, stop in ((150, 200), (0, 9), (9, 150))]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    for counts in (whole.layers["fc"], merged.layers["fc"]):
        for inputs in range(201):
            assert (counts.dead_after(inputs) == ~active[:inputs].any(0)).all()
    assert 0 < whole.layers["fc"].dead.sum() < whole.layers["fc"].dead_after(1).sum()
    with pytest.raises(UsageError, match="first must be a whole number of at least 0, got -1"):
        count(model, x, first=-1)
