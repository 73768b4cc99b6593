"""Do dead units lie side by side? Tests on the mask of a layer's dead units: NumPy and SciPy.

The order of the units of a plain fully connected layer carries no meaning, so the expectation there is no
contiguity: every arrangement of k dead units among D is equally likely (exchangeability). What orders units
is concatenation: of average and maximum pooling, or of a DenseNet's growing features.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bnhead.errors import UsageError

TABLES = 20_000  # up to so many tables the block test is exact
SAMPLES = 20_000  # and beyond them it draws so many


@dataclass(frozen=True)
class Runs:
    """The number of runs of dead units against exchangeable order.

    The number of runs R of k dead units among D is hypergeometric: R - 1 of the k - 1 borders between
    neighbouring dead units are cut, and the runs lie in R of the D - k + 1 gaps between the living, which
    gives P(R = r) = C(k - 1, r - 1) C(D - k + 1, r) / C(D, k). So p-values are exact at every size.

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
        """P(R <= runs): small where dead units lie closer together than by chance.

        At most a share alpha of exchangeable layers has p <= alpha. 1 without dead units, or without any
        others, where there is but one arrangement.
        """
        return self._at_most(self.runs)

    @property
    def mid_p(self) -> float:
        """P(R < runs) + P(R = runs) / 2, of mean 1/2 under exchangeability."""
        return (self._at_most(self.runs - 1) + self._at_most(self.runs)) / 2

    def randomised_p(self, rng: np.random.Generator) -> float:
        """P(R < runs) + U P(R = runs) with U uniform on [0, 1): exactly uniform under exchangeability.

        Use it where p-values of many layers are pooled; of one layer alone `p` is the honest one.
        """
        below = self._at_most(self.runs - 1)
        return below + rng.random() * (self._at_most(self.runs) - below)

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
    dead = _mask(dead)
    starts = dead & ~np.concatenate([[False], dead[:-1]])
    return Runs(int(dead.sum()), len(dead), int(starts.sum()))


@dataclass(frozen=True)
class Blocks:
    """Dead units per group of channels against equal shares.

    Attributes:
        sizes: units of each group.
        dead: dead units of each group.
        statistic: Pearson's chi-square of the table of dead and other units by group.
        p: probability, dead units being exchangeable among all units, of a statistic at least as large; 1
            without dead units or others. Exact up to 20,000 tables, else (1 + as large) / (1 + drawn) over
            20,000 random tables.
    """

    sizes: tuple[int, ...]
    dead: tuple[int, ...]
    statistic: float
    p: float


def block_test(dead: np.ndarray, groups: Sequence[int], *, seed: int = 0) -> Blocks:
    """Whether some groups of channels hold more of the dead units than others.

    Args:
        dead: `(units,)` bool.
        groups: sizes of the groups, in the order of the units.
        seed: seed of the random tables, where there are too many to go through.

    Raises:
        UsageError: the sizes do not add up to the units, or one is below 1.
    """
    dead, sizes = _mask(dead), np.array(groups, int)
    if sizes.ndim != 1 or not len(sizes) or sizes.min() < 1 or sizes.sum() != len(dead):
        raise UsageError(f"groups must be sizes that add up to {len(dead)} units, got {list(groups)}")
    found = np.add.reduceat(dead.astype(int), np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    k = int(dead.sum())
    if not 0 < k < len(dead):
        return Blocks(tuple(sizes.tolist()), tuple(found.tolist()), 0.0, 1.0)
    statistic = float(_chi_square(found, sizes, k))
    if np.prod(np.minimum(sizes, k) + 1.0) <= TABLES:
        p = _exact(statistic, sizes, k)
    else:
        tables = np.random.default_rng(seed).multivariate_hypergeometric(
            sizes, k, SAMPLES, method="marginals"
        )
        p = (1 + np.sum(_chi_square(tables, sizes, k) >= statistic * (1 - 1e-9))) / (1 + SAMPLES)
    return Blocks(tuple(sizes.tolist()), tuple(found.tolist()), statistic, float(p))


def _chi_square(found: np.ndarray, sizes: np.ndarray, k: int) -> np.ndarray:
    share = k / sizes.sum()
    return ((found - sizes * share) ** 2 / (sizes * share * (1 - share))).sum(-1)


def _exact(statistic: float, sizes: np.ndarray, k: int) -> float:
    ranges = [range(min(size, k) + 1) for size in sizes]
    tables = np.array([table for table in itertools.product(*ranges) if sum(table) == k])
    probabilities = stats.multivariate_hypergeom.pmf(tables, sizes, k)
    # as large to rounding: equal tables in another order must count as equal
    return float(min(1.0, probabilities[_chi_square(tables, sizes, k) >= statistic * (1 - 1e-9)].sum()))


def _mask(dead: np.ndarray) -> np.ndarray:
    dead = np.asarray(dead)
    if dead.ndim != 1 or dead.dtype != bool or not len(dead):
        raise UsageError(f"dead must be a mask of shape (units,), got {dead.dtype} of shape {dead.shape}")
    return dead
