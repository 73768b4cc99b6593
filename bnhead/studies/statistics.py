"""Power, slopes and summaries. The interval of a verdict is in `bnhead.studies.intervals`.

Sums are exact (Python's own `statistics` computes them in fractions), so that no result depends on the order
of the rows.
"""

import functools
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epy

with epy.lazy_imports():  # a report reads its verdict and needs no SciPy
    from scipy import stats

ENOUGH_POWER = 0.8
MOST_SEEDS = 1000  # a study that needs more gets no number


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
    nodes, weights = gauss_legendre()
    low, high = (float(q) / math.sqrt(freedom) for q in stats.chi.ppf((1e-12, 1 - 1e-12), freedom))
    if most <= low:
        return 0.0
    high = min(most, high)
    deviation = low + (high - low) * (nodes + 1) / 2  # in units of the true deviation
    room = margin * root - deviation * stats.t.isf(alpha, freedom)
    inside = stats.norm.cdf(room - effect * root) - stats.norm.cdf(-room - effect * root)
    density = stats.chi.pdf(deviation * math.sqrt(freedom), freedom) * math.sqrt(freedom)
    return float((weights * np.clip(inside, 0, 1) * density).sum() * (high - low) / 2)


@functools.cache  # its eigenvalues take longer than a verdict
def gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    """The nodes in (-1, 1) and the weights of a Gauss-Legendre integral of 200 points."""
    return np.polynomial.legendre.leggauss(200)


def seeds_to_decide(mean: float, sd: float, delta: float, alpha: float) -> int | None:
    """The least number of seeds that would decide with a power of 80 % if mean and sd were the true ones.

    A decision is an interval that excludes 0 or lies inside the margin. None if more than 1,000 would be
    needed.

    Args:
        mean: observed mean difference.
        sd: observed standard deviation over seeds, not 0.
        delta: the margin.
        alpha: error rate of the interval.
    """

    def decides(n: int) -> bool:
        return (
            power(n, mean / sd, alpha) >= ENOUGH_POWER
            or equivalence_power(n, mean / sd, delta / sd, alpha / 2) >= ENOUGH_POWER
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
