"""Charts as coordinates in percent of a plot's width and height, from its top left.

The template draws them: shapes in an SVG that is stretched to the plot, with lines of constant width, and
labels in HTML, so that the letters of a chart are readable at every width of the page.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bnhead.report.curves import Band, swarm, visible_range

_NEAR = 2.2  # percent of the width: seeds nearer than this are stacked
_FAR = 6.0  # a row that reaches this many times further than the middle row is cut off at the edge


class Axis(NamedTuple):
    """An axis: its ends and the values of its labels."""

    low: float
    high: float
    ticks: list[float]

    def across(self, value: float) -> float:
        """Percent from the left."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def down(self, value: float) -> float:
        """Percent from the top."""
        return round(100 - self.across(value), 2)


def axis(low: float, high: float, max_steps: int = 5) -> Axis:
    """An axis from `low` to `high` with round numbers as labels."""
    length = high - low
    power = 10.0 ** math.floor(math.log10(length / max_steps))
    step = next(k * power for k in (1, 2, 2.5, 5, 10, 20) if length / (k * power) <= max_steps + 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, [round(k * step, 12) for k in range(first, last + 1)])


def enclosing_axis(low: float, high: float, max_steps: int = 5) -> Axis:
    """An axis whose ends are labelled: the round numbers next to `low` and `high`."""
    if low >= high:
        low, high = (low, 1.0) if low == 0 else (low - 0.01 * abs(low), high + 0.01 * abs(high))
    ticks = axis(low, high, max_steps).ticks
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(k * step, 12) for k in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], ticks)


def difference_chart(
    rows: Sequence[Mapping[str, Any]], delta: float, *, whole: bool = False
) -> dict[str, Any]:
    """Paired differences, a row for each comparison, on one axis.

    Args:
        rows: each with `seeds`, `differences` (None for a missing number), `mean`, `interval` and the `inner`
            interval, in the unit of the axis.
        delta: half the width of the band around zero, in that unit.
        whole: whether no row is cut off, however far it reaches.

    Returns:
        `ticks` as (percent, value), `zero`, `band` as (left, right), and for each row its dots, `levels` of
        stacked dots, the mean, the interval, on which sides the interval is `cut` off, and the numbers of
        dots beyond the `left` and the `right` edge.
    """
    by_row = [
        [value for value in (*row["differences"], row["mean"], *row["interval"]) if value is not None]
        for row in rows
    ]
    reaches = [max(map(abs, values), default=0.0) for values in by_row]
    usual = statistics.median_low(reaches) if reaches else 0.0
    limit = math.inf if whole else max(_FAR * usual, 2 * delta)
    values = [v for row, reach in zip(by_row, reaches, strict=True) if reach <= limit for v in row]
    values += [-1.25 * delta, 1.25 * delta]
    margin = 0.04 * (max(values) - min(values))
    scale = axis(min(values) - margin, max(values) + margin, 7)
    return {
        "ticks": [(scale.across(tick), tick) for tick in scale.ticks],
        "zero": scale.across(0),
        "band": (scale.across(-delta), scale.across(delta)),
        "rows": [_strip(row, scale) for row in rows],
    }


def _strip(row: Mapping[str, Any], scale: Axis) -> dict[str, Any]:
    pairs = [(s, d) for s, d in zip(row["seeds"], row["differences"], strict=True) if d is not None]
    inside = [(seed, value) for seed, value in pairs if scale.low <= value <= scale.high]
    positions = [scale.across(value) for _, value in inside]
    levels = list(swarm(positions, _NEAR))
    bounds = [scale.across(v) for v in row["interval"] if v is not None]
    has_interval = len(bounds) == 2
    mean = None if row["mean"] is None else scale.across(row["mean"])
    return {
        "dots": [(x, k, seed, v) for x, k, (seed, v) in zip(positions, levels, inside, strict=True)],
        "levels": max(levels, default=0) + 1,
        "mean": mean if mean is not None and 0 <= mean <= 100 else None,
        "interval": _clipped(bounds),
        "inner": _clipped([scale.across(v) for v in row["inner"] if v is not None]),
        "cut": (has_interval and bounds[0] < 0, has_interval and bounds[1] > 100),
        "left": sum(value < scale.low for _, value in pairs),
        "right": sum(value > scale.high for _, value in pairs),
    }


def _clipped(bounds: Sequence[float]) -> tuple[float, float] | None:
    """The visible part of an interval in percent; None without one."""
    if len(bounds) != 2 or bounds[0] > 100 or bounds[1] < 0:
        return None
    return max(0, bounds[0]), min(100, bounds[1])


