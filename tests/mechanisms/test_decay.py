import keras
import numpy as np
import pytest

from bnhead.layers import fold_batch_norm
from bnhead.mechanisms.decay import effective_decay
from bnhead.mechanisms.split import Split
from tests.mechanisms.nets import image_net, numpy, vector_net


@pytest.mark.parametrize("head", ["bn_fc8", "bn-beta-gamma_fc8", "scale_fc8", "center_fc8", "bn_gap_fc8"])
def test_the_penalty_is_that_of_the_folded_weights(head):
    model = image_net(head)
    decay = effective_decay(Split(model))
    kernel = numpy(model.get_layer("head_fc").kernel)
    folded = numpy(fold_batch_norm(model, [Split(model).name]).get_layer("head_fc").kernel)
    assert decay.ratio == pytest.approx((kernel**2).sum() / (folded**2).sum(), rel=1e-4)
    np.testing.assert_allclose((decay.factors[:, None] * folded**2).sum(), (kernel**2).sum(), rtol=1e-4)


def test_the_factors_are_variance_over_gain():
    model = vector_net("bn_fc8")
    norm = model.get_layer("head_bn")
    factors = effective_decay(Split(model)).factors
    expected = (numpy(norm.moving_variance) + norm.epsilon) / numpy(norm.gamma) ** 2
    np.testing.assert_allclose(factors, expected, rtol=1e-5)


def test_low_variance_is_cheap_and_eps_decides_how_much():
    inputs = keras.Input((2,))
    decays = {}
    for epsilon in (1e-3, 1e-5):
        norm = keras.layers.BatchNormalization(epsilon=epsilon, name="bn")
        model = keras.Model(inputs, keras.layers.Dense(3)(norm(inputs)))
        norm.moving_variance.assign([1e-4, 1.0])
        decays[epsilon] = effective_decay(Split(model)).factors
    np.testing.assert_allclose(decays[1e-3], [1.1e-3, 1.001], rtol=1e-4)
    np.testing.assert_allclose(decays[1e-5], [1.1e-4, 1.00001], rtol=1e-4)


def test_without_a_norm_and_behind_flatten():
    decay = effective_decay(Split(vector_net("fc8")))
    assert decay.ratio == 1 and decay.spread == 1
    assert effective_decay(Split(vector_net("fc8_out_bn"))) is None
    assert len(effective_decay(Split(image_net("bn_flatten_fc8"))).factors) == 256


def test_the_spread():
    model = vector_net("bn_fc8")
    factors = effective_decay(Split(model)).factors
    low, high = np.percentile(factors, (5, 95))
    assert effective_decay(Split(model)).spread == pytest.approx(high / low)
