"""Bounds against sums in the plainest way, and against what layers compute on values in their boxes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from bnhead.census.intervals import bounds_of
from bnhead.census.layer_rules import IN_EVALUATION, Mode
from tests.census.boxed import MAP, on, slow_bounds

ENDS = {"relu6": (0, 6), "sigmoid": (0, 1), "tanh": (-1, 1)}


def bounds(model, mode=IN_EVALUATION):
    """`(units,)` twice: the bounds of the last layer."""
    last = model.outputs[0]._keras_history.operation
    bounded = bounds_of(model, {last.name}, mode)[last.name]
    return bounded.after.along(bounded.axis, model.outputs[0].shape[-1])


@pytest.mark.parametrize("activation", ENDS)
@pytest.mark.parametrize(
    ("made", "holds_zero"),
    [
        (lambda: [layers.Flatten(), layers.Dense(5)], False),
        (lambda: [layers.Conv2D(5, 3)], False),
        (lambda: [layers.Conv2D(5, 3, padding="same")], True),
        (lambda: [layers.Conv2D(5, 3, strides=2, dilation_rate=1)], False),
        (lambda: [layers.ZeroPadding2D(1), layers.Conv2D(5, 3)], True),
        (lambda: [layers.GlobalAveragePooling2D(), layers.Dense(5)], False),
        (lambda: [layers.MaxPooling2D(2, padding="same"), layers.Conv2D(5, 2)], False),
    ],
)
def test_a_linear_layer_has_the_bounds_of_its_terms(activation, made, holds_zero):
    made = made()
    model = on(activation, *made)
    low, high = ENDS[activation]
    if holds_zero:
        low, high = min(low, 0), max(high, 0)
    least, most = slow_bounds(low, high, *made[-1].get_weights())
    actual = bounds(model)
    np.testing.assert_allclose(actual, (least, most), rtol=0.02)
    assert (actual[0] <= least).all()
    assert (actual[1] >= most).all()


def test_a_padding_brings_zero_into_the_box():
    def of(padding):
        conv = layers.Conv2D(1, 3, padding=padding, use_bias=False)
        model = on("sigmoid", layers.Rescaling(1.0, offset=1.0), conv)  # values in [1, 2]
        conv.set_weights([np.full((3, 3, 4, 1), -1.0)])
        return bounds(model)

    np.testing.assert_allclose(of("valid"), [[-72], [-36]], rtol=5e-3)
    np.testing.assert_allclose(of("same"), [[-72], [0]], rtol=5e-3)


def test_a_sum_without_positive_terms_has_no_margin():
    model = on("relu", layers.GlobalMaxPooling2D(), layers.Dense(3))
    kernel = np.array([[-1, -1, 1], [0, -2, -1], [0, 0, -3], [-5, -1, 0]], "float32")
    model.layers[-1].set_weights([kernel, np.array([-0.5, 0, -9], "float32")])
    low, high = bounds(model)
    np.testing.assert_allclose(high, [-0.5, 0, np.inf], rtol=2e-3)
    assert high[0] <= -0.49
    assert high[1] == 0
    assert (low == -np.inf).all()


@pytest.mark.parametrize(
    "made",
    [
        lambda: [layers.BatchNormalization()],
        lambda: [layers.BatchNormalization(axis=2)],
        lambda: [layers.Conv2D(5, 3), layers.BatchNormalization(), layers.ReLU()],
        lambda: [layers.BatchNormalization(), layers.Conv2D(5, 3, activation="elu")],
        lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")],
        lambda: [layers.SeparableConv2D(5, 3, activation="leaky_relu")],
        lambda: [layers.Conv2D(6, 3, groups=2)],
        lambda: [layers.Conv2DTranspose(3, 3, strides=2)],
        lambda: [layers.AveragePooling2D(2, padding="same"), layers.Flatten(), layers.Dense(4, "gelu")],
        lambda: [layers.Reshape((9, 16)), layers.Conv1D(3, 2), layers.GlobalMaxPooling1D()],
        lambda: [layers.Permute((3, 1, 2)), layers.Conv2D(3, 2, activation="selu")],
        lambda: [lambda x: layers.Concatenate()([x, -2.0 * x]), layers.Conv2D(3, 2)],
        lambda: [lambda x: layers.Add()([x, layers.Conv2D(4, 3, padding="same")(x)]), layers.ReLU(3.0)],
        lambda: [lambda x: layers.Multiply()([x, layers.Dense(4, "sigmoid")(x)])],
        lambda: [lambda x: layers.Subtract()([x, layers.Dense(4, "softplus")(x)])],
        lambda: [lambda x: layers.Average()([x, layers.Dense(4, "mish")(x)])],
        lambda: [lambda x: ops.maximum(x / 3 - 1, layers.Dense(4, "silu")(x)), layers.Dense(2)],
        lambda: [lambda x: ops.relu(layers.Dense(4)(x) * ops.sigmoid(x)), layers.Dropout(0.5)],
        lambda: [layers.UpSampling2D(2, interpolation="bilinear"), layers.Cropping2D(1), layers.Dense(2)],
        lambda: [layers.Reshape((36, 4)), layers.LSTM(3)],
        lambda: [layers.Normalization(mean=[0.1, 2, 3, 4], variance=[1, 2, 3, 9]), layers.Dense(3)],
        lambda: [layers.ReLU(threshold=0.5), layers.ReLU(negative_slope=0.1), layers.Dense(3)],
        lambda: [layers.GaussianNoise(1.0), layers.Activation("hard_tanh"), layers.Dense(3, "softmax")],
        lambda: [keras.Sequential([keras.Input(MAP), layers.Dense(3), layers.ReLU()], name="inner")],
    ],
)
def test_no_output_is_outside_of_its_bounds(made):
    model = on("relu6", *made())
    last = model.outputs[0]._keras_history.operation
    name = "inner/" + last.layers[-1].name if last.name == "inner" else last.name
    bounded = bounds_of(model, {name})[name]
    low, high = bounded.after.low, bounded.after.high
    assert np.isfinite(low).all()
    assert np.isfinite(high).all()
    rng = np.random.default_rng(1)
    inputs = [rng.uniform(-3, 9, (200, *MAP)), rng.choice([0.0, 6.0], (200, *MAP))]
    output = ops.convert_to_numpy(model(np.concatenate(inputs).astype("float32"), training=False))
    assert (output >= low).all()
    assert (output <= high).all()


def test_a_batch_norm_in_training_is_bounded_by_its_batch():
    model = on("linear", layers.BatchNormalization(), shape=(4,))
    assert np.isinf(bounds(model)).all()
    gamma, beta, *_ = model.layers[-1].get_weights()
    reach = np.sqrt(8 - 1) * np.abs(gamma)
    np.testing.assert_allclose(bounds(model, Mode(training_batch=8)), [beta - reach, beta + reach], atol=0.01)
    x = np.zeros((8, 4), "float32")
    x[0] = 1e3  # one value far from the others reaches the bound
    output = ops.convert_to_numpy(model(x, training=True))
    np.testing.assert_allclose(output[0], beta + np.sqrt(7) * gamma, rtol=1e-3)


def test_a_dropout_in_training_scales_what_it_keeps():
    model = on("relu6", layers.Dropout(0.75))
    np.testing.assert_allclose(bounds(model, Mode(training_batch=4))[1], 24, rtol=1e-4)


def test_a_half_precision_has_wider_bounds():
    def width(dtype):
        dense = layers.Dense(3, dtype=dtype)
        low, high = bounds(on("sigmoid", layers.Flatten(), dense))
        return high - low

    assert (width("float64") < width("float32")).all()
    assert (width("float32") < width("mixed_float16")).all()
