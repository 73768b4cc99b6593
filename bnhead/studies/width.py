"""Dead units against width: the slope of logit(share) against log2(width), with an interval over seeds.

A line is fitted for each seed and its slopes are averaged, so that the interval covers the spread between
seeds. The shares are those of dead units that are drawn as charts (`bnhead.census.figures`). If a seed has
only live or only dead units at every width, there is no slope: it would be determined by the half trials.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import figures_at
from bnhead.studies import statistics
from bnhead.studies.outcomes import Outcome
from bnhead.studies.plan import Plan


def width_law(plan: Plan, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The law of each head, layer and figure if the strata differ in `fc_units`; otherwise empty.

    Only seeds with a finite share at every width count.
    """
    widths = {cell.name: cell.stratum["fc_units"] for cell in plan.cells if "fc_units" in cell.stratum}
    if len(set(widths.values())) < 2:
        return []
    figures = [row.name for row in figures_at("charts")]
    laws = []
    for head in dict.fromkeys(plan.cell(name).head for name in widths):
        cells = {name for name in widths if plan.cell(name).head == head}
        runs = [run for run in outcomes if run.run.cell in cells and run.status == "finished"]
        for layer in keys.layers_of((name for run in runs for name in run.result), "per_input"):
            for figure in figures:
                points = list(_width_points(layer, figure, runs, widths))
                law = {"head": head, "layer": layer, "figure": figure}
                laws.append({**law, **_fitted(points, len({widths[name] for name in cells}), plan.alpha)})
    return [law for law in laws if law["points"]]


def _fitted(points: Sequence[Mapping[str, Any]], number_of_widths: int, alpha: float) -> dict[str, Any]:
    """`slope`, `interval` and `n` of the seeds with a point at each width, and all `points`."""
    by_seed: dict[int, list[Mapping[str, Any]]] = {}
    for point in points:
        by_seed.setdefault(point["seed"], []).append(point)
    complete = [line for line in by_seed.values() if len(line) == number_of_widths]
    slopes = []
    if all(0 < sum(point["share"] for point in line) < len(line) for line in complete):
        for line in complete:
            logits = [statistics.logit(point["share"], point["trials"]) for point in line]
            slopes.append(statistics.slope([math.log2(point["fc_units"]) for point in line], logits))
    mean, interval = statistics.mean_interval(slopes, alpha) if slopes else (None, None)
    return {
        "slope": mean,
        "interval": interval and list(interval),
        "n": len(slopes),
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
