import numpy as np
import pytest

from bnhead.layers import recompute_batch_stats
from bnhead.mechanisms.averages import AverageBias, average_bias
from tests.mechanisms.nets import image_net, images


def test_the_bias_is_in_standard_deviations_and_logarithms():
    population = np.array([1.0, 2.0, 5.0]), np.array([4.0, 1.0, 0.0])
    bias = AverageBias.of((np.array([2.0, 2.0, 6.0]), np.array([4.0, np.e, 1.0])), population)
    np.testing.assert_allclose(bias.mean[:2], [0.5, 0.0])
    np.testing.assert_allclose(bias.variance[:2], [0.0, 1.0])
    assert np.isnan(bias.mean[2]) and np.isnan(bias.variance[2])
    assert (bias.largest, bias.typical, bias.log_variance) == (0.5, 0.25, 0.5)


def test_recomputed_averages_have_no_bias_and_moved_ones_do():
    model, (x, _) = image_net("bn_fc8"), images()
    before = [np.array(w) for w in model.get_weights()]
    assert average_bias(model, x, "head")["head_bn"].largest > 0.1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    recompute_batch_stats(model, x, "head")
    bias = average_bias(model, x, "head")["head_bn"]
    assert bias.largest < 1e-5 and bias.log_variance < 1e-5


def test_initial_averages_remain_by_momentum():
    """After n steps on the same batch the average keeps momentum^n of its start."""
    import keras

    inputs = keras.Input((5,))
    norm = keras.layers.BatchNormalization(momentum=0.9, name="bn")
    model = keras.Model(inputs, norm(inputs))
    x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32") * 2 + 6
    for _ in range(10):
        model(x, training=True)
    bias = average_bias(model, x)["bn"]
    np.testing.assert_allclose(bias.mean, 0.9**10 * np.abs(x.mean(0)) / x.std(0), rtol=1e-4)


def test_all_norms_of_a_net():
    model, (x, _) = image_net("bn_fc8"), images()
    assert len(average_bias(model, x)) == sum(hasattr(layer, "moving_variance") for layer in model.layers)


@pytest.mark.parametrize("population", [(np.zeros(2), np.zeros(2))])
def test_constant_channels_alone(population):
    bias = AverageBias.of((np.zeros(2), np.ones(2)), population)
    assert np.isnan([bias.largest, bias.typical, bias.log_variance]).all()
