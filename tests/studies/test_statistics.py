import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from bnhead.studies.statistics import (
    describe,
    equivalence_power,
    holm,
    logit,
    mean_interval,
    paired,
    power,
    seeds_to_decide,
    slope,
)

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("n", [2, 3, 10, 40])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 0.01), (0.004, 0.002), (-0.02, 0.03)])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_paired_agrees_with_statsmodels(n, shift, scale, alpha):
    rng = np.random.default_rng(n)
    control = rng.normal(0.9, 0.01, n)
    treatment = control + rng.normal(shift, scale, n)
    differences = treatment - control
    result, theirs = paired(differences.tolist(), 0.01, alpha), DescrStatsW(differences)
    tight = {"rel": 1e-10, "abs": 1e-10}
    assert result.mean == pytest.approx(theirs.mean, **tight)
    assert result.sd == pytest.approx(differences.std(ddof=1), **tight)
    assert result.interval == pytest.approx(theirs.tconfint_mean(alpha), **tight)
    assert result.p == pytest.approx(theirs.ttest_mean(0)[1], **tight)
    assert result.interval_tost == pytest.approx(theirs.tconfint_mean(2 * alpha), **tight)
    assert result.p_tost == pytest.approx(ttost_paired(treatment, control, -0.01, 0.01)[0], **tight)
    assert (result.p < alpha) == (result.interval[0] > 0 or result.interval[1] < 0)
    inside = result.interval_tost[0] > -0.01 and result.interval_tost[1] < 0.01
    assert (result.p_tost < alpha) == inside


@pytest.mark.parametrize("n", [2, 3, 10])
@pytest.mark.parametrize(
    ("value", "p", "p_tost"),
    [(0.0, 1.0, 0.0), (0.005, 0.0, 0.0), (-0.1, 0.0, 1.0), (0.01, 0.0, 1.0)],
)
def test_without_spread_the_limits_are_taken(n, value, p, p_tost):
    result = paired([value] * n, 0.01, 0.05)
    assert (result.mean, result.sd, result.p, result.p_tost) == (value, 0.0, p, p_tost)
    assert result.interval == result.interval_tost == (value, value)


def test_the_limits_are_limits():
    values = [0.005 + 1e-9 * k for k in (-1, 0, 1)]
    assert paired(values, 0.01, 0.05).p == pytest.approx(0, abs=1e-6)
    assert paired(values, 0.01, 0.05).p_tost == pytest.approx(0, abs=1e-6)


def test_one_difference_is_too_few():
    with pytest.raises(ValueError):
        paired([0.1], 0.01, 0.05)


def test_the_order_changes_no_bit():
    rng = np.random.default_rng(0)
    values = (rng.normal(0, 1, 6) * 10.0 ** rng.integers(-8, 8, 6)).tolist()
    results = {paired(list(order), 0.01, 0.05) for order in itertools.permutations(values)}
    assert len(results) == 1


@pytest.mark.parametrize("count", [1, 2, 7])
def test_holm_agrees_with_statsmodels(count):
    rng = np.random.default_rng(count)
    for _ in range(5):
        p_values = (rng.random(count) ** 3).round(2).tolist()  # with ties
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


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


@pytest.mark.parametrize(("mean", "sd"), [(0.01, 0.006), (0.004, 0.01), (0.0, 0.01), (0.0099, 0.05)])
def test_seeds_to_decide_is_the_least_that_does(mean, sd):
    needed = seeds_to_decide(mean, sd, 0.01, 0.05)

    def best(n):
        theirs = TTestPower().power(mean / sd, n, 0.05)
        return max(theirs, equivalence_power(n, mean / sd, 0.01 / sd, 0.05))

    assert best(needed) >= 0.8 > best(needed - 1)


def test_seeds_to_decide_gives_up():
    assert seeds_to_decide(0.01, 1.0, 0.01, 0.05) is None


def test_ten_seeds_or_more_are_needed_to_claim_no_difference():
    assert equivalence_power(15, 0.0, 1.0, 0.05) > 0.95 and equivalence_power(8, 0.0, 1.0, 0.05) < 0.8


def test_logit_by_hand():
    assert logit(0.25, 100) == math.log(25.5 / 75.5)
    assert logit(0.0, 10) == -logit(1.0, 10) == math.log(0.5 / 10.5)


def test_slope_and_interval_over_seeds():
    assert slope([5, 6, 7, 9], [1.0, 3.5, 2.0, 8.0]) == pytest.approx(
        np.polyfit([5, 6, 7, 9], [1.0, 3.5, 2.0, 8.0], 1)[0]
    )
    mean, interval = mean_interval([1.0, 2.0, 4.0], 0.05)
    theirs = DescrStatsW(np.array([1.0, 2.0, 4.0]))
    assert mean == pytest.approx(7 / 3) and interval == pytest.approx(theirs.tconfint_mean(0.05))
    assert mean_interval([1.5], 0.05) == (1.5, None)


def test_describe():
    assert describe([3.0, 1.0, 2.0]) == {"n": 3, "mean": 2.0, "sd": 1.0, "min": 1.0, "max": 3.0}
    assert describe([3.0])["sd"] is None and describe([])["mean"] is None
