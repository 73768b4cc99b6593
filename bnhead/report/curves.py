"""Many seeds as one band. Pure arithmetic."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

WHOLE_EPOCHS = 10  # the whole of a training as short as this is drawn


class Band(NamedTuple):
    """One epoch over the seeds: number of finite values, minimum, median, maximum."""

    epoch: int
    n: int
    low: float
    middle: float
    high: float


def band(curves: Sequence[Sequence[float]]) -> list[Band]:
    """Median and range over the seeds, by epoch from 1.

    Args:
        curves: for each seed a number for each epoch. Runs that ended early count up to their end. Numbers
            that are not finite do not count; an epoch without a finite number is omitted.
    """
    bands = []
    for index in range(max(map(len, curves), default=0)):
        values = [curve[index] for curve in curves if index < len(curve) and math.isfinite(curve[index])]
        if values:
            middle = statistics.median(values)
            bands.append(Band(index + 1, len(values), min(values), middle, max(values)))
    return bands


def at_most(bands: Sequence[Band], size: int) -> list[Band]:
    """The first and the last epoch and evenly spread ones between them."""
    if len(bands) <= size:
        return list(bands)
    return [bands[round(i * (len(bands) - 1) / (size - 1))] for i in range(size)]


def visible_range(lines: Sequence[Sequence[Band]]) -> tuple[float, float]:
    """The range of values on an axis: all of them, for up to `WHOLE_EPOCHS` epochs.

    Of a longer training the bottom is the lowest median after a third of it, so that the first epochs do not
    flatten the end, which is judged; lower values are cut off.

    Returns:
        Lowest and highest value.
    """
    bands = [b for line in lines for b in line]
    if not bands:
        return 0.0, 1.0
    low, high = min(b.low for b in bands), max(b.high for b in bands)
    if max(b.epoch for b in bands) > WHOLE_EPOCHS:
        low = min(b.middle for line in lines for b in line if 3 * b.epoch >= max(c.epoch for c in line))
    return low, high


def swarm(values: Sequence[float], near: float) -> Iterator[int]:
    """For each value a level, such that values on one level are at least `near` apart.

    Levels are assigned from the smallest value on and yielded in the order of `values`.
    """
    ends: list[float] = []  # of each level, the value placed last
    levels = {}
    for index in sorted(range(len(values)), key=lambda i: (values[i], i)):
        level = next((k for k, end in enumerate(ends) if values[index] - end >= near), len(ends))
        ends[level:] = [values[index], *ends[level + 1 :]]
        levels[index] = level
    return (levels[index] for index in range(len(values)))
