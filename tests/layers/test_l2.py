import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.layers import L2Normalization
from tests.layers.numerics import SHAPES, batch, compare_gradients


@pytest.mark.parametrize("shape", SHAPES)
def test_against_numpy_with_gradients(shape):
    layer = L2Normalization()
    x = batch(shape)
    layer(x)
    assert float(layer.scale) == 2.0, "sqrt(4 channels)"
    layer.scale.assign(1.7)

    def reference(x):
        return 1.7 * x / np.linalg.norm(x, axis=-1, keepdims=True)

    np.testing.assert_allclose(layer(x), reference(x), rtol=1e-5)
    np.testing.assert_array_equal(layer(x), layer(x, training=True))
    compare_gradients(layer, x, reference)


def test_the_outputs_root_mean_square_is_1_at_first():
    y = np.asarray(L2Normalization()(batch((50, 16))))
    np.testing.assert_allclose(np.sqrt((y**2).mean(-1)), 1, rtol=1e-5)


def test_zeros_stay_zeros_and_the_scale_trains():
    layer = L2Normalization()
    x = np.zeros((2, 3), "float32")
    np.testing.assert_array_equal(layer(x), x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(batch((4, 3))))
    assert np.isfinite(tape.gradient(loss, layer.scale))


def test_bfloat16_and_serialisation():
    layer = L2Normalization(epsilon=0.1, dtype="mixed_bfloat16")
    x = tf.cast(batch((5, 300)), "bfloat16")
    y = layer(x)
    assert y.dtype == "bfloat16" and layer.scale.dtype == "float32"
    exact = np.asarray(tf.cast(x, "float32"), "float64")
    exact = 300**0.5 * exact / np.sqrt((exact**2).sum(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(tf.cast(y, "float32"), exact, rtol=0.01)
    saved = keras.saving.serialize_keras_object(layer)
    assert saved["registered_name"] == "bnhead>L2Normalization"
    assert keras.saving.deserialize_keras_object(saved).get_config() == layer.get_config()
