"""Routed batch norm against NumPy and against Keras' batch norm, alone, in models, and on several devices."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead import heads
from bnhead.errors import UsageError
from bnhead.layers import (
    BatchNormalization,
    GhostBatchNormalization,
    RoutedBatchNormalization,
    RoutedNorm,
    at_route,
    fold_batch_norm,
    on_route,
    plain,
    recompute_batch_stats,
    route_input,
    with_routes,
)
from bnhead.layers.moments import group_moments
from bnhead.models import resnet8
from tests.layers.numerics import SHAPES, batch, compare_gradients, drawn_mask, weights_like

EPSILON, MOMENTUM = 0.01, 0.8
# number of routes -> routes of a batch of any size: mixed, uneven, with routes that no example takes
ROUTES = {1: [0], 2: [1, 1, 0], 5: [3, 0, 3, 1]}


def make(routes, rank=2, **options):
    layer = RoutedBatchNormalization(routes, epsilon=EPSILON, momentum=MOMENTUM, **options)
    layer.build((*[None] * (rank - 1), 4))
    weights_like(layer)
    return layer


def routes_of(shape, routes):
    return np.resize(ROUTES[routes], shape[0])


def array(variable):
    return np.asarray(variable, "float64")


def reference(layer, route):
    """`(x, mask) -> (outputs, moving averages of each route)` after a training step, in float64."""
    state = [
        [array(getattr(branch, name)) for name in ("gamma", "beta", "moving_mean", "moving_variance")]
        for branch in layer.branches
    ]

    def run(x, mask):
        outputs, averages = np.zeros_like(x), []
        for r, (gamma, beta, moving_mean, moving_variance) in enumerate(state):
            rows = np.flatnonzero(route == r)
            counted = x[rows][mask[rows]]
            mean, variance = (counted.mean(0), counted.var(0)) if len(counted) else (0.0, 0.0)
            if len(rows):
                outputs[rows] = gamma * (x[rows] - mean) / np.sqrt(variance + EPSILON) + beta
            step = (1 - MOMENTUM) if len(counted) else 0.0
            averages.append(
                (
                    moving_mean + step * (mean - moving_mean),
                    moving_variance + step * (variance - moving_variance),
                )
            )
        return outputs, averages

    return run


@pytest.mark.parametrize("routes", ROUTES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("with_mask", "routed_affine"), [(False, True), (True, False)])
def test_training_against_numpy_over_several_steps(routes, shape, with_mask, routed_affine):
    layer = make(routes, len(shape), routed_affine=routed_affine)
    for step in range(3):
        x, route = batch(shape, step), np.roll(routes_of(shape, routes), step)
        mask = drawn_mask(shape, step) if with_mask else np.ones(shape[:-1], bool)
        if with_mask and routes == 1 and not mask.any():
            continue  # Keras' own batch norm with nothing to count
        expected, averages = reference(layer, route)(x.astype("float64"), mask)
        outputs = layer(x, route, training=True, mask=mask if with_mask else None)
        np.testing.assert_allclose(outputs, expected, rtol=2e-4, atol=2e-4)
        for branch, (mean, variance) in zip(layer.branches, averages, strict=True):
            np.testing.assert_allclose(branch.moving_mean, mean, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(branch.moving_variance, variance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("routes", [2, 5])
@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("with_mask", [False, True])
def test_gradients_against_numpy(routes, shape, with_mask):
    layer, route = make(routes, len(shape), routed_affine=True), routes_of(shape, routes)
    mask = drawn_mask(shape, 0) if with_mask else np.ones(shape[:-1], bool)
    run = reference(layer, route)

    def called(x, training, mask=None):
        return layer(x, route, training=training, mask=mask)

    compare_gradients(called, batch(shape), lambda x: run(x, mask)[0], mask if with_mask else None)


def test_gradients_of_gamma_and_beta_are_those_of_their_route():
    layer, x, route = make(3, routed_affine=True), batch((6, 4)), np.array([0, 2, 2, 0, 0, 2])
    upstream = batch((6, 4), 1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, route, training=True) * upstream)
    variables = [v for branch in layer.branches for v in (branch.gamma, branch.beta)]
    gradients = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
    for r in range(3):
        rows = route == r
        z = (
            (x[rows] - x[rows].mean(0)) / np.sqrt(x[rows].var(0) + EPSILON)
            if rows.any()
            else np.zeros((0, 4))
        )
        np.testing.assert_allclose(gradients[2 * r], (upstream[rows] * z).sum(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(gradients[2 * r + 1], upstream[rows].sum(0), rtol=1e-4, atol=1e-5)
    shared = make(3)
    assert [v.path for v in shared.trainable_weights] == [
        v.path for v in shared.branches[0].trainable_weights
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}])
def test_inference_takes_the_averages_of_each_examples_route(shape, options):
    layer, x, route = make(5, len(shape), **options), batch(shape), routes_of(shape, 5)
    before = layer.get_weights()
    outputs = np.asarray(layer(x, route))
    for i, r in enumerate(route):
        branch = layer.branches[r]
        expected = (x[i] - array(branch.moving_mean)) / np.sqrt(array(branch.moving_variance) + EPSILON)
        expected = expected * (array(branch.gamma) if layer.branches[0].scale else 1)
        expected = expected + (array(branch.beta) if layer.branches[0].center else 0)
        np.testing.assert_allclose(outputs[i], expected, rtol=1e-4, atol=1e-5)
    layer.trainable = False
    np.testing.assert_allclose(layer(x, route, training=True), outputs, rtol=1e-6)
    for after, weight in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(after, weight)


@pytest.mark.parametrize("segments", [False, True])
def test_groups_are_added_up_by_products_and_by_segments_alike(segments, monkeypatch):
    monkeypatch.setattr("bnhead.layers.moments._multiplies", lambda number: not segments)
    x, group = batch((7, 3, 4)), np.array([2, 0, 2, 2, 0, 2, 4])
    mean, variance, count = group_moments(x, group, 5)
    assert np.asarray(count)[:, 0].tolist() == [6, 0, 12, 0, 3]
    for g in range(5):
        part = x[group == g].astype("float64").reshape(-1, 4)
        expected = (part.mean(0), part.var(0)) if len(part) else (np.zeros(4), np.zeros(4))
        np.testing.assert_allclose(mean[g], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance[g], expected[1], rtol=1e-5, atol=1e-6)
    layer = make(5, 3)
    expected = reference(layer, group)(x.astype("float64"), np.ones((7, 3), bool))[0]
    np.testing.assert_allclose(layer(x, group, training=True), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("routes", "route"), [(1, np.zeros(32, int)), (3, 2), (3, np.full(32, 2))])
def test_training_on_one_route_is_keras_batch_norm_over_a_hundred_steps(routes, route):
    def net(norm):
        inputs = keras.Input((8,))
        dense = keras.layers.Dense(16, kernel_initializer=keras.initializers.GlorotUniform(1))
        last = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(2))
        model = keras.Model(inputs, last(norm(dense(inputs))))
        model.compile(
            keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        return model

    plain_norm = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)
    routed_norm = RoutedBatchNormalization(routes, momentum=MOMENTUM, epsilon=EPSILON)
    models = net(plain_norm), net(routed_norm)
    for step in range(100):
        x, y = batch((32, 8), step), np.random.default_rng(step).integers(0, 3, 32)
        with on_route(route):
            losses = []
            for model in models:
                with tf.GradientTape() as tape:
                    loss = model.compute_loss(x, y, model(x, training=True))
                gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
                model.optimizer.apply(gradients, model.trainable_variables)
                losses.append(float(loss))
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    branch = routed_norm.branches[route if isinstance(route, int) else route[0]]
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(branch, name), getattr(plain_norm, name), rtol=1e-6, atol=1e-6)


def test_the_default_route_and_the_scope_are_for_batches_without_one():
    layer, x = make(3, routed_affine=True, default_route=1), batch((5, 4))
    np.testing.assert_array_equal(layer(x), layer(x, route=1))
    with on_route(2):
        np.testing.assert_array_equal(layer(x), layer.branches[2](x))
        with on_route(np.array([0, 1, 2, 0, 1])):
            np.testing.assert_array_equal(layer(x), layer(x, np.array([0, 1, 2, 0, 1])))
        np.testing.assert_array_equal(layer(x, route=0), layer.branches[0](x))
    np.testing.assert_array_equal(layer(x), layer.branches[1](x))


def test_bfloat16_computes_in_float32_and_keeps_float32_statistics():
    full, half = make(2), make(2, dtype="mixed_bfloat16")
    x, route = tf.cast(batch((9, 4)), "bfloat16"), routes_of((9,), 2)
    expected, outputs = full(tf.cast(x, "float32"), route, training=True), half(x, route, training=True)
    assert outputs.dtype == "bfloat16" and half.branches[1].moving_variance.dtype == "float32"
    np.testing.assert_allclose(tf.cast(outputs, "float32"), expected, rtol=0.01, atol=0.02)
    np.testing.assert_allclose(half.branches[1].moving_mean, full.branches[1].moving_mean, rtol=1e-5)


def test_it_serialises_with_all_its_settings_and_weights(tmp_path):
    x, route = keras.Input((3, 4)), route_input()
    layer = RoutedBatchNormalization(
        3, default_route=2, routed_affine=True, momentum=0.7, center=False, name="norm",
        gamma_regularizer=keras.regularizers.L2(0.1),
    )  # fmt: skip
    model = keras.Model([x, route], layer(x, route))
    weights_like(layer)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    assert again.routes == 3 and again.default_route == 2 and again.routed_affine
    assert again.branches[2].momentum == 0.7 and again.branches[0].gamma_regularizer is not None
    model.save(tmp_path / "routed.keras")
    loaded = keras.saving.load_model(tmp_path / "routed.keras")
    inputs = batch((4, 3, 4)), np.array([0, 1, 2, 1])
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0))
    np.testing.assert_array_equal(model([inputs[0], None]), layer(inputs[0], route=2))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: RoutedBatchNormalization(0, name="bn"), "bn: routes must be a whole .* 1, got 0"),
        (lambda: RoutedBatchNormalization(True, name="bn"), "bn: routes must be a whole number"),
        (lambda: RoutedBatchNormalization(2, default_route=2, name="bn"), "default_route must be 0 to 1"),
        (lambda: RoutedBatchNormalization(2, axis=1, name="bn"), "bn: axis must be -1"),
        (lambda: make(2, name="bn")(batch((3, 4)), np.array([0, 1, 2])), "bn: route must be 0 to 1, got 2"),
        (lambda: make(1, name="bn")(batch((3, 4)), np.array([0, -1, 0])), "bn: route must be 0, got -1"),
        (lambda: make(2, name="bn")(batch((3, 4)), route=3), "bn: route must be 0 to 1, got 3"),
        (lambda: make(2, name="bn")(batch((2, 4)), np.ones(2)), "bn: route must be integers.*got float32"),
        (lambda: make(2, name="bn")(batch((2, 4)), np.ones((2, 1), int)), r"\(batch,\), got \(2, 1\)"),
        (lambda: at_route(net_with_routes(2), 2), "route must be 0 to 1, got 2"),
        (lambda: with_routes(keras.Sequential([keras.Input((2,)), keras.layers.ReLU()]), 2), "no batch norm"),
        (lambda: with_routes(small_net(GhostBatchNormalization()), 2), "a GhostBatchNormalization"),
        (lambda: with_routes(net_with_routes(2), 2), "a RoutedBatchNormalization cannot be routed"),
        (lambda: plain(net_with_routes(2)), r"reads a route: choose one first"),
        (lambda: routed_resnet("gbn4_fc8"), "gbn has no statistics for each route; bn has"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line(bad, message):
    with pytest.raises(UsageError, match=message):
        bad()


def test_a_compiled_step_refuses_an_unknown_route_before_it_changes_anything():
    model = net_with_routes(2)
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match="route must be 0 to 1, got"):
        model.train_on_batch([batch((3, 4)), np.array([0, 1, 2])], np.zeros((3, 2)))
    for after, weight in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(after, weight)


def test_where_xla_compiles_an_unknown_route_gives_nan():
    layer = make(2)
    outputs = tf.function(lambda x, route: layer(x, route), jit_compile=True)(
        tf.constant(batch((3, 4))), tf.constant([0, 2, 1])
    )
    assert np.isnan(outputs).all(1).tolist() == [False, True, False]


# ---- models --------------------------------------------------------------------------------------


def small_net(norm):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(norm(inputs)))
    weights_like(norm)
    return model


def net_with_routes(routes, **options):
    return with_routes(small_net(keras.layers.BatchNormalization(name="bn")), routes, **options)


def routed_resnet(head, routes=3, **options):
    norm = RoutedNorm(route_input(), routes, **options)
    return resnet8((8, 8, 1), head, 5, norm=norm, seed=0)


def routed_layers(model):
    return [layer for layer in model.layers if isinstance(layer, RoutedBatchNormalization)]


@pytest.mark.parametrize("head", ["bn_fc8", "fc8_out_bn-beta", None])
def test_builders_route_backbone_and_head(head):
    options = {} if head else {"outputs": None}
    norm = RoutedNorm(route_input(), 3, routed_affine=True)
    model = resnet8((8, 8, 1), head, **{"outputs": 5, **options}, norm=norm, seed=0)
    assert [tensor.name for tensor in model.inputs] == ["image", "route"]
    assert len(routed_layers(model)) == 7 + bool(head)
    images = batch((6, 8, 8, 1))
    for route in range(3):
        usual = resnet8((8, 8, 1), head, **{"outputs": 5, **options}, seed=0)
        chosen = at_route(model, route)
        assert [tensor.name for tensor in chosen.inputs] == ["image"]
        expected = usual(images, training=True)  # the same initial weights, and the same names of layers
        np.testing.assert_allclose(chosen(images, training=True), expected, rtol=1e-4, atol=1e-4)
        mixed = model([images, np.full(6, route)], training=False)
        np.testing.assert_allclose(chosen(images), mixed, rtol=1e-4, atol=1e-4)


def test_a_head_alone_reads_the_route():
    inputs, route = keras.Input((4, 4, 8)), route_input()
    norm = RoutedNorm(route, 2)
    logits = heads.apply("bn_gap_bn-gamma_fc8", inputs, 3, norm=norm, head_bn_momentum=0.5)
    first, second = routed_layers(keras.Model([inputs, route], logits))
    assert first.branches[0].momentum == 0.5 and first.branches[0].scale and not second.branches[1].scale


def test_cdropout_reads_the_labels_before_the_route():
    model = resnet8(
        (8, 8, 1), "cdropout0.5_bn_fc8", 5, norm=RoutedNorm(route_input(), 2), class_counts=[5] * 5
    )
    assert [tensor.name for tensor in model.inputs] == ["image", "label", "route"]


@pytest.mark.parametrize("routed_affine", [False, True])
def test_a_warm_start_computes_what_the_model_does_on_every_route(routed_affine):
    model = resnet8((8, 8, 1), "bn_fc8", 5, seed=0)
    for layer in model.layers:
        if isinstance(layer, BatchNormalization):
            weights_like(layer)
    images = batch((6, 8, 8, 1))
    routed = with_routes(model, 3, routed_affine=routed_affine, default_route=1)
    expected = model(images)
    for route in (np.array([0, 1, 2, 2, 0, 1]), np.full(6, 2), None):
        np.testing.assert_allclose(routed([images, route]), expected, rtol=1e-4, atol=1e-4)
    trained, usual = len(routed.trainable_weights), len(model.trainable_weights)
    assert trained == usual + (2 * 8 * 2 if routed_affine else 0)
    np.testing.assert_array_equal(at_route(routed, 1)(images), expected)


def test_a_model_without_a_route_input_is_routed_by_the_scope():
    model = small_net(keras.layers.BatchNormalization(name="bn"))
    routed = with_routes(model, 2, as_input=False, default_route=1)
    assert len(routed.inputs) == 1
    x, (norm,) = batch((6, 4)), routed_layers(routed)
    for _ in range(3):
        with on_route(np.array([0, 0, 1, 0, 0, 0])):
            routed(x, training=True)
    assert np.abs(array(norm.branches[0].moving_mean) - array(norm.branches[1].moving_mean)).min() > 0
    np.testing.assert_array_equal(routed(x), at_route(routed, 1)(x))
    np.testing.assert_allclose(plain(routed)(x), routed(x), rtol=1e-5, atol=1e-5)
    assert plain(routed).get_layer("bn").__class__ is keras.layers.BatchNormalization


def test_a_route_of_a_model_folds_and_gets_population_statistics_as_any_model():
    routed, x = net_with_routes(2), batch((50, 4))
    chosen = at_route(routed, 1)
    assert recompute_batch_stats(chosen, x) == ["bn_route1"]
    (norm,) = routed_layers(routed)
    np.testing.assert_allclose(norm.branches[1].moving_mean, x.mean(0), rtol=1e-5)
    assert np.abs(array(norm.branches[0].moving_mean) - x.mean(0)).min() > 1e-3
    folded = fold_batch_norm(chosen)
    assert len(folded.layers) == 2
    np.testing.assert_allclose(folded(x), routed([x, np.ones(50, int)]), rtol=1e-4, atol=1e-4)
    assert at_route(folded, 0) is folded


# ---- devices -------------------------------------------------------------------------------------

MIRRORED = """
import sys
import keras
import numpy as np
import tensorflow as tf

