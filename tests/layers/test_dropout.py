import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.layers import ClassConditionalDropout

COUNTS = [100, 50, 25, 0]
RATES = [0.0, 0.4, 0.6, 0.8]  # 0.8 (1 - n_c / 100)


def layer(**options):
    return ClassConditionalDropout(**{"rate": 0.8, "class_counts": COUNTS, "seed": 3, **options})


def test_the_rates_are_the_definitions():
    np.testing.assert_allclose(layer().rates, RATES)
    assert layer(class_counts=[7, 7, 7]).rates == [0, 0, 0], "no imbalance, no dropout"


def test_each_class_loses_its_share_and_keeps_its_mean():
    labels = np.repeat(np.arange(4), 5)
    y = np.asarray(layer()(np.ones((20, 40_000), "float32"), labels, training=True))
    for label, rate in enumerate(RATES):
        of_class = y[labels == label]
        np.testing.assert_allclose((of_class == 0).mean(), rate, atol=0.01)
        np.testing.assert_allclose(of_class[of_class != 0], 1 / (1 - rate), rtol=1e-5)
        np.testing.assert_allclose(of_class.mean(), 1, atol=0.02)


def test_of_several_classes_the_largest_rate_holds():
    labels = np.array([[1, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]], "float32")
    y = np.asarray(layer()(np.ones((3, 40_000), "float32"), labels, training=True))
    np.testing.assert_allclose((y == 0).mean(1), [0.6, 0.8, 0.0], atol=0.01)


def test_the_identity_in_inference_and_without_labels():
    x, labels = np.ones((3, 5), "float32"), np.array([3, 3, 3])
    np.testing.assert_array_equal(layer()(x, labels), x)
    np.testing.assert_array_equal(layer()(x, training=True), x)


def test_gradients_pass_where_something_was_kept():
    x = tf.ones((4, 6, 6, 2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer()(x, np.full(4, 2), training=True)
        loss = tf.reduce_sum(y)
    np.testing.assert_allclose(tape.gradient(loss, x), y, rtol=1e-6)
    assert 0.3 < float(tf.reduce_mean(tf.cast(y == 0, "float32"))) < 0.9


def test_the_seed_decides_and_each_call_differs():
    x, labels = np.ones((4, 100), "float32"), np.full(4, 2)
    first, second = layer(), layer()
    np.testing.assert_array_equal(first(x, labels, training=True), second(x, labels, training=True))
    assert not np.array_equal(first(x, labels, training=True), layer()(x, labels, training=True))


def test_bfloat16_and_serialisation():
    half = layer(dtype="mixed_bfloat16", name="drop")
    y = half(tf.ones((2, 4), "bfloat16"), np.array([2, 2]), training=True)
    assert y.dtype == "bfloat16"
    saved = keras.saving.serialize_keras_object(half)
    assert saved["registered_name"] == "bnhead>ClassConditionalDropout"
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == half.get_config() and again.class_counts == COUNTS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.0}, r"rate must be in \(0, 1\), got 1.0"),
        ({"class_counts": []}, "class_counts must be numbers of examples"),
        ({"class_counts": [0, 0]}, "class_counts must be numbers of examples, not all 0"),
        ({"class_counts": [3, -1]}, "class_counts must be numbers of examples"),
    ],
)
def test_bad_settings_are_said(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)


def test_class_numbers_in_a_column_are_class_numbers():
    x, labels = np.ones((3, 40_000), "float32"), np.array([[0], [1], [2]])
    y = np.asarray(layer()(x, labels, training=True))
    np.testing.assert_allclose((y == 0).mean(1), RATES[:3], atol=0.01)
    with pytest.raises(ValueError, match=r"labels must be of shape \(batch,\) or \(batch, 4\), got \(3, 2\)"):
        layer()(x, np.ones((3, 2)), training=True)
    with pytest.raises(ValueError, match="not all 0"):
        layer(class_counts=[0.7, 0.2])
