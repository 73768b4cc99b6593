"""Planted causes of death, and a search for inputs that make certified units fire."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from bnhead import census
from bnhead.errors import UsageError

UNITS = 12
ENDS = {"sigmoid": (0, 1), "tanh": (-1, 1)}  # of a box, else [0, 6]
WEIGHT_DEAD, BIAS_DEAD, UNUSED = slice(0, 3), slice(3, 6), slice(6, 9)


def planted(kernel, low, high):
    """Kernel and bias of units that are weight-dead, bias-dead, unused on most inputs, and free.

    The bias of a bias-dead unit lies one per cent below the greatest sum of its weighted inputs, that of an
    unused unit one per cent above; `low` and `high` bound the inputs.
    """
    rng = np.random.default_rng(1)
    kernel = kernel * 1.0
    kernel[..., WEIGHT_DEAD] = 0
    ends, axes = (kernel * low, kernel * high), tuple(range(kernel.ndim - 1))
    most, size = np.maximum(*ends).sum(axes), np.maximum(*np.abs(ends)).sum(axes)
    bias = -most + rng.uniform(0.3, 0.7, UNITS) * size
    bias[WEIGHT_DEAD] = -0.1
    bias[BIAS_DEAD], bias[UNUSED] = (-most - 0.01 * size)[BIAS_DEAD], (-most + 0.01 * size)[UNUSED]
    return kernel.astype("float32"), bias.astype("float32")


def build(case):
    """A model whose layer "units" has planted causes of death."""
    rng = np.random.default_rng(0)
    x = inputs = keras.Input((5, 5, 4))
    low, high = ENDS.get(case, (0, 6))
    x = layers.Activation(case if case in ENDS else "relu6")(x)
    if case == "pooled":
        x = layers.Dropout(0.5)(layers.MaxPooling2D(2)(layers.AveragePooling2D(1)(x)))
    if case == "concatenated":
        x = layers.Concatenate()([x, layers.Activation("relu6")(layers.Rescaling(2.0)(inputs))])
    if case == "norm before":
        norm = layers.BatchNormalization()
        x = norm(x)
        norm.set_weights([*rng.normal(size=(3, 4)), rng.uniform(0.5, 2, 4)])
        gamma, beta, mean, variance = (np.asarray(w, float) for w in norm.get_weights())
        ends = [gamma * (end - mean) / np.sqrt(variance + norm.epsilon) + beta for end in (0, 6)]
        low, high = np.minimum(*ends)[:, None], np.maximum(*ends)[:, None]
    linear = layers.Dense(UNITS) if case == "dense" else layers.Conv2D(UNITS, 2)
    x = linear(layers.GlobalMaxPooling2D()(x) if case == "dense" else x)
    linear.set_weights(planted(rng.normal(size=linear.kernel.shape), low, high))
    if case == "norm after":
        norm = layers.BatchNormalization()
        x = norm(x)
        scale, mean = rng.uniform(0.5, 2, UNITS), rng.normal(size=UNITS)
        shift = scale * mean / np.sqrt(1 + norm.epsilon)  # it undoes the mean
        norm.set_weights([scale, shift, mean, np.ones(UNITS)])
    x = layers.ReLU(name="units")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


CASES = ["dense", "relu6", "sigmoid", "tanh", "pooled", "concatenated", "norm before", "norm after"]


@pytest.mark.parametrize("case", CASES)
def test_planted_causes_are_found(case):
    model = build(case)
    certificate = census.certify(model)["units"]
    expected = np.zeros((2, UNITS), bool)
    expected[0, WEIGHT_DEAD] = expected[1, BIAS_DEAD] = True
    np.testing.assert_array_equal(certificate.weight_dead, expected[0])
    np.testing.assert_array_equal(certificate.bias_dead, expected[1])
    np.testing.assert_array_equal(certificate.certified, expected.any(0))
    assert certificate.covers == "any input"
    x = np.random.default_rng(0).normal(size=(100, 5, 5, 4)).astype("float32")
    counts = census.count(model, x).layers["units"]
    np.testing.assert_array_equal(counts.certified, expected.any(0))
    np.testing.assert_array_equal(counts.weight_dead, expected[0])
    np.testing.assert_array_equal(counts.bias_dead, expected[1])
    np.testing.assert_array_equal(counts.unused, counts.dead & ~expected.any(0))
    figures = {name: counts.figures()[name] for name in ("certified", "weight_dead", "bias_dead", "unused")}
    expected = {"certified": 0.5, "weight_dead": 0.25, "bias_dead": 0.25, "unused": counts.dead.mean() - 0.5}
    assert figures == pytest.approx(expected)
    assert counts.unused[UNUSED].all()


@pytest.mark.parametrize("case", CASES)
def test_no_certified_unit_fires_and_every_other_unit_does(case):
    """10,000 inputs in the box: the corner to which a unit's gradient points, and random changes of it."""
    model, rng = build(case), np.random.default_rng(0)
    certified = census.certify(model)["units"].certified
    low, high = (-20, 20) if case in ENDS else (0, 6)  # of the model's input
    units = model.get_layer("units")
    before, after = keras.Model(model.input, units.input), keras.Model(model.input, units.output)
    fired, tried = np.zeros(UNITS, bool), 0
    for unit in range(UNITS):
        x = np.where(case in ENDS, 0, 3) * np.ones((1, 5, 5, 4), "float32")
        corners = []
        for _ in range(4):
            slope = gradient(before, x, unit)
            for towards in (slope, slope.sum((1, 2), keepdims=True)):  # at a position, and at all
                corners.append(np.where(towards > 0, high, low) * np.ones_like(x))
            x = corners[-2].astype("float32")
        corners = np.concatenate(corners)
        others = rng.choice([low, high], (105, *corners.shape))
        changed = rng.random(others.shape) < rng.choice([0, 0.01, 0.1, 0.5], (105, 1, 1, 1, 1))
        inputs = np.where(changed, others, corners).reshape(-1, 5, 5, 4).astype("float32")
        output = ops.convert_to_numpy(after(inputs, training=False))
        fired |= (output != 0).reshape(-1, UNITS).any(0)
        tried += len(inputs)
    assert tried >= 10_000
    assert not fired[certified].any()
    assert fired[~certified].all() or case == "concatenated"  # whose channels share their inputs


