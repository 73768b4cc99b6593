"""The optimizers of stacked heads against Keras' own, one head at a time."""

import keras
import numpy as np
import pytest

from bnhead.frozen import updates
from bnhead.training.sgd import FusedSGD

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(0, 1, (2, 3, 4)).astype("float32")
GRADIENTS = RNG.normal(0, 1, (4, 2, 3, 4)).astype("float32")
RATES = np.array([0.1, 0.02], "float32")
MADE = {
    "SGD": lambda rate: keras.optimizers.SGD(rate),
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "Nesterov": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=0.1),
    "fused": lambda rate: FusedSGD(rate, momentum=0.9, nesterov=True),
    "Adam": lambda rate: keras.optimizers.Adam(rate, beta_1=0.8),
    "AdamW": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1),
}


@pytest.mark.parametrize("name", MADE)
def test_as_keras_updates_each_head(name):
    optimizer = MADE[name](0.5)  # whose learning rate is not read
    optimizer.build([keras.Variable(WEIGHTS[0])])
    assert updates.obstacle(optimizer) == ""
    kept = len(updates.slots_of(optimizer)[0])
    weight, slots = WEIGHTS, [np.zeros_like(WEIGHTS) for _ in range(kept)]
    for step, gradient in enumerate(GRADIENTS):
        weight, slots = updates.updated(optimizer, weight, gradient, RATES, step, slots, decayed=True)
    for head, rate in enumerate(RATES):
        variable, single = keras.Variable(WEIGHTS[head]), MADE[name](float(rate))
        for gradient in GRADIENTS[:, head]:
            single.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        np.testing.assert_allclose(weight[head], variable.numpy(), rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(slots, updates.slots_of(single)[0], strict=True):
            np.testing.assert_allclose(ours[head], theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_decay_can_be_left_out_and_other_optimizers_are_refused():
    optimizer = MADE["Nesterov"](0.1)
    optimizer.build([keras.Variable(WEIGHTS[0])])
    zeros = np.zeros_like(WEIGHTS)
    options = optimizer, WEIGHTS, zeros, RATES, 0, [zeros]
    np.testing.assert_array_equal(updates.updated(*options, decayed=False)[0], WEIGHTS)
    shrunk = WEIGHTS * (1 - 0.1 * RATES[:, None, None])
    np.testing.assert_allclose(updates.updated(*options, decayed=True)[0], shrunk, rtol=1e-6)
    assert updates.obstacle(keras.optimizers.Lion()) == "its optimizer is Lion, none of SGD, Adam, AdamW"
    assert updates.obstacle(keras.optimizers.Adam(amsgrad=True)) == "its optimizer has amsgrad"
