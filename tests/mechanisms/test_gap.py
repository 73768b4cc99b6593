import numpy as np
import pytest

from bnhead.layers import recompute_batch_stats
from bnhead.mechanisms.gap import linear_cka, own_share
from bnhead.mechanisms.measurements import measure
from bnhead.mechanisms.split import Split, cross_entropy
from tests.mechanisms.nets import data, image_net, images, numpy, vector_net


def test_an_examples_own_share_written_out():
    model, (x, _) = vector_net("bn_fc8"), data(6)
    split = Split(model)
    values = split.features(x)["features"].astype("float64")
    mean, variance = own_share(split, values, 0.25)
    moving_mean, moving_variance = split.moving
    np.testing.assert_allclose(mean, 0.25 * values + 0.75 * moving_mean)
    second = 0.25 * values**2 + 0.75 * (moving_variance + moving_mean**2)
    np.testing.assert_allclose(variance, second - mean**2, rtol=1e-6, atol=1e-9)
    maps = np.random.default_rng(0).normal(size=(6, 3, 3, 10))
    mean, variance = own_share(split, maps, 0.25)
    second = 0.25 * (maps**2).mean((1, 2)) + 0.75 * (moving_variance + moving_mean**2)
    np.testing.assert_allclose(variance, second - mean**2, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_nothing_and_all(share):
    split = Split(vector_net("bn_fc8"))
    x = np.random.default_rng(0).normal(size=(4, 10))
    mean, variance = own_share(split, x, share)
    expected = split.moving if share == 0 else (x, np.zeros((4, 10)))
    np.testing.assert_allclose(mean, np.broadcast_to(expected[0], mean.shape))
    np.testing.assert_allclose(variance, np.broadcast_to(expected[1], mean.shape), atol=1e-12)


def test_accuracy_and_loss_by_statistics_are_the_models():
    model, (x, y) = image_net("bn_fc8"), images()
    gap = measure(model, (x, y), groups="gap", training_batch=8).gap
    moving = numpy(model(x, training=False))
    recompute_batch_stats(model, x, "head")
    population = numpy(model(x, training=False))
    for name, logits in (("moving", moving), ("population", population)):
        assert gap.accuracy[name] == pytest.approx((logits.argmax(1) == y).mean())
        assert gap.loss[name] == pytest.approx(cross_entropy(logits, y).mean(), rel=1e-3)
    assert gap.loss["moving"] != pytest.approx(gap.loss["population"], rel=0.01)
    after = measure(model, (x, y), groups="gap", training_batch=8).gap
    assert after.loss["moving"] == pytest.approx(after.loss["population"], rel=1e-4)
    assert after.averages.largest < 1e-4 < gap.averages.largest


def test_cka_equals_its_definition_and_is_1_for_a_rotation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)) * [3, 1, 1, 0.2] + 5
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]

    def scatter(y):
        both = np.concatenate([x, y], 1)
        return np.cov(both.T) * 199

    assert linear_cka(scatter(x @ rotation * 3 - 2)) == pytest.approx(1)
    y = x + rng.normal(size=x.shape)
    xc, yc = x - x.mean(0), y - y.mean(0)
    kernels = xc @ xc.T, yc @ yc.T
    expected = (kernels[0] * kernels[1]).sum() / np.linalg.norm(kernels[0]) / np.linalg.norm(kernels[1])
    assert linear_cka(scatter(y)) == pytest.approx(expected)
    assert linear_cka(scatter(rng.normal(size=x.shape))) < 0.1


def test_a_large_batch_has_no_gap_of_modes():
    model, (x, y) = vector_net("bn_fc8"), data()
    recompute_batch_stats(model, x, "head")
    small, large = (measure(model, (x, y), groups="gap", training_batch=b).gap for b in (3, 120))
    assert small.cka < large.cka - 0.05 and large.cka > 0.995


def test_without_labels_and_without_a_norm():
    x, y = data()
    gap = measure(vector_net("bn_fc8"), x, groups="gap", training_batch=8).gap
    assert gap.accuracy == {} and 0 < gap.cka <= 1
    assert measure(vector_net("fc8"), (x, y), groups="gap", training_batch=8).gap is None
