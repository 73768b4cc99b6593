import numpy as np
import pytest

from bnhead.census.clones import correlations, groups_of, pairs_of

pytestmark = pytest.mark.quick


def products_of(values):
    centred = values - values.mean(0)
    return centred.T @ centred


def test_correlations_are_numpys():
    values = np.random.default_rng(0).normal(size=(50, 6)) * [1, 1e-3, 1e3, 1, 0, 1]
    constant = values.var(0) == 0
    found = correlations(products_of(values), constant)
    changing = np.flatnonzero(~constant)
    np.testing.assert_allclose(
        found[np.ix_(changing, changing)], np.corrcoef(values[:, changing].T), atol=1e-12
    )
    assert np.isnan(found[4]).all() and np.isnan(found[:, 4]).all()
    assert np.nanmax(found) == 1 and np.nanmin(found) >= -1


def test_pairs_are_at_least_the_threshold_and_in_order():
    correlation = np.array(
        [
            [1, 0.99, -1, np.nan],
            [0.99, 1, 0.9899, np.nan],
            [-1, 0.9899, 1, np.nan],
            [np.nan] * 4,
        ]
    )
    assert pairs_of(correlation, 0.99).tolist() == [[0, 1]]
    assert pairs_of(correlation, 0.98).tolist() == [[0, 1], [1, 2]]
    assert pairs_of(correlation[3:, 3:], 0.99).shape == (0, 2)


def test_groups_are_chains_of_pairs():
    groups = groups_of(np.array([[1, 4], [4, 6], [0, 3]]), 8)
    assert [group.tolist() for group in groups] == [[0, 3], [1, 4, 6]]
    assert groups_of(np.empty((0, 2), np.int64), 3) == []
