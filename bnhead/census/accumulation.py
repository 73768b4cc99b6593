"""How the dead units depend on the number of inputs: dead(n), and the dead that would fire on further inputs.

NumPy only.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bnhead.errors import UsageError


@dataclass(frozen=True, eq=False)
class Accumulation:
    """The first input on which each unit was active: dead(n), for every n, follows from it.

    It merges by a minimum, in any order of the parts, and takes one number per unit.

    Attributes:
        first_active: `(units,)` int64, index of that input in the full set; -1 for a dead unit.
        spans: the inputs that were counted, as ranges `(start, stop)` of indices in the full set: disjoint,
            not adjacent, ascending.
    """

    first_active: np.ndarray
    spans: tuple[tuple[int, int], ...]

    def merge(self, accumulation: "Accumulation") -> "Accumulation | None":
        """That of the inputs of both; None if an index is in both, since their order is then not known."""
        spans = sorted(self.spans + accumulation.spans)
        if any(stop > start for (_, stop), (start, _) in itertools.pairwise(spans)):
            return None
        joined: list[tuple[int, int]] = []
        for start, stop in spans:
            if joined and joined[-1][1] == start:
                start = joined.pop()[0]
            joined.append((start, stop))
        a, b = self.first_active, accumulation.first_active
        first = np.where(a < 0, b, np.where(b < 0, a, np.minimum(a, b)))
        return Accumulation(first, tuple(joined))

    @property
    def inputs(self) -> int:
        """N, the number of inputs counted."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def inputs_until_active(self) -> np.ndarray:
        """`(units,)` int64: number of inputs, in their order, up to the first on which the unit was active.

        0 for a dead unit.
        """
        starts = np.array([start for start, _ in self.spans])
        before = np.cumsum([0, *(stop - start for start, stop in self.spans)])  # inputs before each span
        span = np.searchsorted(starts, self.first_active, side="right") - 1
        return np.where(self.first_active < 0, 0, before[span] + self.first_active - starts[span] + 1)

    def dead_after(self, inputs: int) -> np.ndarray:
        """`(units,)` bool: silent on each of the first so many inputs.

        Args:
            inputs: n, 0 to N.

        Raises:
            UsageError: fewer inputs were counted.
        """
        if not 0 <= inputs <= self.inputs:
            raise UsageError(f"inputs must be 0 to {self.inputs}, the number counted, got {inputs}")
        until = self.inputs_until_active
        return (until == 0) | (until > inputs)

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """n = 1, 2, 4, ... and N, and dead(n), the number of units silent on each of the first n inputs.

        Both `(points,)` int64.
        """
        inputs = [1 << k for k in range(self.inputs.bit_length()) if 1 << k < self.inputs] + [self.inputs]
        until = np.sort(self.inputs_until_active)
        dead = (until == 0).sum()
        return np.array(inputs), dead + len(until) - np.searchsorted(until, inputs, side="right")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {"first_active": self.first_active.tolist(), "spans": [list(span) for span in self.spans]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Accumulation":
        """Inverse of `to_dict`."""
        spans = tuple((start, stop) for start, stop in plain["spans"])
        return cls(np.array(plain["first_active"], np.int64), spans)


class Unseen(NamedTuple):
    """The dead units that would fire on further inputs, at least.

    Attributes:
        units: their number, a lower bound.
        low, high: 95 % interval of the bound; both 0 if the bound is, which is its limit.
    """

    units: float
    low: float
    high: float


def chao2(active: np.ndarray, inputs: int) -> Unseen:
    """Chao's lower bound on the number of units that were active on no input, yet are not dead.

    With f1 and f2 units active on exactly one and on exactly two of N inputs, it is
    A f1 (f1 - 1) / (2 (f2 + 1)) with A = (N - 1) / N, at most the dead units: 0 if f1 <= 1. Units may differ
    in how often they fire; inputs must be a random sample. The interval is log-normal, and of the bound: the
    number itself may be larger.

    Args:
        active: `(units,)` integers, inputs on which the unit was active.
        inputs: N, at least 1.

    Reference: Chao 1987, "Estimating the population size for capture-recapture data with unequal
    catchability", eqs. 9 to 12; the bias-corrected form and its variance as in Chiu et al. 2014, "An improved
    nonparametric lower bound of species richness".
    """
    dead, once, twice = (int((active == k).sum()) for k in range(3))
    a = (inputs - 1) / inputs
    bound = a * once * (once - 1) / (2 * (twice + 1))
    if not dead or bound <= 0:
        return Unseen(0.0, 0.0, 0.0)
    # The delta method: the derivatives by f1 and by f2, whose variances are f1 and f2.
    by_once = a * (2 * once - 1) / (2 * (twice + 1))
    by_twice = bound / (twice + 1)
    variance = bound + by_once**2 * once + by_twice**2 * twice
    if not twice:  # the covariances no longer cancel
        variance -= (a * once**2 / 2) ** 2 / (len(active) - dead + bound)
    factor = math.exp(1.96 * math.sqrt(math.log1p(variance / bound**2)))
    return Unseen(*(min(float(dead), units) for units in (bound, bound / factor, bound * factor)))
