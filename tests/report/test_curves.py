import math

import numpy as np
import pytest

from bnhead.report.curves import Band, at_most, band, swarm, visible_range

pytestmark = pytest.mark.quick


def test_bands_agree_with_numpy():
    curves = np.random.default_rng(0).normal(size=(7, 11))
    bands = band(curves.tolist())
    np.testing.assert_allclose([b.middle for b in bands], np.median(curves, 0), rtol=1e-15)
    assert [b.low for b in bands] == curves.min(0).tolist() and [b.high for b in bands] == curves.max(
        0
    ).tolist()
    assert [b.epoch for b in bands] == list(range(1, 12)) and {b.n for b in bands} == {7}


def test_runs_that_ended_early_count_as_far_as_they_go():
    bands = band([[1.0, 2.0, 3.0], [3.0], [math.nan, 4.0, math.inf], [math.nan] * 4])
    assert bands == [Band(1, 2, 1.0, 2.0, 3.0), Band(2, 2, 2.0, 3.0, 4.0), Band(3, 1, 3.0, 3.0, 3.0)]
    assert band([]) == [] == band([[math.nan]])


def test_at_most_keeps_both_ends():
    bands = band([list(range(15))])
    assert [b.epoch for b in at_most(bands, 6)] == [1, 4, 7, 9, 12, 15]
    assert at_most(bands[:3], 6) == bands[:3]


def test_the_axis_shows_the_whole_of_a_short_training():
    rising = band([[0.1, 0.5, 0.9, 0.95], [0.2, 0.3, 0.8, 0.99]])
    assert visible_range([rising]) == (0.1, 0.99)
    assert visible_range([]) == (0.0, 1.0)


def test_the_axis_leaves_out_the_first_third_of_a_long_training():
    rising = band([[0.1, 0.2, 0.3, 0.5, *[0.9] * 8], [0.1, 0.2, 0.3, 0.3, *[0.99] * 8]])
    assert visible_range([rising]) == (pytest.approx(0.4), 0.99)
    short = band([[0.1] * 10])
    assert visible_range([short]) == (0.1, 0.1)


def test_a_swarm_does_not_overlap():
    values = np.random.default_rng(1).normal(size=60).tolist()
    levels = list(swarm(values, 0.1))
    for level in set(levels):
        own = sorted(v for v, k in zip(values, levels, strict=True) if k == level)
        assert np.diff(own).min(initial=1) >= 0.1
    assert list(swarm([3.0, 1.0, 2.0], 0.5)) == [0, 0, 0] and list(swarm([1.0, 1.0, 1.0], 0.5)) == [0, 1, 2]
