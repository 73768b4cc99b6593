import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from bnhead.studies.statistics import (
    describe,
    equivalence_power,
    logit,
    power,
    seeds_to_decide,
    slope,
)

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20, 50])
@pytest.mark.parametrize("effect", [0.0, 0.1, -0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_agrees_with_statsmodels(n, effect, alpha):
    theirs = TTestPower().power(effect, n, alpha)
    if math.isnan(theirs):  # it has no number for the far tail, which is 0
        assert effect * math.sqrt(n) > 7 and 0.9999 < power(n, effect, alpha) <= 1
    else:
        assert power(n, effect, alpha) == pytest.approx(theirs, abs=1e-10)


def test_power_grows_with_the_effect_to_1():
    for n in (2, 3, 10, 100, 1000):
        values = [power(n, effect, 0.05) for effect in np.linspace(0, 60, 200)]
        assert (np.diff(values) > -1e-9).all() and values[-1] > 0.99 and max(values) <= 1 + 1e-9


@pytest.mark.parametrize(("n", "effect", "margin"), [(3, 0, 4), (10, 0, 1), (10, 0.3, 1), (20, -0.2, 0.8)])
def test_power_of_equivalence_is_that_of_simulated_studies(n, effect, margin):
    studies = np.random.default_rng(0).normal(effect, 1, (100_000, n))
    half = stats.t.isf(0.05, n - 1) * studies.std(1, ddof=1) / math.sqrt(n)
    simulated = (abs(studies.mean(1)) + half < margin).mean()
    assert equivalence_power(n, effect, margin, 0.05) == pytest.approx(simulated, abs=5 * 0.5 / 316)


def test_no_equivalence_at_the_margin_or_with_too_wide_a_spread():
    assert equivalence_power(100, 1.0, 1.0, 0.05) == pytest.approx(0.05, abs=0.002)
    assert equivalence_power(3, 0.0, 1e-4, 0.05) < 1e-6


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 12])
@pytest.mark.parametrize(("mean", "sd"), [(0.01, 0.006), (0.004, 0.01), (0.0, 0.01), (0.0099, 0.05)])
def test_seeds_to_decide_is_the_least_that_does(mean, sd, alpha):
    """Both ways to decide by one interval: it excludes 0, or it lies inside the margin."""
    needed = seeds_to_decide(mean, sd, 0.01, alpha)

    def best(n):
        theirs = TTestPower().power(mean / sd, n, alpha)
        # the interval of level alpha inside the margin: two one-sided tests at half of it
        return max(theirs, equivalence_power(n, mean / sd, 0.01 / sd, alpha / 2))

    assert best(needed) >= 0.8 > best(needed - 1)


def test_seeds_to_decide_gives_up():
    assert seeds_to_decide(0.01, 1.0, 0.01, 0.05) is None


def test_ten_seeds_or_more_are_needed_to_claim_no_difference():
    assert equivalence_power(15, 0.0, 1.0, 0.05) > 0.95 and equivalence_power(8, 0.0, 1.0, 0.05) < 0.8


def test_logit_by_hand():
    assert logit(0.25, 100) == math.log(25.5 / 75.5)
    assert logit(0.0, 10) == -logit(1.0, 10) == math.log(0.5 / 10.5)


def test_the_slope_is_that_of_numpy():
    x, y = [5, 6, 7, 9], [1.0, 3.5, 2.0, 8.0]
    assert slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0])


def test_describe():
    assert describe([3.0, 1.0, 2.0]) == {"n": 3, "mean": 2.0, "sd": 1.0, "min": 1.0, "max": 3.0}
    assert describe([3.0])["sd"] is None and describe([])["mean"] is None


def test_the_order_changes_no_bit():
    rng = np.random.default_rng(0)
    values = (rng.normal(0, 1, 6) * 10.0 ** rng.integers(-8, 8, 6)).tolist()
    assert len({tuple(describe(order).values()) for order in itertools.permutations(values)}) == 1
    points = list(zip(range(6), values, strict=True))
    slopes = {slope(*zip(*random.Random(k).sample(points, 6), strict=True)) for k in range(20)}
    assert len(slopes) == 1
