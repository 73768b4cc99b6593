"""Ghost, renorm and frozen batch norm against NumPy, in training and in inference, with their gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.layers import (
    BatchRenormalization,
    FrozenBatchNormalization,
    GhostBatchNormalization,
)
from tests.layers.numerics import SHAPES, batch, compare_gradients, drawn_mask, weights_like

EPSILON, MOMENTUM = 0.01, 0.8
KINDS = {
    "ghost": (GhostBatchNormalization, {"ghost_size": 2}),
    "renorm": (BatchRenormalization, {"steps": 16, "r_max": 1.5, "d_max": 0.4}),
    "frozen": (FrozenBatchNormalization, {}),
}


def make(kind, *, rank=2, **options):
    layer_type, settings = KINDS[kind]
    layer = layer_type(**{"epsilon": EPSILON, "momentum": MOMENTUM, **settings, **options})
    layer.build((*[None] * (rank - 1), 4))
    weights_like(layer)
    return layer


def state(layer):
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    values = {
        name: np.asarray(getattr(layer, name), "float64")
        for name in names
        if getattr(layer, name) is not None
    }
    return {"gamma": 1.0, "beta": 0.0, **values}


def masked_moments(x, mask):
    counted = x[mask]
    return (
        (counted.mean(0), counted.var(0)) if len(counted) else (np.zeros(x.shape[-1]), np.zeros(x.shape[-1]))
    )


def reference(kind, layer):
    """`train(x, mask) -> y` of a layer; terms without gradient are computed once, from `at`."""
    current = state(layer)

    def affine(z):
        return current["gamma"] * z + current["beta"]

    if kind == "frozen":
        deviation = np.sqrt(current["moving_variance"] + EPSILON)
        return lambda x, mask, at: affine((x - current["moving_mean"]) / deviation)
    if kind == "ghost":

        def ghost(x, mask, at):
            parts = np.arange(len(x)) * max(1, len(x) // layer.ghost_size) // len(x)
            y = np.zeros_like(x)
            for part in set(parts):
                rows = parts == part
                mean, variance = masked_moments(x[rows], mask[rows])
                y[rows] = (x[rows] - mean) / np.sqrt(variance + EPSILON)
            return affine(y)

        return ghost
    progress = float(layer.step) / layer.steps
    r_max = 1 + (layer.r_max - 1) * np.clip((progress - 1 / 8) / (7 / 8), 0, 1)
    d_max = layer.d_max * np.clip((progress - 1 / 8) / (1 / 2), 0, 1)

    def renorm(x, mask, at):
        moving = np.sqrt(current["moving_variance"] + EPSILON)
        mean, variance = masked_moments(at, mask)
        r = np.clip(np.sqrt(variance + EPSILON) / moving, 1 / r_max, r_max)
        d = np.clip((mean - current["moving_mean"]) / moving, -d_max, d_max)
        mean, variance = masked_moments(x, mask)
        return affine((x - mean) / np.sqrt(variance + EPSILON) * r + d)

    return renorm


def updated(kind, layer, x, mask):
    """The moving averages after a training step on `x`."""
    current = state(layer)
    mean, variance = masked_moments(x, mask)
    if kind == "frozen":
        return current["moving_mean"], current["moving_variance"]
    moved = current["moving_mean"] * MOMENTUM + mean * (1 - MOMENTUM)
    if kind == "ghost":
        return moved, current["moving_variance"] * MOMENTUM + variance * (1 - MOMENTUM)
    deviation = np.sqrt(current["moving_variance"] + EPSILON) * MOMENTUM
    deviation += np.sqrt(variance + EPSILON) * (1 - MOMENTUM)
    return moved, deviation**2 - EPSILON


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_mask", [False, True])
def test_training_against_numpy_over_several_steps(kind, shape, with_mask):
    layer = make(kind, rank=len(shape))
    for step in range(12):
        x = batch(shape, step)
        mask = drawn_mask(shape, step) if with_mask else np.ones(shape[:-1], bool)
        wanted, after = reference(kind, layer), updated(kind, layer, x.astype("float64"), mask)
        if step in (0, 11) and (kind != "renorm" or shape[0] > 1):
            expected_gradient = lambda y, x=x, mask=mask, wanted=wanted: wanted(y, mask, x.astype("float64"))  # noqa: E731
            compare_gradients(make_twin(kind, layer), x, expected_gradient, mask if with_mask else None)
        y = layer(x, training=True, mask=mask if with_mask else None)
        np.testing.assert_allclose(
            y, wanted(x.astype("float64"), mask, x.astype("float64")), rtol=2e-4, atol=2e-4
        )
        np.testing.assert_allclose(layer.moving_mean, after[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, np.maximum(after[1], 0), rtol=1e-4, atol=1e-5)


def make_twin(kind, layer):
    twin = make(kind, rank=layer.input_spec.ndim)
    twin.set_weights(layer.get_weights())
    return twin


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}])
def test_inference_is_a_batch_norms(kind, options):
    layer = make(kind, **options)
    current, x, weights = state(layer), batch((5, 4)), layer.get_weights()
    expected = (
        current["gamma"] * (x - current["moving_mean"]) / np.sqrt(current["moving_variance"] + EPSILON)
        + current["beta"]
    )
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    layer.trainable = False
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-5)
    for full_outputs, half_outputs in zip(layer.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(full_outputs, half_outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_computes_in_float32_and_keeps_float32_statistics(kind):
    full, half = make(kind), make(kind, dtype="mixed_bfloat16")
    half.set_weights(full.get_weights())
    x = batch((9, 4))
    rounded = tf.cast(tf.cast(x, "bfloat16"), "float32")
    full_outputs, half_outputs = full(rounded, training=True), half(tf.cast(x, "bfloat16"), training=True)
    assert half_outputs.dtype == "bfloat16" and half.moving_variance.dtype == "float32"
    np.testing.assert_allclose(tf.cast(half_outputs, "float32"), full_outputs, rtol=0.01, atol=0.02)
    np.testing.assert_allclose(half.moving_variance, full.moving_variance, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_they_serialise_with_all_their_settings(kind):
    layer = make(kind, name="norm", center=False)
    saved = keras.saving.serialize_keras_object(layer)
    assert saved["registered_name"] == f"bnhead>{type(layer).__name__}"
    again = keras.saving.deserialize_keras_object(saved)
    assert type(again) is type(layer) and again.get_config() == layer.get_config()
    for name, value in KINDS[kind][1].items():
        assert layer.get_config()[name] == value


def test_one_running_update_per_step_whatever_the_number_of_ghosts():
    x = batch((48, 4))
    moved = []
    for size in (2, 7, 16, 48):
        layer = make("ghost", ghost_size=size)
        layer(x, training=True)
        moved.append(np.asarray(layer.moving_variance))
    for half_outputs in moved[1:]:
        np.testing.assert_allclose(moved[0], half_outputs, rtol=1e-6)


def test_one_ghost_is_a_batch_norm():
    x = batch((9, 4))
    ghost, norm = (
        make("ghost", ghost_size=9),
        keras.layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM),
    )
    norm.build((None, 4))
    norm.set_weights(ghost.get_weights())
    np.testing.assert_allclose(ghost(x, training=True), norm(x, training=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ghost.moving_variance, norm.moving_variance, rtol=1e-5)


def test_renorm_agrees_with_kerass_where_both_can_do_the_same():
    """Keras' `renorm=True` with constant bounds is our layer after its schedule."""
    ours = BatchRenormalization(steps=1, r_max=1.5, d_max=0.4, momentum=0.9, epsilon=1e-6)
    clipping = {"rmax": 1.5, "rmin": 1 / 1.5, "dmax": 0.4}
    theirs = keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-6, renorm=True, renorm_clipping=clipping, renorm_momentum=0.9
    )
    for layer in (ours, theirs):
        layer.build((None, 4))
    ours.step.assign(1)
    for step in range(5):
        x = batch((9, 4), step)
        np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("step", "r_max", "d_max"),
    [
        (0, 1, 0),
        (5000, 1, 0),
        (15000, 1 + 2 * 10 / 35, 2.5),
        (25000, 1 + 2 * 20 / 35, 5),
        (40000, 3, 5),
        (90000, 3, 5),
    ],
)
def test_renorm_follows_the_papers_schedule(step, r_max, d_max):
    layer = BatchRenormalization()
    layer.build((None, 4))
    layer.step.assign(step)
    np.testing.assert_allclose([float(bound) for bound in layer.bounds()], [r_max, d_max], rtol=1e-6)


