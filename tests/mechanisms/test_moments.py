import numpy as np
import pytest
import scipy.stats

from bnhead.mechanisms.moments import FeatureMoments

pytestmark = pytest.mark.quick


def merged(batches):
    total = FeatureMoments()
    for batch in batches:
        total = total.merge(FeatureMoments.of(batch))
    return total


@pytest.mark.parametrize("sizes", [(40,), (1, 39), (7, 7, 0, 26), (1,) * 40])
@pytest.mark.parametrize("shape", [(5,), (3, 2, 5)])
def test_moments_equal_scipys_whatever_the_batches(sizes, shape):
    x = np.random.default_rng(0).exponential(size=(40, *shape)) + 100
    x[:, ..., 0] = np.maximum(x[:, ..., 0] - 101.5, 0)
    total = merged(np.split(x, np.cumsum(sizes)[:-1]))
    rows = x.reshape(-1, 5)
    np.testing.assert_allclose(total.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(total.variance, rows.var(0), rtol=1e-9)
    np.testing.assert_allclose(total.skewness, scipy.stats.skew(rows), rtol=1e-7)
    np.testing.assert_allclose(total.kurtosis, scipy.stats.kurtosis(rows, fisher=False), rtol=1e-7)
    np.testing.assert_array_equal(total.active, (x.reshape(40, -1, 5) != 0).any(1).sum(0))
    assert (total.values, total.examples, total.positions) == (len(rows), 40, len(rows) // 40)
    np.testing.assert_allclose(total.severity, np.abs(rows.mean(0)) / rows.std(0), rtol=1e-9)


def test_a_constant_channel_has_no_shape_and_infinite_severity():
    x = np.stack([np.full(50, 0.1), np.zeros(50), np.arange(50.0)], axis=1).astype("float32")
    total = merged(np.split(x, 5))
    assert np.isnan(total.skewness[:2]).all() and np.isnan(total.kurtosis[:2]).all()
    assert total.kurtosis[2] == pytest.approx(1.8, abs=0.01)  # of a uniform
    assert total.severity[1] == 0 and total.severity[0] > 1e6
    assert total.p_active.tolist() == [1.0, 0.0, 0.98]


def test_a_rarely_active_unit_is_heavy_tailed_as_the_formula_says():
    """1 on a share p of inputs: skewness (1 - 2p) / s and kurtosis 1 / s^2 - 3, with s^2 = p (1 - p)."""
    x = np.zeros((1000, 1))
    x[:20] = 1
    p = 0.02
    moments = FeatureMoments.of(x)
    assert moments.skewness[0] == pytest.approx((1 - 2 * p) / np.sqrt(p * (1 - p)))
    assert moments.kurtosis[0] == pytest.approx(1 / (p * (1 - p)) - 3)
    assert moments.p_active[0] == p
