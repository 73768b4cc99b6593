"""Interval arithmetic: the bounds of a tensor's values, and of sums, products and maxima of such. NumPy only.

The bounds hold for the values that a backend computes, not only in exact arithmetic. A sum of n terms in an
arithmetic of unit roundoff u is wrong by at most g = n u / (1 - n u) of the sum of the absolute terms, in any
order, with or without fused operations. So positive terms count (1 + g) times and negative ones (1 - g)
times, in float64. A sum without positive terms is at most 0, as it is in floating point. float32 includes
TensorFloat-32. Not included are algorithms that transform their operands before they multiply (Winograd,
FFT), overflow, and values that are not finite.

Reference: Higham 2002, "Accuracy and stability of numerical algorithms", section 4.2.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
_SMALLEST = {"float16": 2.0**-14, "float64": 2.0**-1022}  # normal number; smaller ones may become 0
_TF32 = 2.0**-10  # relative error of a product whose factors are rounded to 11 bits
_OF_BOUNDS = 2.0**-52  # the bounds are rounded themselves
_BLOCK = 2**22  # entries of a kernel that are in float64 at the same time


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds of a tensor's values for every example.

    Attributes:
        low, high: float64, with the tensor's axes without that of the examples; an axis of size 1 is common
            to all its indices.
        norms: norm of the incoming weights of each unit, of the same form; None if no kernel made the units.
        affine: whether the values are an affine function of a kernel or norm that no activation followed yet.
    """

    low: np.ndarray
    high: np.ndarray
    norms: np.ndarray | None = None
    affine: bool = False

    @classmethod
    def of(cls, low: float, high: float, rank: int) -> "Box":
        """The same bounds for all values of a tensor of `rank` axes."""
        shape = (1,) * max(rank - 1, 0)
        return cls(np.full(shape, low, np.float64), np.full(shape, high, np.float64))

    @property
    def rank(self) -> int:
        """Number of the tensor's axes, with that of the examples."""
        return self.low.ndim + 1

    def with_zero(self) -> "Box":
        """The box that also holds 0, as after a padding with zeros."""
        return replace(self, low=np.minimum(self.low, 0), high=np.maximum(self.high, 0))

    def along(self, axis: int, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Bounds for each index of one axis, counted without the examples: two `(size,)` or `(1,)` arrays."""
        axes = tuple(i for i in range(self.low.ndim) if i != axis % self.low.ndim)
        bounds = self.low.min(axes), self.high.max(axes)
        return bounds if size is None else tuple(np.broadcast_to(bound, (size,)) for bound in bounds)

    def hull(self, box: "Box") -> "Box":
        """The smallest box that holds both."""
        return replace(self, low=np.minimum(self.low, box.low), high=np.maximum(self.high, box.high))

    def widened(self, share: float) -> "Box":
        """The box with a relative rounding error added."""
        low, high = self.low - share * np.abs(self.low), self.high + share * np.abs(self.high)
        return replace(self, low=low, high=high)

    def scaled(self, scale: np.ndarray, shift: np.ndarray, size: np.ndarray, error: float) -> "Box":
        """The box of scale x + shift, with a rounding error relative to |scale x| and to `size`."""
        ends = [
            np.where(scale == 0, 0, scale * np.where(scale == 0, 0, end)) for end in (self.low, self.high)
        ]
        low, high = np.minimum(*ends), np.maximum(*ends)
        bounds = [end + shift + sign * error * (np.abs(end) + size) for end, sign in ((low, -1), (high, 1))]
        bounds = [np.where(np.isinf(end), end, bound) for end, bound in zip((low, high), bounds, strict=True)]
        norms = None if self.norms is None else np.abs(scale) * self.norms
        return Box(*bounds, norms, affine=True)

    def plus(self, box: "Box") -> "Box":
        """The box of the sum, in exact arithmetic, as the boxes below."""
        return Box(self.low + box.low, self.high + box.high)

    def minus(self, box: "Box") -> "Box":
        """The box of the difference."""
        return Box(self.low - box.high, self.high - box.low)

    def times(self, box: "Box") -> "Box":
        """The box of the product."""
        ends = [x * y for x in (self.low, self.high) for y in (box.low, box.high)]
        ends = [np.where(np.isnan(end), 0, end) for end in ends]  # 0 times an open end: every value is finite
        return Box(np.minimum.reduce(ends), np.maximum.reduce(ends))

    def over(self, box: "Box") -> "Box":
        """The box of the quotient, unbounded if the divisor may be 0."""
        crosses = (box.low <= 0) & (box.high >= 0)
        low, high = (np.where(crosses, end, 1 / x) for end, x in ((-np.inf, box.high), (np.inf, box.low)))
        return self.times(Box(low, high))

    def maximum(self, box: "Box") -> "Box":
        """The box of the greater value."""
        return Box(np.maximum(self.low, box.low), np.maximum(self.high, box.high))

    def minimum(self, box: "Box") -> "Box":
        """The box of the smaller value."""
        return Box(np.minimum(self.low, box.low), np.minimum(self.high, box.high))


def rounding_error(dtype: str, terms: float) -> float:
    """Bound of the rounding error of a sum of so many terms, relative to the sum of their absolute values."""
    error = (terms + 8) * (_ROUNDOFF.get(dtype, 1.0) + _OF_BOUNDS)
    return error / (1 - error) if error < 0.5 else 1.0


def weighted_sums(
    box: Box, kernel: np.ndarray, bias: np.ndarray | None, *, axis: int, groups: int, rank: int, dtype: str
) -> Box:
    """The box of sums of inputs weighted by a kernel, and the norms of the units' weights.

    Args:
        box: the bounds of the inputs.
        kernel: `(..., inputs, units)`.
        bias: `(units,)` float64, or None.
        axis: axis of the inputs and of the units, counted without the examples.
        groups: groups of units, each of which reads as many inputs of the box.
        rank: number of axes of the sums, with that of the examples.
        dtype: the type in which the sums are computed.
    """
    inputs, units = kernel.shape[-2:]
    low, high = (bound.reshape(groups, 1, inputs) for bound in box.along(axis, inputs * groups))
    positive, negative, norms = _signed_sums(kernel)
    positive, negative = (
        sums.reshape(inputs, groups, -1).transpose(1, 0, 2) for sums in (positive, negative)
    )
    bias = np.zeros(units) if bias is None else bias
    bias = bias.reshape(groups, 1, -1)
    factors = _TF32 if dtype == "float32" else 0
    error = factors + rounding_error(dtype, math.prod(kernel.shape[:-1]))
    smallest = _SMALLEST.get(dtype, 2.0**-126)
    highs = upper_bound(low, high, positive, negative, bias, error, smallest)
    lows = -upper_bound(low, high, -negative, -positive, -bias, error, smallest)
    finite = np.isfinite(norms) & np.isfinite(bias.reshape(-1))
    lows, highs = (
        np.where(finite, array.reshape(-1), end) for array, end in ((lows, -np.inf), (highs, np.inf))
    )
    shape = [1] * (rank - 1)
    shape[axis] = units
    return Box(*(array.reshape(shape) for array in (lows, highs, norms)), affine=True)


def _signed_sums(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over positions of a kernel's positive and its negative entries, and norms of the units' weights.

    `(inputs, units)` twice and `(units,)`, float64.
    """
    inputs, units = kernel.shape[-2:]
    positive, negative, squares = np.zeros((inputs, units)), np.zeros((inputs, units)), np.zeros(units)
    step = max(1, _BLOCK // max(units, 1))
    for position in kernel.reshape(-1, inputs, units):
        for start in range(0, inputs, step):
            block = position[start : start + step].astype(np.float64)
            positive[start : start + step] += np.maximum(block, 0)
            negative[start : start + step] += np.minimum(block, 0)
            squares += np.square(block).sum(0)
    return positive, negative, np.sqrt(squares)


def upper_bound(
    low: np.ndarray,
    high: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    bias: np.ndarray,
    error: float,
    smallest: float,
) -> np.ndarray:
    """Upper bounds of sums of weighted inputs plus a bias, as computed in floating point.

    Args:
        low, high: `(..., 1, inputs)` bounds of the inputs.
        positive, negative: `(..., inputs, units)` the positive and the negative weights, 0 elsewhere.
        bias: `(..., 1, units)`.
        error: relative error of a sum (`rounding_error`).
        smallest: products below it may be lost.

    Returns:
        `(..., 1, units)` float64.
    """
    is_open = [np.isinf(end).swapaxes(-1, -2) for end in (high, low)]
    top, bottom = (np.where(np.isinf(end), 0, end) for end in (high, low))
    above = _dot(np.maximum(top, 0), positive) + _dot(np.minimum(bottom, 0), negative) + np.maximum(bias, 0)
    below = _dot(np.minimum(top, 0), positive) + _dot(np.maximum(bottom, 0), negative) + np.minimum(bias, 0)
    open_ends = ((positive > 0) & is_open[0] | (negative < 0) & is_open[1]).any(-2, keepdims=True)
    below = np.minimum(max(1 - error, 0) * below + low.shape[-1] * smallest, 0)
    return np.where(open_ends, np.inf, (1 + error) * above + below)


def _dot(vector: np.ndarray, matrix: np.ndarray) -> np.ndarray | float:
    return vector @ matrix if vector.any() else 0.0  # most of them are 0
