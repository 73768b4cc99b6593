"""Centring, scaling and batch noise against NumPy, in training and in inference, with their gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.layers import BatchCentering, BatchNoise, BatchScaling, FrozenCentering, FrozenScaling
from tests.layers.numerics import SHAPES, batch, compare_gradients, drawn_mask, weights_like

EPSILON, MOMENTUM = 0.01, 0.8
KINDS = {"center": BatchCentering, "scale": BatchScaling, "noise": BatchNoise}


def make(kind, *, rank=2, **options):
    layer = KINDS[kind](**{"epsilon": EPSILON, "momentum": MOMENTUM, **options})
    layer.build((*[None] * (rank - 1), 4))
    weights_like(layer)
    return layer


def masked_moments(x, mask):
    retained = x[mask]
    return (retained.mean(0), retained.var(0)) if len(retained) else (np.zeros(4), np.zeros(4))


def reference(kind, layer):
    """`train(x, mask, at) -> y`; terms without gradient are computed from `at`."""
    moving_mean, moving_variance = (
        np.asarray(v, "float64") for v in (layer.moving_mean, layer.moving_variance)
    )
    step = int(layer.step) if kind == "noise" else 0

    def train(x, mask, at):
        mean, variance = masked_moments(x, mask)
        if kind == "center":
            return x - mean
        if kind == "scale":
            return x / np.sqrt(variance + EPSILON)
        if step == 0:
            return x
        mean, variance = masked_moments(at, mask)
        moving_deviation = np.sqrt(moving_variance + EPSILON)
        z, settled = (at - mean) / np.sqrt(variance + EPSILON), (at - moving_mean) / moving_deviation
        return x + moving_deviation * (z - settled)

    return train


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_mask", [False, True])
def test_training_against_numpy_over_several_steps(kind, shape, with_mask):
    layer = make(kind, rank=len(shape))
    for step in range(9):
        x = batch(shape, step)
        mask = drawn_mask(shape, step) if with_mask else np.ones(shape[:-1], bool)
        mask_or_none = mask if with_mask else None
        train, at = reference(kind, layer), x.astype("float64")
        if step in (0, 8):
            twin = make(kind, rank=len(shape))
            twin.set_weights(layer.get_weights())
            compare_gradients(twin, x, lambda y, m=mask, t=train, a=at: t(y, m, a), mask_or_none)
        mean, variance = masked_moments(at, mask)
        retained = min(step / (step + 1), MOMENTUM) if kind == "noise" else MOMENTUM
        after = [
            np.asarray(v) * retained + m * (1 - retained)
            for v, m in zip(layer.weights, (mean, variance), strict=False)
        ]
        np.testing.assert_allclose(
            layer(x, training=True, mask=mask_or_none), train(at, mask, at), rtol=2e-4, atol=2e-4
        )
        np.testing.assert_allclose(layer.moving_mean, after[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, after[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_inference_uses_the_moving_averages_and_only_its_part(kind):
    layer, x = make(kind), batch((5, 4))
    expected = {
        "center": x - layer.moving_mean,
        "scale": x / np.sqrt(layer.moving_variance + EPSILON),
        "noise": x,
    }[kind]
    weights = layer.get_weights()
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    layer.trainable = False
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-5, atol=1e-6)
    for actual, expected in zip(layer.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("frozen", "kind"), [(FrozenCentering, "center"), (FrozenScaling, "scale")])
@pytest.mark.parametrize("shape", SHAPES)
def test_frozen_parts_compute_in_training_what_they_compute_in_inference(frozen, kind, shape):
    layer = frozen(epsilon=EPSILON, momentum=MOMENTUM)
    layer.build(shape)
    weights_like(layer)
    weights, x = layer.get_weights(), batch(shape)
    mean, variance = weights
    expected = x - mean if kind == "center" else x / np.sqrt(variance + EPSILON)
    for training in (True, False):
        np.testing.assert_allclose(layer(x, training=training), expected, rtol=1e-5, atol=1e-6)
    compare_gradients(layer, x, lambda y: y - mean if kind == "center" else y / np.sqrt(variance + EPSILON))
    for old, new in zip(weights, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is frozen and again.epsilon == EPSILON


def test_centring_then_scaling_is_a_batch_norm_without_gain_and_offset():
    x = batch((9, 4))
    norm = keras.layers.BatchNormalization(center=False, scale=False, epsilon=EPSILON)
    parts = make("scale")(make("center")(x, training=True), training=True)
    np.testing.assert_allclose(parts, norm(x, training=True), rtol=1e-4, atol=1e-5)


def test_noise_hands_gradients_through_and_vanishes_in_inference():
    layer = make("noise")
    layer.step.assign(5)
    x = tf.constant(batch((6, 4)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * 3.0)
    np.testing.assert_allclose(tape.gradient(loss, x), 3.0)
    assert np.abs(y - x).max() > 0.1
    np.testing.assert_array_equal(layer(x), x)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_computes_in_float32(kind):
    full, half = make(kind), make(kind, dtype="mixed_bfloat16")
    half.set_weights(full.get_weights())
    rounded = tf.cast(batch((9, 4)), "bfloat16")
    expected, actual = full(tf.cast(rounded, "float32"), training=True), half(rounded, training=True)
    assert actual.dtype == "bfloat16" and half.moving_variance.dtype == "float32"
    np.testing.assert_allclose(tf.cast(actual, "float32"), expected, rtol=0.01, atol=0.02)
    np.testing.assert_allclose(half.moving_variance, full.moving_variance, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_they_serialise_with_all_their_settings(kind):
    layer = make(kind, name="part")
    saved = keras.saving.serialize_keras_object(layer)
    assert saved["registered_name"] == f"bnhead>{KINDS[kind].__name__}"
    again = keras.saving.deserialize_keras_object(saved)
    assert type(again) is KINDS[kind] and (again.momentum, again.epsilon) == (MOMENTUM, EPSILON)
