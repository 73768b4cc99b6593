"""Contiguity: whether dead units are adjacent, tested on a mask. NumPy and SciPy only.

The order of units in a plain fully connected layer has no meaning, so the null hypothesis is exchangeability:
every arrangement of k dead units among D is equally likely. Concatenation gives the order a meaning: of
average and maximum pooling, or of the growing features of a DenseNet.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bnhead.errors import UsageError

TABLES = 20_000  # largest number of tables for which the block test is exact
SAMPLES = 20_000  # random tables above it


@dataclass(frozen=True)
class Runs:
    """The number of runs of dead units under exchangeable order.

    The number of runs R of k dead units among D is hypergeometric: the runs occupy R of the D - k + 1 gaps
    between living units, and R - 1 of the k - 1 borders between successive dead units separate two runs:
    P(R = r) = C(k - 1, r - 1) C(D - k + 1, r) / C(D, k). So p-values are exact at every size.

    Attributes:
        dead: k.
        units: D.
        runs: R.

    Reference: Mood 1940, "The distribution theory of runs", section 2.
    """

    dead: int
    units: int
    runs: int

    @property
    def expected(self) -> float:
        """E[R] = k (D - k + 1) / D."""
        return self.dead * (self.units - self.dead + 1) / self.units

    @property
    def p(self) -> float:
        """P(R <= runs): small if dead units are closer together than by chance.

        At most a share alpha of exchangeable layers has p <= alpha. 1 if no units or all units are dead,
        since only one arrangement exists then.
        """
        return self._at_most(self.runs)

    @property
    def mid_p(self) -> float:
        """P(R < runs) + P(R = runs) / 2, of mean 1/2 under exchangeability."""
        return (self._at_most(self.runs - 1) + self._at_most(self.runs)) / 2

    def randomised_p(self, rng: np.random.Generator) -> float:
        """P(R < runs) + U P(R = runs) with U uniform on [0, 1): exactly uniform under exchangeability.

        Use it to pool the p-values of many layers; for a single layer report `p`.
        """
        fewer = self._at_most(self.runs - 1)
        return fewer + rng.random() * (self._at_most(self.runs) - fewer)

    def _at_most(self, runs: int) -> float:
        """P(R <= runs)."""
        if not 0 < self.dead < self.units:
            return float(runs >= self.runs)
        return float(stats.hypergeom.cdf(runs, self.units, self.units - self.dead + 1, self.dead))


def dead_runs(dead: np.ndarray) -> Runs:
    """The runs of a mask.

    Args:
        dead: `(units,)` bool, at least one unit.
    """
    dead = _as_mask(dead)
    starts = dead & ~np.concatenate([[False], dead[:-1]])
    return Runs(int(dead.sum()), len(dead), int(starts.sum()))


@dataclass(frozen=True)
class Blocks:
    """Dead units per group of channels, compared with equal shares.

    Attributes:
        sizes: units of each group.
        dead: dead units of each group.
        statistic: Pearson's chi-square of the table of dead and living units by group.
        p: probability of a statistic at least as large if dead units are exchangeable among all units; 1 if
            no units or all units are dead. Exact up to 20,000 tables, else (1 + as large) / (1 + samples)
            over 20,000 random tables.
    """

    sizes: tuple[int, ...]
    dead: tuple[int, ...]
    statistic: float
    p: float


def block_test(dead: np.ndarray, groups: Sequence[int], *, seed: int = 0) -> Blocks:
    """Tests whether dead units are spread unevenly over groups of channels.

    Args:
        dead: `(units,)` bool.
        groups: sizes of the groups, in the order of the units.
        seed: seed of the random tables, if there are too many to enumerate.

    Raises:
        UsageError: the sizes do not add up to the units, or one is below 1.
    """
    dead, sizes = _as_mask(dead), np.array(groups, int)
    if sizes.ndim != 1 or not len(sizes) or sizes.min() < 1 or sizes.sum() != len(dead):
        raise UsageError(f"groups must be sizes that add up to {len(dead)} units, got {list(groups)}")
    observed = np.add.reduceat(dead.astype(int), np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    k = int(dead.sum())
    if not 0 < k < len(dead):
        return Blocks(tuple(sizes.tolist()), tuple(observed.tolist()), 0.0, 1.0)
    statistic = float(_chi_square(observed, sizes, k))
    least = statistic * (1 - 1e-9)  # equal tables in another order count as equal despite rounding
    if np.prod(np.minimum(sizes, k) + 1.0) <= TABLES:
        ranges = [range(min(size, k) + 1) for size in sizes]
        tables = np.array([table for table in itertools.product(*ranges) if sum(table) == k])
        probabilities = stats.multivariate_hypergeom.pmf(tables, sizes, k)
        p = min(1.0, probabilities[_chi_square(tables, sizes, k) >= least].sum())
    else:
        rng = np.random.default_rng(seed)
        tables = rng.multivariate_hypergeometric(sizes, k, SAMPLES, method="marginals")
        p = (1 + np.sum(_chi_square(tables, sizes, k) >= least)) / (1 + SAMPLES)
    return Blocks(tuple(sizes.tolist()), tuple(observed.tolist()), statistic, float(p))


def _chi_square(dead: np.ndarray, sizes: np.ndarray, k: int) -> np.ndarray:
    share = k / sizes.sum()
    return ((dead - sizes * share) ** 2 / (sizes * share * (1 - share))).sum(-1)


def _as_mask(dead: np.ndarray) -> np.ndarray:
    dead = np.asarray(dead)
    if dead.ndim != 1 or dead.dtype != bool or not len(dead):
        raise UsageError(f"dead must be a mask of shape (units,), got {dead.dtype} of shape {dead.shape}")
    return dead