def test_frozen_statistics_stay_while_gain_and_offset_train():
    layer = make("frozen")
    mean = np.asarray(layer.moving_mean)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(batch((5, 4)), training=True)))
    gradients = tape.gradient(loss, layer.trainable_weights)
    assert len(gradients) == 2 and all(np.abs(g).min() > 0 for g in gradients)
    np.testing.assert_array_equal(layer.moving_mean, mean)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (
            lambda: GhostBatchNormalization(ghost_size=1),
            "ghost_size must be a whole number of at least 2, got 1",
        ),
        (lambda: GhostBatchNormalization(axis=1), "axis must be -1, got 1"),
        (lambda: GhostBatchNormalization(renorm=True), "GhostBatchNormalization takes no renorm"),
        (lambda: BatchRenormalization(r_max=0.5), "steps, r_max and d_max must be at least 1, 1 and 0"),
    ],
)
def test_bad_settings_are_said(make_bad, message):
    with pytest.raises(ValueError, match=message):
        make_bad()


@pytest.mark.parametrize("jit", [False, True])
def test_a_graph_with_an_unknown_batch_size_runs(jit):
    layer = make("ghost", ghost_size=3)
    function = tf.function(
        lambda x: layer(x, training=True),
        input_signature=None if jit else [tf.TensorSpec((None, 4))],
        jit_compile=jit,
    )
    x = batch((8, 4))
    np.testing.assert_allclose(
        function(x), make("ghost", ghost_size=3)(x, training=True), rtol=1e-4, atol=1e-5
    )


def test_in_pure_bfloat16_ghosts_average_in_bfloat16():
    """The moving averages are bfloat16 variables there, and each step rounds, as with Keras' batch norm."""
    layer = make("ghost", dtype="bfloat16")
    before = tf.identity(layer.moving_mean)
    x = tf.cast(np.random.default_rng(0).normal(size=(4, 4)), "bfloat16")
    layer(x, training=True)
    mean = tf.cast(tf.reduce_mean(tf.cast(x, "float32"), 0), "bfloat16")
    expected = before * tf.cast(MOMENTUM, "bfloat16") + mean * tf.cast(1 - MOMENTUM, "bfloat16")
    assert layer.moving_mean.dtype == "bfloat16"
    np.testing.assert_array_equal(tf.cast(layer.moving_mean, "float32"), tf.cast(expected, "float32"))
