"""How an outcome changes with a setting that doubles: the slope against log2 of the setting.

A least-squares line is fitted for each head and seed. Its slope, in points of dead share per doubling of the
width, is defined also if no unit is dead, which is the usual effect of a batch norm. The interval of its
mean, and of the difference of two heads' slopes, is over seeds. The slope of logit(share) is given too if
every width has at least 5 dead units: with fewer, the half unit that a logit adds would tilt the line.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.studies import statistics
from bnhead.studies.intervals import crossed
from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import Plan

LEAST_DEAD = 5  # units at every width, for a slope of logits


def trends(plan: Plan, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The slope of the primary outcome for each head, then the difference from the control's for the others.

    All rows form one family. A difference is material if, over the whole range of the setting, it adds up to
    the margin of the outcome. Only seeds with the outcome at every value count. `at_best` of a difference
    names those of its two heads that are within the margin of the best possible value, on average over the
    seeds, at every value of the setting: they have no room for a material improvement.

    Args:
        plan: of a study of a trend.
        outcomes: of its runs.
    """
    measure, heads = plan.measures[0], list(dict.fromkeys(cell.line for cell in plan.cells))
    doublings = {cell.name: math.log2(cell.stratum[plan.trend]) for cell in plan.cells}
    reach = max(doublings.values()) - min(doublings.values())
    slopes = {head: {} for head in heads}  # head -> seed -> slope
    for head in heads:
        cells = [cell.name for cell in plan.cells if cell.line == head]
        for seed in plan.seeds:
            points = [
                (doublings[outcome.run.cell], math.fsum(values) / len(values))
                for outcome in outcomes
                if outcome.run.seed == seed and outcome.run.cell in cells
                if (values := outcome.values.get(measure.name)) is not None
            ]
            if len(points) == len(cells):
                slopes[head][seed] = statistics.slope(*zip(*points, strict=True))
    level = plan.level(2 * len(heads) - 1)
    control, *treatments = heads
    rows = [_trend_row("", head, slopes[head], level) for head in heads]
    for head in treatments:
        seeds = [seed for seed in slopes[head] if seed in slopes[control]]
        differences = {seed: slopes[head][seed] - slopes[control][seed] for seed in seeds}
        rows.append(_trend_row(control, head, differences, level))
    means: dict[str, dict[str, float]] = {head: {} for head in heads}  # head -> cell -> mean over the seeds
    for cell in plan.cells:
        levels = [outcome.values[measure.name].mean() for outcome in outcomes
                  if outcome.run.cell == cell.name and measure.name in outcome.values]  # fmt: skip
        means[cell.line][cell.name] = math.fsum(levels) / len(levels) if levels else math.nan
    margin = measure.margin
    if measure.measure.is_relative:  # a share of the control's mean, over all values of the setting
        margin *= abs(math.fsum(means[control].values()) / len(means[control]))
    best = measure.measure.best
    at_best = [
        head for head in heads
        if best is not None and all(abs(best - mean) <= margin for mean in means[head].values())
    ]  # fmt: skip
    common = {"outcome": measure.name, "per": plan.trend, "margin": margin / reach}
    return [
        {**row, **common, "at_best": [head for head in at_best if row["control"] and head in
                                      (row["control"], row["treatment"])]}
        for row in rows
    ]  # fmt: skip


def _trend_row(control: str, treatment: str, slopes: Mapping[int, float], level: float) -> dict[str, Any]:
    row = {
        "name": f"{treatment} against {control}" if control else treatment,
        "control": control,
        "treatment": treatment,
        "n": len(slopes),
        "seeds": list(slopes),
        "differences": list(slopes.values()),
        **dict.fromkeys(("mean", "sd", "level", "interval", "variance")),
    }
    if len(slopes) < 2:
        return row
    result = crossed(np.array(list(slopes.values()))[:, None])
    return row | {
        "mean": result.mean,
        "sd": statistics.describe(list(slopes.values()))["sd"],
        "level": 1 - level,
        "interval": [float(bound) for bound in result.interval(level)],
        "variance": {"seeds": float(result.seed_variance), "images": 0.0},
    }


def width_law(plan: Plan, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The slopes of each head, layer and share of units if the strata differ in `fc_units`; otherwise empty.

    The shares are those of dead units that are drawn as charts (`bnhead.census.figures`). Only seeds with a
    finite share at every width count.
    """
    widths = {cell.name: cell.stratum["fc_units"] for cell in plan.cells if "fc_units" in cell.stratum}
    if len(set(widths.values())) < 2:
        return []
    heads = list(dict.fromkeys(plan.cell(name).line for name in widths))
    level = plan.level(2 * len(heads) - 1)
    laws = []
    for head in heads:
        cells = {name for name in widths if plan.cell(name).line == head}
        runs = [run for run in outcomes if run.run.cell in cells and run.status == "finished"]
        for layer in keys.layers_of((name for run in runs for name in run.result), "per_input"):
            for row in figures_at("charts"):
                points = list(_width_points(layer, row.name, runs, widths))
                law = {"head": head, "layer": layer, "figure": row.name}
                laws.append({**law, **_fitted(points, len({widths[name] for name in cells}), level)})
    return [law for law in laws if law["points"]]


def _fitted(points: Sequence[Mapping[str, Any]], number_of_widths: int, level: float) -> dict[str, Any]:
    """`slope`, `interval` and `n` of the seeds with a point at each width, `logit` and all `points`."""
    by_seed: dict[int, list[Mapping[str, Any]]] = {}
    for point in points:
        by_seed.setdefault(point["seed"], []).append(point)
    complete = [line for line in by_seed.values() if len(line) == number_of_widths]

    def slopes(value) -> dict[str, Any]:
        lines = [
            statistics.slope([math.log2(p["fc_units"]) for p in line], [value(p) for p in line])
            for line in complete
        ]
        if not lines:
            return {"slope": None, "interval": None}
        interval = None
        if len(lines) > 1:
            interval = [float(b) for b in crossed(np.array(lines)[:, None]).interval(level)]
        return {"slope": statistics.describe(lines)["mean"], "interval": interval}

    dead = [p["share"] * p["fc_units"] for p in points]
    enough = min(dead, default=0) >= LEAST_DEAD
    logit = slopes(lambda p: statistics.logit(p["share"], p["trials"])) if enough else None
    return {
        **slopes(lambda p: p["share"]),
        "n": len(complete),
        "logit": logit,
        "points": [{key: point[key] for key in ("fc_units", "seed", "share")} for point in points],
    }


def _width_points(
    layer: str, figure: str, runs: Sequence[Outcome], widths: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    for outcome in sorted(runs, key=lambda outcome: (outcome.run.seed, widths[outcome.run.cell])):
        share, inputs = (outcome.result.get(keys.key(layer, name)) for name in (figure, "inputs"))
        if share is not None:
            width = widths[outcome.run.cell]
            trials = width * inputs if figure == "per_input" else width
            yield {"fc_units": width, "seed": outcome.run.seed, "share": share, "trials": trials}
