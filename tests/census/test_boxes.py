"""Boxes against the least and the greatest of random values in them."""

import numpy as np
import pytest

from bnhead.census.boxes import Box, rounding_error, weighted_sums

pytestmark = pytest.mark.quick

OPERATIONS = {
    "plus": np.add, "minus": np.subtract, "times": np.multiply, "over": np.divide,
    "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_of_elementwise_arithmetic_are_in_the_box_and_reach_its_ends(name):
    rng = np.random.default_rng(0)
    for a, b in (((-2, 3), (1, 4)), ((0, 6), (-5, -1)), ((-1, 1), (-3, 2))):
        box = getattr(Box.of(*a, 2), name)(Box.of(*b, 2))
        x = np.append(rng.uniform(*a, 1000), [a[0], a[0], a[1], a[1]])
        y = np.append(rng.uniform(*b, 1000), [b[0], b[1], b[0], b[1]])
        values = OPERATIONS[name](x, y)
        if name == "over" and b[0] <= 0 <= b[1]:
            assert box.low == -np.inf and box.high == np.inf
        else:
            np.testing.assert_allclose([box.low[0], box.high[0]], [values.min(), values.max()])


def test_an_open_end_times_zero_is_zero():
    with np.errstate(invalid="ignore"):
        box = Box.of(0, np.inf, 2).times(Box.of(0, 0, 2))
    assert box.low == box.high == 0


def test_weighted_sums_of_groups_are_those_of_each_group():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(2, 3, 8)), rng.normal(size=8)  # two positions, two groups of three inputs
    low, high = -rng.random((1, 6)), rng.random((1, 6))
    box = weighted_sums(Box(low, high), kernel, bias, axis=-1, groups=2, rank=3, dtype="float64")
    least, most = bias.copy(), bias.copy()
    for (_, i, unit), weight in np.ndenumerate(kernel):
        ends = [weight * end[0, i + 3 * (unit // 4)] for end in (low, high)]
        least[unit] += min(ends)
        most[unit] += max(ends)
    assert box.low.shape == (1, 8) and box.affine
    np.testing.assert_allclose([box.low[0], box.high[0]], [least, most], rtol=1e-9)
    assert (box.low[0] <= least).all() and (box.high[0] >= most).all()
    np.testing.assert_allclose(box.norms[0], np.sqrt((kernel**2).sum((0, 1))))


def test_a_weight_that_is_not_finite_leaves_its_unit_without_bounds():
    kernel = np.array([[1.0, np.nan], [2.0, 1.0]])
    box = weighted_sums(Box.of(0, 1, 2), kernel, None, axis=-1, groups=1, rank=2, dtype="float32")
    assert np.isfinite(box.high).tolist() == [True, False] and np.isfinite(box.low).tolist() == [True, False]


def test_the_rounding_error_grows_with_terms_and_falls_with_precision():
    assert rounding_error("float32", 100) == pytest.approx(108 * 2**-24, rel=1e-4)
    assert rounding_error("float64", 9) < rounding_error("float32", 9) < rounding_error("bfloat16", 9)
    assert rounding_error("float16", 1e9) == 1.0  # as large as the sum


def test_hull_zero_and_widening():
    box = Box.of(1, 2, 3).hull(Box.of(-4, 1.5, 3))
    assert (box.low, box.high, box.rank) == (-4, 2, 3)
    box = Box.of(1, 2, 2).with_zero().widened(0.5)
    assert (box.low, box.high) == (0, 3)