devices = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(devices[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from bnhead.layers import RoutedBatchNormalization

synchronized = sys.argv[2] == "True"
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    x, route = keras.Input((4,)), keras.Input((), dtype="int32")
    norm = RoutedBatchNormalization(3, momentum=0.8, synchronized=synchronized, name="norm")
    dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(0))
    model = keras.Model([x, route], dense(norm(x, route)))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
data = np.load(sys.argv[1])
arrays = (data["x"], data["route"]), data["y"]
batches = tf.data.Dataset.from_tensor_slices(arrays).batch(8)
losses = model.fit(batches, epochs=2, shuffle=False, verbose=0).history["loss"]
np.savez(sys.argv[3], *model.get_weights(), losses=losses)
"""


@pytest.mark.parametrize("synchronized", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_mirrored_replicas(synchronized, tmp_path):
    """Synchronised ones train what one device does. Batches: uneven, one route, a route on one replica."""
    rng = np.random.default_rng(0)
    arrays = {
        "x": batch((24, 4)),
        "y": rng.normal(size=(24, 2)).astype("float32"),
        "route": np.array([0, 1, 1, 0, 1, 1, 1, 0] + [1] * 8 + [0, 0, 0, 0, 1, 2, 2, 2], "int32"),
    }
    np.savez(tmp_path / "data.npz", **arrays)
    root = str(Path(__file__).parents[2])
    files = tmp_path / "data.npz", str(synchronized), tmp_path / "out.npz"
    command = [sys.executable, "-c", MIRRORED, *files]
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    inputs, route = keras.Input((4,)), keras.Input((), dtype="int32")
    dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(0))
    norm = RoutedBatchNormalization(3, momentum=0.8, name="norm")
    model = keras.Model([inputs, route], dense(norm(inputs, route)))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    batches = tf.data.Dataset.from_tensor_slices(((arrays["x"], arrays["route"]), arrays["y"])).batch(8)
    losses = model.fit(batches, epochs=2, shuffle=False, verbose=0).history["loss"]
    out = np.load(tmp_path / "out.npz")
    if synchronized:
        np.testing.assert_allclose(out["losses"], losses, rtol=1e-5)
        for i, weight in enumerate(model.get_weights()):
            np.testing.assert_allclose(out[f"arr_{i}"], weight, rtol=1e-5, atol=1e-6)
    else:
        assert np.abs(out["losses"] - losses).max() > 1e-4 and np.isfinite(out["losses"]).all()


def test_a_frozen_norm_stays_frozen_with_routes():
    inputs = keras.Input((4,))
    norm = keras.layers.BatchNormalization(name="norm")
    model = keras.Model(inputs, norm(inputs))
    norm.trainable = False
    routed = with_routes(model, 2, routed_affine=True, as_input=False)
    assert routed.trainable_variables == []
    before = [np.array(weight) for weight in routed.weights]
    for route in (0, np.array([0, 1, 1])):
        with on_route(route):
            routed(np.ones((3, 4)) * [[1], [2], [3]], training=True)
    for weight, value in zip(routed.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("counts", [(3, 4, 1), (8, 0, 0), (0, 3, 5)], ids=str)
@pytest.mark.parametrize("routed_affine", [False, True])
def test_parts_are_the_same_routes_as_a_tensor(counts, routed_affine):
    x, routes = batch((8, 5, 4)), np.repeat(np.arange(3), counts)
    results = []
    for route in (counts, routes.astype("int32")):
        norm = RoutedBatchNormalization(3, momentum=0.8, routed_affine=routed_affine)
        norm.build(x.shape)
        for number, weight in enumerate(norm.weights):
            weight.assign(np.linspace(0.5, 1.5, 4) + number / 10)
        with tf.GradientTape() as tape:
            inputs = tf.constant(x)
            tape.watch(inputs)
            outputs = norm(inputs, route=route, training=True)
            loss = tf.reduce_sum(outputs**3)
        sources = [inputs, *(variable.value for variable in norm.trainable_variables)]
        gradients = tape.gradient(loss, sources, unconnected_gradients="zero")
        results.append([outputs, norm(inputs, route=route), *norm.get_weights(), *gradients])
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("counts", [(3, 5), (3, 3, 1)])
def test_parts_cover_the_batch(counts):
    with pytest.raises(UsageError, match="route must have 3 numbers of examples with the sum 8, got"):
        RoutedBatchNormalization(3)(batch((8, 4)), route=counts)
