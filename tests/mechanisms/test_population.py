import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.mechanisms.population import Mates, reference
from bnhead.mechanisms.split import Split
from tests.mechanisms.nets import data, image_net, images, vector_net


@pytest.mark.parametrize("batch_size", [1, 7, 120])
def test_moments_are_those_of_all_features(batch_size):
    model, (x, y) = vector_net("bn_fc8"), data()
    split = Split(model)
    known = reference(split, (x, y), batch_size=batch_size)
    features = split.features(x)
    values = features["features"].astype("float64")
    np.testing.assert_allclose(known.population[0], values.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(known.population[1], values.var(0), rtol=1e-5)
    outputs = split.outputs(features, split.evaluation())
    np.testing.assert_allclose(known.fc.mean, outputs["fc"].mean(0), rtol=1e-4, atol=1e-5)
    read = outputs["output"]
    np.testing.assert_allclose(known.output.means[2], read[y == 2].mean(0), rtol=1e-4, atol=1e-5)
    assert known.output.counts.tolist() == np.bincount(y).tolist()
    np.testing.assert_allclose(
        known.output.total, np.cov(read.T.astype("float64")) * 119, rtol=1e-3, atol=1e-4
    )


def test_maps_and_data_without_labels():
    model, (x, _) = image_net("bn_gap_fc8"), images()
    known = reference(model, x)
    values = Split(model).features(x)["features"].astype("float64")
    np.testing.assert_allclose(known.population[1], values.var((0, 1, 2)), rtol=1e-5)
    assert known.output is None and known.features.positions == 4
    assert reference(vector_net("fc8_out_bn"), data()).fc is None


def test_the_statistics_of_a_batch_are_those_of_its_examples():
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(40, 3, 2, 5)).astype("float32") + 1000  # squares of 1e6 must not cancel
    mates = Mates()
    mates.add(x[:10])
    mates.add(x[10:])
    row = mates.sums(x[5:9]).sum(0)
    mean, variance = mates.statistics(x[20:23], row, 4)
    for i in range(3):
        batch = np.concatenate([x[5:9], x[20 + i : 21 + i]]).astype("float64").reshape(-1, 5)
        np.testing.assert_allclose(mean[i], batch.mean(0), rtol=1e-12)
        np.testing.assert_allclose(variance[i], batch.var(0), rtol=1e-8)


def test_a_draw_without_replacement_of_all_is_all():
    x = np.random.default_rng(0).normal(size=(12, 3))
    mates = Mates()
    mates.add(x)
    rng = np.random.default_rng(1)
    np.testing.assert_allclose(mates.draw(rng, 3, 12), np.stack([mates.sums(x).sum(0)] * 3), atol=1e-12)
    draws = mates.draw(rng, 4000, 3)[:, 0] / 3
    expected = x.var(0) / 3 * (1 - 2 / 11)  # of a mean without replacement
    np.testing.assert_allclose(draws.var(0), expected, rtol=0.1)
    with pytest.raises(UsageError, match="batch_size must be at most the 13 examples, got 14"):
        mates.draw(rng, 1, 13)


def test_the_sample_is_the_same_for_every_example():
    """A reservoir: of 400 examples in batches of 30, each is one of the 50 with probability 1 / 8."""
    hits = np.zeros(400)
    for seed in range(300):
        mates = Mates(seed, size=50)
        for part in np.array_split(np.arange(400.0)[:, None], 14):
            mates.add(part)
        assert mates._sums.shape == (50, 2, 1) and mates.seen == 400
        hits[np.round(mates._sums[:, 0, 0] + mates._centre[0]).astype(int)] += 1
    assert hits.sum() == 15_000
    quarters = hits.reshape(4, 100).mean(1)
    assert np.abs(quarters - 37.5).max() < 3  # 4.5 standard errors


def test_data_that_cannot_be_used():
    model, (x, _) = vector_net("bn_fc8"), data(5)
    with pytest.raises(UsageError, match="at least one batch"):
        reference(model, x[:0])
    x[2, 3] = np.nan
    with pytest.raises(UsageError, match="values that reach layer 'head_bn', are not finite"):
        reference(model, x)
