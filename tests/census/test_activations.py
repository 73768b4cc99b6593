"""The bounds of activations against their values."""

import keras
import numpy as np
import pytest
from keras import ops

from bnhead.census.activations import activated, activation_name
from bnhead.census.boxes import Box

ACTIVATIONS = (
    *(
        "relu",
        "relu6",
        "leaky_relu",
        "sigmoid",
        "hard_sigmoid",
        "tanh",
        "softsign",
        "softplus",
        "exponential",
    ),
    *("silu", "gelu", "mish", "elu", "selu", "celu", "hard_tanh", "hard_silu", "linear"),
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_stay_in_their_boxes(name):
    function, rng = keras.activations.get(name), np.random.default_rng(0)
    for low, high in [(-9, -2), (-5, 5), (-0.5, 0), (0, 8), (1, 3), (0, 0), (-30, 30)]:
        box = activated(function, Box.of(low, high, 2))
        values = ops.convert_to_numpy(function(np.append(rng.uniform(low, high, 500), [low, high])))
        assert box.low[0] <= values.min()
        assert values.max() <= box.high[0]
        if name in ("relu", "relu6", "gelu", "tanh") and low == high == 0:
            assert box.low[0] == box.high[0] == 0


def test_a_function_is_known_by_its_name_as_a_layer_and_as_an_operation():
    assert (
        activation_name(keras.layers.LeakyReLU())
        == activation_name(keras.activations.leaky_relu)
        == "leaky_relu"
    )
    assert activation_name(keras.layers.ReLU()) == activation_name(keras.ops.relu) == "relu"
    assert activation_name(lambda x: x) == "" and activation_name(keras.layers.Dense(2)) == ""
