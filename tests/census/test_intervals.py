"""The boxes on their way through a model."""

import keras
import numpy as np
from keras import layers

from bnhead.census.intervals import bounds_of, unbounded
from tests.census.boxed import MAP, on


def test_a_layer_of_the_user_has_no_bounds():
    class Doubled(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    for made in ([Doubled(3)], [layers.Dense(3, lambda x: x + 1)], [layers.Dense(3, layers.PReLU())]):
        model = on("relu6", layers.Flatten(), *made)
        bounded = bounds_of(model, {made[-1].name}).get(made[-1].name)
        assert bounded is None or np.isinf(bounded.after.high).all()
    assert bounds_of(model, {"absent"}) == {}


def test_a_layer_that_is_called_twice_has_the_bounds_of_both_calls():
    dense = layers.Dense(3, name="shared")
    inputs = keras.Input((4,))
    small, large = layers.Activation("sigmoid")(inputs), layers.ReLU(6.0)(inputs)

    def bounds(*read):
        model = keras.Model(inputs, [dense(x) for x in read])
        return bounds_of(model, {"shared"})["shared"].after

    alone, both = [bounds(small), bounds(large)], bounds(small, large)
    np.testing.assert_array_equal(both.low, np.minimum(alone[0].low, alone[1].low))
    np.testing.assert_array_equal(both.high, np.maximum(alone[0].high, alone[1].high))


def test_an_input_has_the_bounds_of_its_type():
    ends = {"uint8": (0, 255), "bool": (0, 1), "float32": (-np.inf, np.inf)}
    for dtype, (low, high) in ends.items():
        box = unbounded(keras.Input(MAP, dtype=dtype))
        assert (box.low, box.high) == (low, high) and box.rank == 4
