"""A neutral initial guess against a mean of logits computed with NumPy."""

import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.errors import UsageError
from bnhead.layers import neutralise
from bnhead.models import resnet8

PRIOR = np.log([0.5, 0.2, 0.1, 0.1, 0.1])


def images(n=40):
    return np.random.default_rng(0).normal(1, 2, (n, 8, 8, 1)).astype("float32")


def test_the_mean_logit_is_the_prior_and_nothing_else_changes():
    inputs = keras.Input((6,))
    model = heads.attach("fc8", inputs, inputs, 5, name="net", seed=0)
    x = np.random.default_rng(0).normal(3, 1, (50, 6)).astype("float32")
    before, weights = np.asarray(model(x)), model.get_weights()
    shift = neutralise(model, x, PRIOR, batch_size=16)
    np.testing.assert_allclose(shift, PRIOR - before.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(x), before + shift, rtol=1e-4, atol=1e-5)
    for old, new in zip(weights[:-1], model.get_weights()[:-1], strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("head", ["bn_fc8", "fc8_out_bn", "noise_fc8"])
def test_batch_norms_count_as_in_the_first_step(head):
    model, x = resnet8((8, 8, 1), head, 5, seed=0), images()
    averages = [np.array(v) for v in model.non_trainable_variables]
    neutralise(model, x, PRIOR, batch_size=40)
    for old, new in zip(averages, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)
    outputs, _ = model.stateless_call(
        model.trainable_variables, model.non_trainable_variables, x, training=True
    )
    np.testing.assert_allclose(np.asarray(outputs).mean(0), PRIOR, atol=1e-3)
    assert np.abs(np.asarray(model(x)).mean(0) - PRIOR).max() > 0.01  # its averages are still 0 and 1


def test_an_output_layer_without_an_offset_is_refused():
    model = resnet8((8, 8, 1), "fc8_out-bias", 5, seed=0)
    with pytest.raises(UsageError, match=r"neutral_init needs an output layer with a bias, got 'head_out'"):
        neutralise(model, images(), PRIOR)
