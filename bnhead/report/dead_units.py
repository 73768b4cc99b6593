"""The dead units of a study: in a sentence, by epoch and by width."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bnhead.census import keys
from bnhead.census.figures import Figure, figures_at
from bnhead.report import charts
from bnhead.report.study_figures import Groups, by_epoch, with_range
from bnhead.runs.run_files import RunFiles
from bnhead.studies import wording
from bnhead.studies.directory import StudyFiles
from bnhead.studies.plan import Cell
from bnhead.texts import counted_range


def dead_summary(study: StudyFiles) -> list[dict[str, Any]]:
    """The figures after the last epoch: mean over the seeds, with the range.

    Returns:
        For each layer and figure `layer`, `figure`, `inputs` (text), the names of the `heads`, and `rows`
        with the name of the stratum, empty if there is one only, and a text for each head.
    """
    strata: dict[str, list[Cell]] = {}
    plan = study.plan
    cells_compared = {name for pair in plan.comparisons for name in (pair.control, pair.treatment)}
    in_parts = plan.causes or plan.claims  # cells that are compared, and others that serve other tables
    shown = [cell for cell in plan.cells if cell.name in cells_compared or not in_parts]
    # where only some cells vary a setting, as rivals of a control, each cell has its own column
    of_their_own = bool(plan.claims) or len({bool(cell.stratum) for cell in shown}) > 1
    for cell in shown:
        strata.setdefault("" if of_their_own else _stratum_name(cell), []).append(cell)
    names = [cell.name if of_their_own else _head_name(cell) for cell in next(iter(strata.values()))]
    summaries = []
    for layer in keys.layers_of(key for run in study.runs.values() for key in run.result):
        counted = {run.result.get(keys.key(layer, "inputs")) for run in study.runs.values()}
        counted = {number for number in counted if wording.is_number(number)}
        inputs = counted_range(counted, "test input") if counted else ""
        if len(counted) > 1:
            inputs += " (on fewer inputs more units are dead: not comparable)"
        for row in figures_at("charts"):
            key = keys.key(layer, row.name)
            rows = [
                (stratum, [_over_seeds(study.of_cell(cell.name), key) for cell in cells])
                for stratum, cells in strata.items()
            ]
            if any(text != wording.NONE for _, texts in rows for text in texts):
                summaries.append(
                    {"layer": layer, "figure": row, "inputs": inputs, "heads": names, "rows": rows}
                )
    return summaries


def _stratum_name(cell: Cell) -> str:
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                     for key, value in cell.stratum.items())  # fmt: skip


def _head_name(cell: Cell) -> str:
    return cell.name.partition(" at ")[0] if cell.stratum else cell.name


def _over_seeds(runs: Sequence[RunFiles], key: str) -> str:
    """Mean and range of a figure over the seeds."""
    values = [value for run in runs if wording.is_number(value := run.result.get(key))]
    if not values:
        return wording.NONE
    return with_range(min(values), statistics.fmean(values), max(values), wording.as_share)


def dead_unit_charts(of_cell: Callable[[str], Sequence[RunFiles]], groups: Groups) -> list[dict[str, Any]]:
    """The dead units by epoch: a chart for each layer and figure in the histories."""
    cells = dict.fromkeys(cell for _, lines in groups for _, cell in lines)
    columns = dict.fromkeys(column for cell in cells for run in of_cell(cell) for column in run.history)
    drawn_charts = []
    for layer in keys.layers_of(columns):
        for row in figures_at("charts"):
            chart = by_epoch(of_cell, groups, keys.key(layer, row.name), wording.as_share,
                             tick=_as_tick, from_zero=True)  # fmt: skip
            if chart is not None:
                drawn_charts.append({"layer": layer, "figure": row.name, "title": row.meaning, **chart})
    return drawn_charts


def width_charts(study: StudyFiles) -> list[dict[str, Any]]:
    """The shares against the FC's width: a chart for each layer and figure, with a line for each head."""
    laws = [law for law in study.verdict["width_law"] if law.get("points")]
    drawn_charts = []
    for layer in dict.fromkeys(law["layer"] for law in laws):
        for row in figures_at("charts"):
            laws_of_layer = [law for law in laws if (law["layer"], law.get("figure")) == (layer, row.name)]
            if laws_of_layer:
                chart = {
                    "title": row.meaning,
                    "layer": layer,
                    "figure": row.name,
                    **_chart_of_widths(study, laws_of_layer),
                }
                drawn_charts.append({**chart, "slopes": list(_slopes_in_words(laws_of_layer, row))})
    return drawn_charts


def _chart_of_widths(study: StudyFiles, laws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    comparisons = study.verdict["comparisons"]
    control = study.plan.cell(comparisons[0]["control"]).line if comparisons else None
    points = [[(p["fc_units"], p["seed"], p["share"]) for p in law["points"]] for law in laws]
    chart = charts.width_chart(points)
    chart["x"] = [(x, f"{width:g}") for x, width in chart["x"]]
    chart["y"] = [(y, _as_tick(tick)) for y, tick in chart["y"]]
    for line, law, law_points in zip(chart["lines"], laws, points, strict=True):
        line["dots"] = [
            (x, y, f"{law['head']}, {width:g} units, seed {seed}: {wording.as_share(share)}")
            for x, y, width, seed, share in line["dots"]
        ]
        line["shares"] = {}
        for width in dict.fromkeys(width for width, *_ in law_points):
            shares = [share for w, _, share in law_points if w == width]
            middle = statistics.median(shares)
            line["shares"][width] = with_range(min(shares), middle, max(shares), wording.as_share)
        line |= {"head": law["head"], "role": "control" if law["head"] == control else "treatment"}
    return {**chart, "widths": sorted({width for law_points in points for width, *_ in law_points})}


def _slopes_in_words(laws: Sequence[dict[str, Any]], row: Figure) -> Iterator[str]:
    """A sentence for each head: points per doubling of the width, and the factor of the odds."""
    state = "dead" if row.name == "dataset" else "silent"
    for law in laws:
        if not wording.is_number(law.get("slope")):
            continue
        slope, bounds = law["slope"], law.get("interval")
        text = f"{wording.as_difference(slope, 'dead_share')} points of {state} units"
        text += f" {wording.as_interval(bounds, 'dead_share')}" if bounds else ""
        if odds := law.get("logit"):
            factors = [math.exp(value) for value in (odds["slope"], *(odds.get("interval") or []))]
            text += f", {factors[0]:.2f} times the odds"
            text += f" ({factors[1]:.2f} to {factors[2]:.2f})" if len(factors) == 3 else ""
        yield f"{law['head']}: each doubling of the width, {text}"


def _as_tick(share: float) -> str:
    return f"{100 * share:.3g}%"
