import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import count
from tests.census.planted import activations_of


def test_float16_that_overflows_is_unknown():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, "relu", dtype="mixed_float16", name="fc")
    model = keras.Model(inputs, layers.Dense(2)(hidden(inputs)))
    model.get_layer("fc").kernel.assign(np.full((4, 3), -300.0))
    x = np.ones((6, 4), "float32")
    x[2] = 300.0
    counts = count(model, x).layers["fc"]
    assert (counts.nonfinite, counts.first_nonfinite, counts.nonfinite_at) == (1, 2, "fc")
    x[2] = 1.0
    assert count(model, x).figures()["dead/fc/dataset"] == 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_counted_as_predict_computes_it(policy):
    inputs = keras.Input((5, 4, 2))
    x = layers.Conv2D(8, 3, activation="relu", dtype=policy, name="conv")(inputs)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.GlobalAveragePooling2D(dtype=policy)(layers.ReLU(dtype=policy, name="map")(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(9, "relu", dtype=policy, name="fc")(x)))
    x = np.random.default_rng(0).normal(size=(70, 5, 4, 2)).astype("float32")
    census = count(model, x, "all", batch_size=70)
    for name in ("conv", "map", "fc"):
        np.testing.assert_array_equal(census.layers[name].active, activations_of(model, name, x).sum(0))


def test_float64_is_judged_in_float64():
    inputs = keras.Input((2,), dtype="float64")
    hidden = layers.Dense(3, "relu", name="fc", dtype="float64")
    model = keras.Model(inputs, layers.Dense(2, dtype="float64")(hidden(inputs)))
    hidden.set_weights([np.full((2, 3), 1.0), np.array([0, 0, 1e-50])])
    x = np.array([[1e200, 1e200], [0, 0], [-1.0, 0]])
    counts = count(model, x).layers["fc"]
    assert counts.unknown == ""  # finite, though beyond float32
    assert counts.active.tolist() == [1, 1, 2]  # 1e-50 is 0 in float32
    assert counts.magnitude[0] == pytest.approx(2e200)


def test_a_threshold_is_not_rounded_to_the_layers_dtype():
    inputs = keras.Input((1,))
    hidden = layers.Dense(2, "relu", name="fc", dtype="bfloat16")
    model = keras.Model(inputs, layers.Dense(2)(hidden(inputs)))
    hidden.set_weights([np.zeros((1, 2)), np.array([0.1, 1.0])])  # 0.1 is 0.10009766 in bfloat16
    assert count(model, np.zeros((4, 1)), eps=0.0999).layers["fc"].active.tolist() == [4, 4]
    assert count(model, np.zeros((4, 1)), eps=0.1001).layers["fc"].active.tolist() == [0, 4]
