"""Charts as coordinates: what lies where, in percent of a plot's width and height, from its top left.

The template draws them: shapes in an SVG that is stretched to the plot, with lines of constant width, and
labels in HTML, so that a chart has readable letters at every width of the page.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bnhead.report.curves import Band, swarm, worth_seeing

_NEAR = 2.2  # percent of the width: seeds nearer than this are stacked
_FAR = 6.0  # a row that reaches this many times further than the middle row is cut off at the edge


class Axis(NamedTuple):
    """An axis: its ends and where its labels stand."""

    low: float
    high: float
    ticks: list[float]

    def across(self, value: float) -> float:
        """Percent from the left."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def down(self, value: float) -> float:
        """Percent from the top."""
        return round(100 - self.across(value), 2)


def axis(low: float, high: float, most: int = 5) -> Axis:
    """An axis from `low` to `high` with round numbers as labels, at most `most` steps of them."""
    room = high - low
    power = 10.0 ** math.floor(math.log10(room / most))
    step = next(k * power for k in (1, 2, 2.5, 5, 10, 20) if room / (k * power) <= most + 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, [round(k * step, 12) for k in range(first, last + 1)])


def from_zero(high: float, most: int = 5) -> Axis:
    """An axis from 0 to the round number that is not below `high`."""
    ticks = axis(0.0, high or 1.0, most).ticks
    last = ticks[-1] if ticks[-1] >= high - 1e-12 else ticks[-1] + ticks[1]
    return Axis(0.0, last, [*ticks, last] if last > ticks[-1] else ticks)


def differences(rows: Sequence[Mapping[str, Any]], delta: float) -> dict[str, Any]:
    """Paired differences, a row for each comparison, on one axis.

    Args:
        rows: each with `seeds`, `differences` (None where there is no number), `mean` and `interval`, in the
            unit of the axis.
        delta: half the width of the band around zero, in that unit.

    Returns:
        `ticks` as (percent, value), `zero`, `band` as (left, right), and for each row its dots, `levels` of
        stacked dots, the mean, the interval and on which sides it is `cut` off, and how many dots lie beyond
        the `left` and the `right` edge.
    """
    reaches = [max((abs(v) for v in _numbers(row)), default=0.0) for row in rows]
    usual = statistics.median_low(reaches) if reaches else 0.0
    shown = [row for row, reach in zip(rows, reaches, strict=True) if reach <= max(_FAR * usual, 2 * delta)]
    values = [v for row in shown for v in _numbers(row)] + [-1.25 * delta, 1.25 * delta]
    margin = 0.04 * (max(values) - min(values))
    scale = axis(min(values) - margin, max(values) + margin, 7)
    return {
        "ticks": [(scale.across(tick), tick) for tick in scale.ticks],
        "zero": scale.across(0),
        "band": (scale.across(-delta), scale.across(delta)),
        "rows": [_row(row, scale) for row in rows],
    }


def _numbers(row: Mapping[str, Any]) -> list[float]:
    values = (*row["differences"], row["mean"], *row["interval"])
    return [value for value in values if value is not None]


def _row(row: Mapping[str, Any], scale: Axis) -> dict[str, Any]:
    pairs = [(s, d) for s, d in zip(row["seeds"], row["differences"], strict=True) if d is not None]
    inside = [(seed, value) for seed, value in pairs if scale.low <= value <= scale.high]
    places = [scale.across(value) for _, value in inside]
    levels = list(swarm(places, _NEAR))
    bounds = [scale.across(v) for v in row["interval"] if v is not None]
    mean = None if row["mean"] is None else scale.across(row["mean"])
    return {
        "dots": [(x, k, seed, v) for x, k, (seed, v) in zip(places, levels, inside, strict=True)],
        "levels": max(levels, default=0) + 1,
        "mean": mean if mean is not None and 0 <= mean <= 100 else None,
        "interval": (max(0, bounds[0]), min(100, bounds[1])) if len(bounds) == 2 and _meets(bounds) else None,
        "cut": (len(bounds) == 2 and bounds[0] < 0, len(bounds) == 2 and bounds[1] > 100),
        "left": sum(value < scale.low for _, value in pairs),
        "right": sum(value > scale.high for _, value in pairs),
    }


def _meets(bounds: Sequence[float]) -> bool:
    return bounds[0] <= 100 and bounds[1] >= 0


def panels(
    groups: Sequence[Sequence[Sequence[Band]]], form: Callable[[float], str], *, whole: bool = False
) -> list[dict[str, Any]]:
    """Bands by epoch: one panel for each group, all on the same axes.

    Args:
        groups: for each panel its bands.
        form: a value -> its label.
        whole: whether the axis shows every value, and 0, rather than what is worth seeing.

    Returns:
        For each panel `lines` with `area` and `path` (SVG paths), `x` and `y` as (percent, label).
    """
    everything = [own for group in groups for own in group]
    epochs = max((b.epoch for own in everything for b in own), default=1)
    if whole:
        vertical = from_zero(max((b.high for own in everything for b in own), default=1.0))
    else:
        low, high = worth_seeing(everything)
        margin = 0.05 * (high - low)
        vertical = axis(low - margin, high + margin)
    horizontal = axis(1, max(epochs, 2), 6)
    x = [(horizontal.across(tick), f"{tick:g}") for tick in horizontal.ticks if tick == int(tick)]
    y = [(vertical.down(tick), form(tick)) for tick in vertical.ticks]
    return [
        {"x": x, "y": y, "lines": [_line(own, horizontal, vertical) for own in group]} for group in groups
    ]


def _line(bands: Sequence[Band], horizontal: Axis, vertical: Axis) -> dict[str, str]:
    xs = [horizontal.across(b.epoch) for b in bands]
    upper = [(x, vertical.down(b.high)) for x, b in zip(xs, bands, strict=True)]
    lower = [(x, vertical.down(b.low)) for x, b in zip(xs, bands, strict=True)]
    middle = [(x, vertical.down(b.middle)) for x, b in zip(xs, bands, strict=True)]
    return {"area": path([*upper, *reversed(lower)]) + "Z" if bands else "", "path": path(middle)}


def against_width(points: Sequence[tuple[float, int, float]], top: float) -> dict[str, Any]:
    """Shares against width on a logarithmic axis.

    Args:
        points: width, seed, share in [0, 1].
        top: the largest share of the axis.

    Returns:
        `dots` as (x, y, width, seed, share), `path` through the medians, `x` and `y` as (percent, value).
    """
    widths = sorted({width for width, _, _ in points})
    low, high = math.log2(widths[0]), math.log2(widths[-1])
    room = 0.08 * (high - low) or 1.0
    horizontal = Axis(low - room, high + room, [math.log2(width) for width in widths])
    vertical = from_zero(top)
    middles = []
    for width in widths:
        median = statistics.median(share for w, _, share in points if w == width)
        middles.append((horizontal.across(math.log2(width)), vertical.down(median)))
    return {
        "dots": [
            (horizontal.across(math.log2(width)), vertical.down(share), width, seed, share)
            for width, seed, share in points
        ],
        "path": path(middles),
        "x": [(horizontal.across(t), w) for t, w in zip(horizontal.ticks, widths, strict=True)],
        "y": [(vertical.down(tick), tick) for tick in vertical.ticks],
    }


def path(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through points; a single one is a dash of no length, which a round cap makes a dot."""
    if not points:
        return ""
    text = "L".join(f"{x:g} {y:g}" for x, y in points)
    return f"M{text}{'h0' if len(points) == 1 else ''}"
