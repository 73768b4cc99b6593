import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import feed
from bnhead.errors import UsageError


def two_inputs():
    first, second = keras.Input((3,), name="first"), keras.Input((2,), name="second")
    return keras.Model([first, second], layers.Concatenate()([first, second]))


def test_inputs_take_the_structure_of_the_model():
    a, b = np.zeros((4, 3), "float32"), np.ones((4, 2), "float32")
    for given in ([a, b], (a, b), {"second": b, "first": a}):
        first, second = feed.arranged(two_inputs(), given)
        assert first.shape == (4, 3) and second.shape == (4, 2)


def test_inputs_that_do_not_fit_are_one_line():
    with pytest.raises(UsageError, match="data must have the 2 inputs of the model, got 1"):
        feed.arranged(two_inputs(), np.zeros((4, 3)))
    with pytest.raises(UsageError, match=r"input 'second' is \(batch, 2\), got \(batch, 3\)"):
        feed.arranged(two_inputs(), [np.zeros((4, 3)), np.zeros((4, 3))])
    rule = r"data does not fit the model: inputs of shape \(4, 3\): too wide"
    with pytest.raises(UsageError, match=rule), feed.fitting(np.zeros((4, 3))):
        raise ValueError("too wide")
    with pytest.raises(UsageError, match=r"^mine$"), feed.fitting(np.zeros(3)):
        raise UsageError("mine")


def test_a_fixed_batch_size_takes_precedence():
    fixed = keras.Sequential([keras.Input((3,), batch_size=4), layers.Dense(2)])
    assert feed.batch_size_of(fixed, 256) == 4 and feed.batch_size_of(two_inputs(), 256) == 256
    with pytest.raises(UsageError, match="data must be whole batches of 4, the model's own size; one has 3"):
        feed.arranged(fixed, np.zeros((3, 3)))
