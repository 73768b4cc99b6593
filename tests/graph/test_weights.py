import keras
import numpy as np
import pytest

from bnhead.graph.weights import WeightCheck, all_finite


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_dtype(dtype, value):
    values = keras.ops.cast(np.array([1.0, value]), dtype)
    assert not all_finite(values) and all_finite(values[:1])


def test_large_and_whole_numbers_are_finite():
    assert all_finite(np.array([1e300, -1e300])) and all_finite(np.array([2**40])) and all_finite(np.zeros(0))


def test_the_first_weight_is_named_and_moving_averages_count():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    first_nonfinite_weight = WeightCheck(model)
    assert first_nonfinite_weight() == ""
    model.layers[-1].moving_variance.assign([1.0, np.nan, 1.0])
    assert first_nonfinite_weight().endswith("moving_variance")
    model.layers[0].kernel.assign(np.full((2, 3), np.inf))
    assert first_nonfinite_weight() == model.layers[0].kernel.path
