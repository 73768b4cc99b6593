"""The law of dead units and width: the slope of logit(share) against log2(width), with an interval over
seeds.

A line is fitted for each seed and its slopes are averaged, so that the interval tells the spread between
seeds. The shares are those of dead units that are drawn as charts (`bnhead.census.figures`). Where a seed has
none of them at any width, or nothing else, there is no slope: it would be that of the half trials.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.studies import statistics
from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import Plan


def width_law(plan: Plan, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The law of each head, layer and figure of a study whose strata differ in `fc_units`; else nothing.

    Only seeds count that have a finite share at every width.
    """
    widths = {cell.name: cell.stratum["fc_units"] for cell in plan.cells if "fc_units" in cell.stratum}
    if len(set(widths.values())) < 2:
        return []
    heads = dict.fromkeys(plan.cell(name).head for name in widths)
    figures = [row.name for row in figures_at("charts")]
    laws = []
    for head in heads:
        runs = [one for one in outcomes if one.run.cell in widths and plan.cell(one.run.cell).head == head]
        for layer in _layers(runs):
            laws += [_law(head, layer, figure, runs, widths, plan.alpha) for figure in figures]
    return [law for law in laws if law["points"]]


def _law(
    head: str, layer: str, figure: str, runs: Sequence[Outcome], widths: dict[str, int], alpha: float
) -> dict[str, Any]:
    points = list(_points(layer, figure, runs, widths))
    by_seed: dict[int, list[dict[str, Any]]] = {}
    for point in points:
        by_seed.setdefault(point["seed"], []).append(point)
    of_head = len({widths[one.run.cell] for one in runs})
    whole = [own for own in by_seed.values() if len(own) == of_head]
    is_told = all(0 < sum(point["share"] for point in own) < len(own) for own in whole)
    slopes = [_slope(own) for own in whole] if is_told else []
    mean, interval = statistics.mean_interval(slopes, alpha) if slopes else (None, None)
    return {
        "head": head,
        "layer": layer,
        "figure": figure,
        "slope": mean,
        "interval": interval and list(interval),
        "n": len(slopes),
        "points": [{key: point[key] for key in ("fc_units", "seed", "share")} for point in points],
    }


def _points(
    layer: str, figure: str, runs: Sequence[Outcome], widths: dict[str, int]
) -> Iterable[dict[str, Any]]:
    for one in sorted(runs, key=lambda one: (one.run.seed, widths[one.run.cell])):
        share, inputs = (one.result.get(keys.key(layer, name)) for name in (figure, "inputs"))
        if one.status == "finished" and share is not None:
            width = widths[one.run.cell]
            trials = width * inputs if figure == "per_input" else width
            yield {"fc_units": width, "seed": one.run.seed, "share": share, "trials": trials}


def _slope(points: Sequence[dict[str, Any]]) -> float:
    logits = [statistics.logit(point["share"], point["trials"]) for point in points]
    return statistics.slope([math.log2(point["fc_units"]) for point in points], logits)


def _layers(runs: Sequence[Outcome]) -> list[str]:
    return keys.layers_of((name for one in runs for name in one.result), "per_input")
