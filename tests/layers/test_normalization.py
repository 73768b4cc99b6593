import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.layers import BatchNormalization, batch_norm
from bnhead.models import resnet8

OPTIONS = [{}, {"center": False}, {"scale": False}, {"center": False, "scale": False}, {"epsilon": 0.1}]


def images(shape=(6, 5, 3, 4), seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 3 + 1).astype("float32")


def pair(momentum=0.8, **options):
    """Our layer and Keras' with the same random weights."""
    layers = [
        kind(momentum=momentum, **options) for kind in (BatchNormalization, keras.layers.BatchNormalization)
    ]
    rng = np.random.default_rng(1)
    for layer in layers:
        layer.build((None, None, None, 4))
    values = [rng.uniform(0.5, 2, weight.shape) for weight in layers[0].weights]
    for layer in layers:
        layer.set_weights(values)
    return layers


def count_kernels(layer, x, **call):
    graph = (
        tf.function(lambda x: layer(x, **call)).get_concrete_function(tf.TensorSpec(x.shape, x.dtype)).graph
    )
    return sum(op.type == "FusedBatchNormV3" for op in graph.get_operations())


def test_the_kernel_is_for_cpus(monkeypatch):
    """XLA compiles Keras' operations to faster code on a GPU."""
    layer, x = BatchNormalization(), images((4, 3, 3, 4))
    layer.build(x.shape)
    assert count_kernels(layer, x, training=True) == 1
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [f"a {kind}"])
    assert count_kernels(layer, x, training=True) == 0
    reference = keras.layers.BatchNormalization()
    np.testing.assert_array_equal(layer(x, training=True), reference(x, training=True))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(6, 5, 3, 4), (2, 1, 1, 4), (1, 3, 2, 4)])
def test_outputs_gradients_and_statistics_are_kerass_over_several_steps(options, shape):
    ours, theirs = pair(**options)
    for step in range(3):
        x = tf.constant(images(shape, step))
        upstream = np.random.default_rng(step).normal(size=shape).astype("float32")
        results = []
        for layer in (ours, theirs):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(y * upstream)
            results.append([y, *tape.gradient(loss, [x, *layer.trainable_weights])])
        for actual, reference in zip(*results, strict=True):
            np.testing.assert_allclose(actual, reference, rtol=1e-4, atol=2e-5)
        for actual, reference in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(actual, reference, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_the_moving_variance_takes_the_biased_variance():
    layer = BatchNormalization(momentum=0.0)
    x = images((2, 1, 2, 4))
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_variance, x.var((0, 1, 2)), rtol=1e-5)
    assert not np.allclose(layer.moving_variance, x.var((0, 1, 2), ddof=1), rtol=0.1), "4 values: 4/3 apart"


def test_against_numpy():
    layer, _ = pair(epsilon=0.01)
    gamma, beta, mean, variance = layer.get_weights()
    x = images()
    expected = (x - mean) / np.sqrt(variance + 0.01) * gamma + beta
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 0.01) * gamma + beta
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.8 * mean + 0.2 * x.mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_reduced_precision_keeps_its_dtypes_and_float32_statistics(policy):
    ours = BatchNormalization(dtype=policy)
    theirs = keras.layers.BatchNormalization(dtype=policy)
    x = tf.cast(images(), ours.compute_dtype)
    actual, reference = ours(x, training=True), theirs(x, training=True)
    assert actual.dtype == reference.dtype == ours.compute_dtype
    np.testing.assert_allclose(tf.cast(actual, "float32"), tf.cast(reference, "float32"), atol=0.02)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-2)
    assert ours.moving_variance.dtype == theirs.moving_variance.dtype


def test_the_kernel_is_used_where_it_can_be():
    x = tf.constant(images())
    for training in (True, False):
        assert count_kernels(BatchNormalization(), x, training=training) == 1
        assert count_kernels(BatchNormalization(), tf.cast(x, "bfloat16"), training=training) == 1


@pytest.mark.parametrize(
    ("options", "shape"),
    [({}, (7, 4)), ({}, (7, 5, 4)), ({"axis": 1}, (2, 4, 3, 3)), ({"renorm": True}, (6, 5, 3, 4))],
)
def test_everything_else_takes_kerass_path(options, shape):
    ours, theirs = BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    x = tf.constant(images(shape))
    assert count_kernels(BatchNormalization(**options), x, training=True) == 0
    np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))
    np.testing.assert_array_equal(ours(x), theirs(x))


def test_frozen_means_inference_as_in_keras():
    ours, theirs = pair()
    ours.trainable = theirs.trainable = False
    weights = ours.get_weights()
    np.testing.assert_allclose(
        ours(images(), training=True), theirs(images(), training=True), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(ours.get_weights(), weights)


def test_it_serialises_under_the_packages_name():
    layer = BatchNormalization(momentum=0.7, epsilon=0.02, center=False, name="norm")
    saved = keras.saving.serialize_keras_object(layer)
    assert saved["registered_name"] == "bnhead>BatchNormalization"
    again = keras.saving.deserialize_keras_object(saved)
    assert type(again) is BatchNormalization and again.get_config() == layer.get_config()


def test_the_default_norm():
    layer = batch_norm("norm")
    assert (layer.name, layer.momentum, layer.epsilon) == ("norm", 0.9, 1e-5)
    assert (
        batch_norm(epsilon=0.5).epsilon == 0.5 and batch_norm(dtype="float32").dtype_policy.name == "float32"
    )


@pytest.mark.slow
def test_a_net_trains_as_with_kerass_layer():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 32, 8, 8, 1)).astype("float32"), rng.integers(0, 10, (5, 32))
    losses = []
    for norm in (
        batch_norm,
        lambda name: keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name),
    ):
        model = resnet8((8, 8, 1), "fc", 10, seed=0, norm=norm)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
        losses.append([float(model.train_on_batch(*batch)) for batch in zip(x, y, strict=True)])
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert len(set(losses[0])) == 5
