"""The arithmetic of a verdict, on paired differences: t interval, equivalence, Holm, power, slopes.

Sums are exact (Python's own `statistics` computes them in fractions), so that no result depends on the order
of the rows. If all differences are equal, the limits of the formulas are taken: the interval is the point, p
is 1 for a difference of 0 and 0 for any other, and equivalence holds inside the margin but not on it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ENOUGH_POWER = 0.8
MOST_SEEDS = 1000  # a study that needs more gets no number


@dataclass(frozen=True)
class Paired:
    """A paired t test and two one-sided ones (TOST, Schuirmann 1987).

    Attributes:
        n: number of differences.
        mean: their mean.
        sd: their standard deviation, of n - 1 degrees of freedom.
        interval: of confidence 1 - alpha.
        p: two-sided, of the mean being 0.
        interval_tost: of confidence 1 - 2 alpha; inside the margin exactly when `p_tost` < alpha.
        p_tost: of the mean being outside the margin, the larger of the two one-sided p-values.
    """

    n: int
    mean: float
    sd: float
    interval: tuple[float, float]
    p: float
    interval_tost: tuple[float, float]
    p_tost: float


def paired(differences: Sequence[float], delta: float, alpha: float) -> Paired:
    """The tests of at least two differences.

    Args:
        differences: treatment minus control, one for each seed.
        delta: the margin: a mean inside (-delta, delta) is not material.
        alpha: error rate.

    Raises:
        ValueError: there are fewer than two differences.
    """
    n = len(differences)
    mean, sd = float(statistics.mean(differences)), float(statistics.stdev(differences))
    error = sd / math.sqrt(n)
    if error == 0:
        p, p_tost = float(mean == 0), float(abs(mean) >= delta)
        return Paired(n, mean, 0.0, (mean, mean), p, (mean, mean), p_tost)
    # Not scipy.stats.ttest_1samp: its sums depend on the order of the differences, and other last digits
    # would contradict the verdicts that studies have written.
    wide, narrow = (error * stats.t.isf(tail, n - 1) for tail in (alpha / 2, alpha))
    return Paired(
        n,
        mean,
        sd,
        (float(mean - wide), float(mean + wide)),
        float(2 * stats.t.sf(abs(mean) / error, n - 1)),
        (float(mean - narrow), float(mean + narrow)),
        float(stats.t.sf((delta - abs(mean)) / error, n - 1)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given; together they err at most at alpha."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def power(n: int, effect: float, alpha: float) -> float:
    """The power of the two-sided paired t test, by the noncentral t distribution.

    Args:
        n: number of pairs, at least 2.
        effect: the mean difference in units of its standard deviation.
        alpha: error rate.
    """
    critical, shift = stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)
    # sf and cdf of the noncentral t lose all digits far out, at values near 0 or 1
    tails = stats.nct.sf(critical, n - 1, abs(shift)), stats.nct.cdf(-critical, n - 1, abs(shift))
    return 1.0 if abs(shift) > 30 else float(np.nan_to_num(tails).sum())


def equivalence_power(n: int, effect: float, margin: float, alpha: float) -> float:
    """The power of the paired TOST: an integral over the chi distribution of the standard deviation.

    Args:
        n: number of pairs, at least 2.
        effect: the mean difference in units of its standard deviation.
        margin: delta in the same units.
        alpha: error rate.
    """
    root, freedom = math.sqrt(n), n - 1
    most = margin * root / stats.t.isf(alpha, freedom)  # a larger deviation never shows equivalence
    nodes, weights = np.polynomial.legendre.leggauss(200)
    low, high = (float(q) / math.sqrt(freedom) for q in stats.chi.ppf((1e-12, 1 - 1e-12), freedom))
    if most <= low:
        return 0.0
    high = min(most, high)
    deviation = low + (high - low) * (nodes + 1) / 2  # in units of the true deviation
    room = margin * root - deviation * stats.t.isf(alpha, freedom)
    inside = stats.norm.cdf(room - effect * root) - stats.norm.cdf(-room - effect * root)
    density = stats.chi.pdf(deviation * math.sqrt(freedom), freedom) * math.sqrt(freedom)
    return float((weights * np.clip(inside, 0, 1) * density).sum() * (high - low) / 2)


def seeds_to_decide(mean: float, sd: float, delta: float, alpha: float) -> int | None:
    """The least number of seeds that would decide with a power of 80 % if mean and sd were the true ones.

    A decision is a difference or no material difference. None if more than 1,000 would be needed.

    Args:
        mean: observed mean difference.
        sd: observed standard deviation, not 0.
        delta: the margin.
        alpha: error rate of this comparison; over a family of m, Holm's first step, alpha / m.
    """

    def decides(n: int) -> bool:
        return (
            power(n, mean / sd, alpha) >= ENOUGH_POWER
            or equivalence_power(n, mean / sd, delta / sd, alpha) >= ENOUGH_POWER
        )

    if not decides(MOST_SEEDS):
        return None
    low, high = 2, MOST_SEEDS  # each power, and so the larger of the two, grows with n from 3 on
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def logit(share: float, trials: int) -> float:
    """log(share / (1 - share)) with half a trial added on both sides, so that none and all stay finite.

    Args:
        share: in [0, 1].
        trials: number of trials of the share (Haldane 1956, Anscombe 1956).
    """
    return math.log((share * trials + 0.5) / ((1 - share) * trials + 0.5))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the least-squares line through at least two different x."""
    return float(statistics.linear_regression(x, y).slope)


def mean_interval(values: Sequence[float], alpha: float) -> tuple[float, tuple[float, float] | None]:
    """The mean and its t interval of confidence 1 - alpha; None for one value."""
    if len(values) < 2:
        return float(statistics.mean(values)), None
    result = paired(values, 1.0, alpha)
    return result.mean, result.interval


def describe(values: Sequence[float]) -> Mapping[str, float | int | None]:
    """n, mean, sd (None for one value), min and max; for no values all except n are None."""
    if not values:
        return {"n": 0, "mean": None, "sd": None, "min": None, "max": None}
    sd = float(statistics.stdev(values)) if len(values) > 1 else None
    return {
        "n": len(values),
        "mean": float(statistics.mean(values)),
        "sd": sd,
        "min": float(min(values)),
        "max": float(max(values)),
    }
