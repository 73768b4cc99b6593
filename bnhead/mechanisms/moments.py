"""Moments of features, merged batch by batch in float64. NumPy only."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(eq=False)
class FeatureMoments:
    """The first four moments of each channel over examples and positions, and how often it is active.

    Attributes:
        values: number of values of a channel (examples x positions).
        examples: number of examples.
        mean: `(channels,)` float64.
        powers: `(3, channels)` float64, sums of the second, third and fourth powers of the differences from
            the mean.
        active: `(channels,)`, number of examples on which the channel is not 0 at some position.
        positions: positions of an example, 1 for a vector.
    """

    values: int = 0
    examples: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    powers: np.ndarray = field(default_factory=lambda: np.zeros((3, 1)))
    active: np.ndarray = field(default_factory=lambda: np.zeros(1))
    positions: int = 1

    @classmethod
    def of(cls, x: np.ndarray) -> "FeatureMoments":
        """The moments of one batch `(examples, ..., channels)`."""
        rows = np.asarray(x, "float64").reshape(-1, x.shape[-1])
        if not len(rows):
            return cls()
        mean = rows.mean(0)
        centred = rows - mean
        squares = centred**2
        powers = np.stack([squares.sum(0), (squares * centred).sum(0), (squares * squares).sum(0)])
        active = (np.asarray(x).reshape(len(x), -1, x.shape[-1]) != 0).any(1).sum(0)
        return cls(len(rows), len(x), mean, powers, active, len(rows) // len(x))

    def merge(self, other: "FeatureMoments") -> "FeatureMoments":
        """The moments of the values of both.

        Reference: Pébay 2008, "Formulas for robust, one-pass parallel computation of covariances and
        arbitrary-order statistical moments", Sandia report SAND2008-6212, equation 2.1.
        """
        if not self.values or not other.values:
            return self if self.values else other
        a, b = float(self.values), float(other.values)
        n = a + b
        step = other.mean - self.mean
        (a2, a3, a4), (b2, b3, b4) = self.powers, other.powers
        second = a2 + b2 + step**2 * a * b / n
        third = a3 + b3 + step**3 * a * b * (a - b) / n**2 + 3 * step * (a * b2 - b * a2) / n
        fourth = (
            a4
            + b4
            + step**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * step**2 * (a * a * b2 + b * b * a2) / n**2
            + 4 * step * (a * b3 - b * a3) / n
        )
        powers = np.stack([second, third, fourth])
        examples, active = self.examples + other.examples, self.active + other.active
        mean = self.mean + step * (b / n)
        return FeatureMoments(self.values + other.values, examples, mean, powers, active, self.positions)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean)

    @property
    def variance(self) -> np.ndarray:
        """`(channels,)`, biased: the variance that a batch norm averages."""
        return self.powers[0] / max(self.values, 1)

    @property
    def std(self) -> np.ndarray:
        """`(channels,)`, the square root of `variance`."""
        return np.sqrt(self.variance)

    @property
    def skewness(self) -> np.ndarray:
        """`(channels,)`, E[(x - m)^3] / sd^3: 0 for a normal; NaN for a constant channel."""
        return self._standardised(1, 1.5)

    @property
    def kurtosis(self) -> np.ndarray:
        """`(channels,)`, E[(x - m)^4] / sd^4: 3 for a normal; NaN for a constant channel."""
        return self._standardised(2, 2.0)

    @property
    def p_active(self) -> np.ndarray:
        """`(channels,)`, share of the examples on which the channel is not 0 at some position."""
        return self.active / max(self.examples, 1)

    @property
    def severity(self) -> np.ndarray:
        """`(channels,)`, |mean| / sd, the severity of a feature that lies far from 0; inf if constant."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.std > 0, np.abs(self.mean) / self.std, np.where(self.mean == 0, 0, np.inf))

    @property
    def typical_severity(self) -> float:
        """Median of `severity` over the channels that vary; NaN if none does."""
        finite = self.severity[np.isfinite(self.severity)]
        return float(np.median(finite)) if len(finite) else np.nan

    @property
    def largest_severity(self) -> float:
        """Largest `severity` of the channels that vary; NaN if none does."""
        finite = self.severity[np.isfinite(self.severity)]
        return float(finite.max()) if len(finite) else np.nan

    def _standardised(self, row: int, exponent: float) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            # of a constant channel, what remains is rounding
            constant = self.std <= 1e-7 * np.maximum(np.abs(self.mean), 1e-30)
            return np.where(constant, np.nan, self.powers[row] / self.values / self.variance**exponent)
