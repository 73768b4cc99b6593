import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.layers import GeMPooling2D
from tests.layers.numerics import batch, compare_gradients


def reference(x, p, epsilon=1e-6):
    return np.mean(np.maximum(x, epsilon) ** p, axis=(1, 2)) ** (1 / p)


@pytest.mark.parametrize("shape", [(1, 3, 2, 4), (2, 1, 1, 4), (5, 3, 3, 2)])
@pytest.mark.parametrize("p", [1.0, 3.0, 4.5])
def test_against_numpy_with_gradients(shape, p):
    x = np.abs(batch(shape)) + 0.1
    layer = GeMPooling2D(p)
    np.testing.assert_allclose(layer(x), reference(x.astype("float64"), p), rtol=1e-5)
    compare_gradients(layer, x, lambda x: reference(x, p))


def test_from_average_to_maximum():
    x = np.abs(batch((4, 3, 3, 2)))
    np.testing.assert_allclose(GeMPooling2D(1.0)(x), x.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(GeMPooling2D(200.0)(x), x.max((1, 2)), rtol=0.02)


def test_values_below_the_floor_count_as_the_floor():
    x = -np.ones((1, 2, 2, 3), "float32")
    np.testing.assert_allclose(GeMPooling2D(3.0, epsilon=0.01)(x), np.full((1, 3), 0.01), rtol=1e-5)


def test_large_values_and_exponents_stay_finite():
    assert np.isfinite(np.asarray(GeMPooling2D(30.0)(np.full((1, 2, 2, 1), 1e4, "float32")))).all()


def test_the_exponent_is_learned():
    layer = GeMPooling2D()
    x = np.abs(batch((4, 3, 3, 2)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x))
    step = 1e-3
    rise = reference(x.astype("float64"), 3 + step).sum() - reference(x.astype("float64"), 3 - step).sum()
    np.testing.assert_allclose(tape.gradient(loss, layer.exponent), rise / (2 * step), rtol=1e-3)


def test_bfloat16_serialisation_and_bad_settings():
    layer = GeMPooling2D(2.5, epsilon=0.01, dtype="mixed_bfloat16")
    x = np.abs(batch((2, 5, 5, 3)))
    y = layer(x)
    assert y.dtype == "bfloat16"
    np.testing.assert_allclose(tf.cast(y, "float32"), reference(x, 2.5, 0.01), rtol=0.02)
    saved = keras.saving.serialize_keras_object(layer)
    assert saved["registered_name"] == "bnhead>GeMPooling2D"
    assert keras.saving.deserialize_keras_object(saved).get_config() == layer.get_config()
    with pytest.raises(ValueError, match="p must be above 0, got 0"):
        GeMPooling2D(0)
