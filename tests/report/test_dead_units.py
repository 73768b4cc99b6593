import dataclasses
import math

import numpy as np

from bnhead.report import dead_units, study_figures


def ends(study, cell, key):
    return [run.result[key] for run in study.of_cell(cell)]


def test_the_summary_is_that_of_the_results(read):
    two = read("two")
    dead, silent = dead_units.dead_summary(two)
    assert (dead["figure"].name, silent["figure"].name) == ("dataset", "per_input")
    assert (
        dead["layer"] == "head_fc"
        and dead["inputs"] == "360 test inputs"
        and dead["heads"] == ["fc", "bn_fc"]
    )
    ((stratum, texts),) = silent["rows"]
    shares = ends(two, "bn_fc", "dead/head_fc/per_input")
    assert stratum == "" and texts[1] == f"{np.mean(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})"


def test_the_summary_has_a_row_for_each_stratum(read):
    dead, _ = dead_units.dead_summary(read("width"))
    assert dead["heads"] == ["fc", "bn_fc"] and [name for name, _ in dead["rows"]][:2] == [
        *("fc_units 32", "fc_units 64"),
    ]
    assert dead["rows"][0][1] == ["0.0%", "0.0%"]
    rates = [name for name, _ in dead_units.dead_summary(read("learning_rate"))[0]["rows"]]
    assert rates == [f"learning_rate {rate:g}" for rate in (0.01, 0.03, 0.1, 0.3)]


def test_without_counts_there_is_no_summary(read):
    two = read("two")
    runs = {name: dataclasses.replace(run, result={}) for name, run in two.runs.items()}
    assert dead_units.dead_summary(dataclasses.replace(two, runs=runs)) == []


def test_dead_units_by_layer_and_figure(read):
    two = read("two")
    drawn = dead_units.dead_unit_charts(two.of_cell, study_figures.panel_groups(two))
    assert [(chart["layer"], chart["figure"]) for chart in drawn] == [
        ("head_fc", "dataset"),
        ("head_fc", "per_input"),
    ]
    last = [run.history["dead/head_fc/dataset"][-1] for run in two.of_cell("fc")]
    assert drawn[0]["rows"][0][1][-1].startswith(f"{np.median(last):.1%} (")
    assert dead_units.dead_unit_charts(lambda cell: [], study_figures.panel_groups(two)) == []


def test_width_has_a_chart_for_each_figure_with_both_heads(read):
    charts = dead_units.width_charts(read("width"))
    assert ["on an input" in chart["title"] for chart in charts] == [False, True]
    assert [(line["head"], line["role"]) for line in charts[1]["lines"]] == [
        ("fc", "control"),
        ("bn_fc", "treatment"),
    ]
    assert charts[1]["widths"] == [32, 64, 128, 256, 512, 1024, 2048]
    law = read("width").verdict["width_law"][1]
    assert law["figure"] == "per_input"
    slope, low, high = (f"{100 * value:+.2f}" for value in (law["slope"], *law["interval"]))
    odds = [math.exp(value) for value in (law["logit"]["slope"], *law["logit"]["interval"])]
    assert charts[1]["slopes"][0] == (
        f"fc: each doubling of the width, {slope} points of silent units [{low}, {high}], "
        f"{odds[0]:.2f} times the odds ({odds[1]:.2f} to {odds[2]:.2f})"
    )
    assert read("width").verdict["width_law"][0]["logit"] is None and "odds" not in charts[0]["slopes"][0]
    own = [point["share"] for point in law["points"] if point["fc_units"] == 64]
    assert charts[1]["lines"][0]["shares"][64] == f"{np.median(own):.1%} ({min(own):.1%} to {max(own):.1%})"
    assert dead_units.width_charts(read("two")) == []


def test_widths_without_a_slope_have_a_chart_and_no_sentence(read):
    width = read("width")
    law = {**width.verdict["width_law"][0], "slope": None, "interval": None, "logit": None}
    changed = dataclasses.replace(width, verdict={**width.verdict, "width_law": [law]})
    (chart,) = dead_units.width_charts(changed)
    assert chart["slopes"] == [] and len(chart["lines"][0]["dots"]) == len(law["points"])