def gradient(model, x, unit):
    """`(1, height, width, channels)`, of the unit's output at one position."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        values = tf.convert_to_tensor(x)
        tape.watch(values)
        output = model(values, training=False)
        output = output[..., unit] if len(output.shape) == 2 else output[:, 0, 0, unit]
    return tape.gradient(output, values).numpy()


def test_the_head_of_a_deployed_net():
    """As in a net in use: 144 of 256 units have no weights, 8 no positive ones; they read pooled ReLUs."""
    inputs = keras.Input((4, 4, 64))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(inputs)))
    head = layers.Dense(256, "relu", name="head")
    model = keras.Model(inputs, layers.Dense(5)(layers.Dropout(0.5)(head(x))))
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(64, 256)), rng.normal(size=256)
    kernel[:, :144], bias[:144] = 0, -rng.uniform(0.01, 1, 144)
    kernel[:, 144:152], bias[144:152] = -np.abs(kernel[:, 144:152]), [0, 0, 0, 0, -1, -1, -1, -1]
    bias[152:160] = -1e6  # they wake for features that are large enough
    head.set_weights([kernel, bias])
    certificate = census.certify(model)["head"]
    np.testing.assert_array_equal(certificate.certified, np.arange(256) < 152)
    np.testing.assert_array_equal(certificate.weight_dead, np.arange(256) < 144)
    assert str(certificate) == (
        "<Certificate: 152 of 256 units cannot fire (144 weight-dead, 8 bias-dead); covers any input>"
    )
    x = rng.normal(size=(32, 4, 4, 64)).astype("float32")
    counts = census.count(model, x).layers["head"]
    assert counts.unused[152:160].all()
    observed = census.certify(model, data=x)["head"]
    assert observed.certified[:160].all()
    assert observed.covers == "inputs within the ranges observed on 32 inputs"


def test_a_unit_that_its_batch_norm_silences_is_weight_dead():
    inputs = keras.Input((3,))
    norm = layers.BatchNormalization()
    x = layers.ReLU(name="units")(norm(layers.Dense(4)(layers.ReLU()(inputs))))
    norm.set_weights(list(np.array([[0, 1, 1, 0], [-1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], float)))
    certificate = census.certify(keras.Model(inputs, layers.Dense(1)(x)))["units"]
    assert certificate.weight_dead.tolist() == [True, False, False, False]
    assert certificate.upper[0] == pytest.approx(-1, rel=1e-3)


def test_a_layer_that_is_called_twice_is_certified_for_both_calls():
    inputs = keras.Input((3,))
    shared = layers.Dense(2, "relu", name="shared")
    x = layers.Concatenate()([shared(layers.ReLU()(inputs)), shared(inputs)])
    model = keras.Model(inputs, layers.Dense(1)(x))
    shared.set_weights([np.array([[-1, 0], [-1, 0], [-1, 0]]), np.array([0, -1])])
    for certificate in census.certify(model, "all").values():
        if certificate.units == 2:
            assert certificate.certified.tolist() == [False, True]


def test_a_nested_model_continues_the_boxes():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2, "relu", name="fc")], name="inner")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(1)(inner(layers.Activation("sigmoid")(inputs))))
    inner.get_layer("fc").set_weights([np.ones((3, 2)), np.array([-3.1, -2.9])])
    assert census.certify(model)["inner/fc"].certified.tolist() == [True, False]
    assert census.certify(inner, ["fc"])["fc"].certified.tolist() == [False, False]


def test_training_mode_has_its_own_bounds():
    inputs = keras.Input((3,))
    norm, fc = layers.BatchNormalization(), layers.Dense(2, "relu", name="fc")
    model = keras.Model(inputs, layers.Dense(1)(fc(norm(inputs))))
    fc.set_weights([np.ones((3, 2)), np.array([-8, -7])])  # |z| <= sqrt(7), three times
    assert not census.certify(model)["fc"].certified.any()
    certificate = census.certify(model, training_batch=8)["fc"]
    assert certificate.certified.tolist() == [True, False]
    assert certificate.covers == "any input, in training by batches of 8"
    with pytest.raises(UsageError, match="training_batch must be at least 1, got 0"):
        census.certify(model, training_batch=0)
    with pytest.raises(UsageError, match="training_batch needs no data"):
        census.certify(model, data=np.zeros((2, 3)), training_batch=8)


def test_weights_that_are_not_finite_certify_nothing():
    inputs = keras.Input((3,))
    fc = layers.Dense(2, "relu", name="fc")
    model = keras.Model(inputs, layers.Dense(1)(fc(layers.ReLU()(inputs))))
    fc.set_weights([np.array([[-1, -1], [np.nan, -1], [-1, -np.inf]]), np.array([-1, -1])])
    assert not census.certify(model)["fc"].certified.any()


def test_a_subclassed_model_has_no_certificates():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc, self.out = layers.Dense(4, "relu", name="fc"), layers.Dense(1)

        def call(self, x):
            return self.out(self.fc(x))

    net, x = Net(), np.ones((2, 3), "float32")
    net(x)
    counts = census.count(net, x).layers["fc"]
    assert counts.certified is counts.unused is None
    assert "certified" not in counts.figures()
    with pytest.raises(UsageError, match="must be functional or Sequential"):
        census.certify(net, data=x)


def test_counts_merge_what_both_certify_and_stay_in_files():
    model = build("dense")
    x = np.random.default_rng(0).normal(size=(20, 5, 5, 4)).astype("float32")
    first, second = (census.count(model, part) for part in (x[:8], x[8:]))
    merged = census.Census.from_dict(first.merge(second).to_dict()).layers["units"]
    np.testing.assert_array_equal(merged.causes, first.layers["units"].causes)
    second.layers["units"].causes[0] = 0
    assert not first.merge(second).layers["units"].certified[0]
    second.layers["units"].causes = None
    assert first.merge(second).layers["units"].certified is None