def panels(
    groups: Sequence[Sequence[Sequence[Band]]], form: Callable[[float], str], *, from_zero: bool = False
) -> list[dict[str, Any]]:
    """Bands by epoch: one panel for each group, all on the same axes.

    Args:
        groups: for each panel its lines, each a sequence of bands.
        form: a value -> its label.
        from_zero: whether the axis begins at 0, and not where `curves.visible_range` does.

    Returns:
        For each panel `lines` with `area` and `path` (SVG paths), `x` and `y` as (percent, label), and
        whether low values are `cut` off.
    """
    lines = [line for group in groups for line in group]
    epochs = max((b.epoch for line in lines for b in line), default=1)
    low, high = (0.0, max((b.high for line in lines for b in line), default=1.0))
    if not from_zero:
        low, high = visible_range(lines)
    vertical = enclosing_axis(low, high)
    horizontal = axis(1, max(epochs, 2), 6)
    x = [(horizontal.across(tick), f"{tick:g}") for tick in horizontal.ticks if tick == int(tick)]
    y = [(vertical.down(tick), form(tick)) for tick in vertical.ticks]
    cut = any(b.low < vertical.low for line in lines for b in line)
    return [
        {"x": x, "y": y, "lines": [_line_paths(line, horizontal, vertical) for line in group], "cut": cut}
        for group in groups
    ]


def slopes(
    groups: Sequence[Sequence[tuple[float, float]]], form: Callable[[float], str]
) -> list[dict[str, Any]]:
    """Pairs of values, each joined by a line: one panel for each group, all on the same axis.

    Args:
        groups: for each panel its pairs, control and treatment.
        form: a value -> its label.

    Returns:
        For each panel `pairs` as (percent, percent) from the top, and `y` as (percent, label).
    """
    values = [value for group in groups for pair in group for value in pair]
    vertical = enclosing_axis(min(values, default=0.0), max(values, default=1.0))
    y = [(vertical.down(tick), form(tick)) for tick in vertical.ticks]
    return [
        {"pairs": [(vertical.down(before), vertical.down(after)) for before, after in group], "y": y}
        for group in groups
    ]


def _line_paths(bands: Sequence[Band], horizontal: Axis, vertical: Axis) -> dict[str, str]:
    upper, lower, middle = (
        [(horizontal.across(b.epoch), vertical.down(getattr(b, edge))) for b in bands]
        for edge in ("high", "low", "middle")
    )
    return {"area": svg_path([*upper, *reversed(lower)]) + "Z" if bands else "", "path": svg_path(middle)}


def width_chart(lines: Sequence[Sequence[tuple[float, int, float]]]) -> dict[str, Any]:
    """Shares against width on a logarithmic axis, a line for each head.

    Args:
        lines: for each head its points: width, seed, share in [0, 1].

    Returns:
        `lines` with `dots` as (x, y, width, seed, share) and `path` through the medians; `x` and `y` as
        (percent, value).
    """
    widths = sorted({width for points in lines for width, *_ in points})
    low, high = math.log2(widths[0]), math.log2(widths[-1])
    margin = 0.04 * (high - low) or 1.0
    horizontal = Axis(low - margin, high + margin, [math.log2(width) for width in widths])
    vertical = enclosing_axis(0.0, max(share for points in lines for *_, share in points))
    curves = []
    for points in lines:
        by_width: dict[float, list[float]] = {}
        for width, _, share in sorted(points):
            by_width.setdefault(width, []).append(share)
        middles = [
            (horizontal.across(math.log2(width)), vertical.down(statistics.median(shares)))
            for width, shares in by_width.items()
        ]
        dots = [
            (horizontal.across(math.log2(width)), vertical.down(share), width, seed, share)
            for width, seed, share in points
        ]
        curves.append({"dots": dots, "path": svg_path(middles)})
    return {
        "lines": curves,
        "x": [(horizontal.across(t), w) for t, w in zip(horizontal.ticks, widths, strict=True)],
        "y": [(vertical.down(tick), tick) for tick in vertical.ticks],
    }


def ends_chart(layers: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Both ends of each layer, as `census.axes.plot_ends` draws them: a bar per layer on an axis of shares.

    Args:
        layers: for each layer the figures `dataset`, `always_on` and `per_input` in [0, 1]; empty if unknown.

    Returns:
        `slot`, the width of a bar and its gap; for each of the `bars` its `left` edge and `width`, and for a
        known layer the heights of the `dead` end, from the bottom, and of the `always_on` end, from the top,
        and the place of the line, `silent`, from the top; `x` as (percent, number of the bar from 1) and `y`
        as (percent, label).
    """
    vertical = axis(0.0, 1.0)
    slot = 100 / len(layers)
    bars = []
    for number, figures in enumerate(layers):
        bar = {"left": round((number + 0.08) * slot, 3), "width": round(0.84 * slot, 3)}
        if figures:
            ends = {
                "dead": vertical.across(figures["dataset"]),
                "always_on": vertical.across(figures["always_on"]),
            }
            bar |= {**ends, "silent": vertical.down(figures["per_input"])}
        bars.append(bar)
    ticks = [tick for tick in axis(0.5, len(layers) + 0.5, 10).ticks if tick == int(tick) and tick >= 1]
    return {
        "slot": round(slot, 3),
        "bars": bars,
        "x": [(round((tick - 0.5) * slot, 2), f"{tick:g}") for tick in ticks],
        "y": [(vertical.down(tick), f"{tick:.0%}") for tick in vertical.ticks],
    }


def svg_path(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through points. A single point is a dash of length 0, which a round cap makes a dot."""
    if not points:
        return ""
    text = "L".join(f"{x:g} {y:g}" for x, y in points)
    return f"M{text}{'h0' if len(points) == 1 else ''}"
