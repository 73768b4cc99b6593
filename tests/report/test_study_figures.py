import base64
import dataclasses
from xml.etree import ElementTree

import numpy as np
import pytest

from bnhead.report import study_figures
from bnhead.studies import wording
from bnhead.studies.directory import read_study
from bnhead.studies.measures import MEASURES
from tests.studies.fake import write_study


def test_a_row_for_each_comparison_with_the_numbers_of_the_verdict(read):
    placement = read("placement")
    rows = study_figures.forests(placement)[0]["rows"]
    assert [row["place"] for row in rows] == ["P0", "P1", "P2", "P3"]
    for row, one in zip(rows, placement.verdict["comparisons"], strict=True):
        assert float(row["mean"].replace("−", "-")) == pytest.approx(100 * one["mean"], abs=0.005)  # noqa: RUF001
        assert row["name"] == one["name"] and row["n"] == 10 and row["word"] == one["word"]
        told = {text for _, _, text in row["chart"]["dots"]}
        assert told == {
            f"seed {seed}: {wording.as_difference(value, 'accuracy')}"
            for seed, value in zip(one["seeds"], one["differences"], strict=True)
        }
        assert len(row["chart"]["dots"]) == 10


def test_a_forest_for_each_outcome_with_the_primary_one_first(read):
    two = read("two")
    drawn = study_figures.forests(two)
    assert [(forest["title"], forest["role"]) for forest in drawn] == [
        ("test accuracy", "primary"),
        ("dead units", "secondary"),
        ("silent units per image", "secondary"),
        ("negative log-likelihood", "secondary"),
    ]
    (comparison,) = two.verdict["comparisons"]
    for forest, row in zip(drawn, (comparison, *comparison["secondary"]), strict=True):
        assert forest["margin"] == wording.as_margin(row["margin"], row["outcome"])
        assert forest["level"] == f"{100 * row['level']:.4g}"
        assert forest["has_images"] == (row["images"] is not None)
        assert forest["better"] == MEASURES[row["outcome"]].better
    slopes, of_heads, *others = study_figures.forests(read("width"))
    assert (
        slopes["title"] == "dead units per doubling of fc_units, difference" and slopes["role"] == "primary"
    )
    assert [row["name"] for row in slopes["rows"]] == ["bn_fc against fc"] and slopes["better"] == -1
    assert [row["name"] for row in of_heads["rows"]] == ["fc", "bn_fc"]
    assert (of_heads["role"], of_heads["better"], of_heads["margin"]) == ("", 0, "")
    left, right = of_heads["chart"]["band"]
    assert left == right, "a head alone has no margin"
    assert {forest["role"] for forest in others} == {"secondary"} and others[0]["title"] == "dead units"


@pytest.mark.parametrize("shape", ["two", "width", "learning_rate"])
def test_the_interval_over_seeds_lies_inside_the_judged_one(read, shape):
    for forest in study_figures.forests(read(shape)):
        for row in forest["rows"]:
            outer, inner = row["chart"]["interval"], row["chart"]["inner"]
            if "per doubling" in forest["title"]:
                assert outer and inner is None
            else:
                assert outer[0] <= inner[0] <= inner[1] <= outer[1]


def test_diverged_runs_and_missing_numbers_are_told(read):
    row = study_figures.forests(read("learning_rate"))[0]["rows"][-1]
    assert row["word"] == "UNSTABLE" and row["tone"] == "bad" and row["diverged"] == "3 of the treatment"
    assert row["chart"]["left"] == 3 and row["chart"]["cut"][0]
    row = study_figures.forests(read("damaged"))[0]["rows"][0]
    assert len(row["chart"]["dots"]) + row["chart"]["left"] == 8 and row["word"] == "INVALID"


def test_raw_values_are_the_scores_of_the_pairs(read):
    damaged = read("damaged")
    (panel,) = study_figures.raw_values(damaged)
    (comparison,) = damaged.verdict["comparisons"]
    assert len(panel["pairs"]) == comparison["n"] == 8
    assert (panel["control"], panel["treatment"]) == ("fc", "bn_fc")
    before, after = comparison["control_scores"][0], comparison["treatment_scores"][0]
    assert panel["pairs"][0][2] == f"seed {comparison['seeds'][0]}: {before:.2%} to {after:.2%}"
    assert study_figures.raw_values(dataclasses.replace(damaged, verdict={"comparisons": []})) == []


def test_the_scores_beside_a_difference_are_its_pairs(read):
    two = read("two")
    (row,) = study_figures.forests(two)[0]["rows"]
    (comparison,) = two.verdict["comparisons"]
    assert row["scores"] == [
        f"{np.mean(comparison[side]):.2%}" for side in ("control_scores", "treatment_scores")
    ]


def test_a_range_that_shows_nothing_is_left_out():
    assert study_figures.with_range(0.1, 0.2, 0.3, "{:.0%}".format) == "20% (10% to 30%)"
    assert study_figures.with_range(0.2, 0.2001, 0.2002, "{:.0%}".format) == "20%"


def test_a_panel_for_each_comparison_and_for_cells_that_none_names(read):
    two = read("two")
    assert study_figures.panel_groups(two) == [
        ("bn_fc against fc", [("control", "fc"), ("treatment", "bn_fc")])
    ]
    assert study_figures.line_roles(two) == [("control", "fc (control)"), ("treatment", "bn_fc (treatment)")]
    alone = dataclasses.replace(two, verdict={**two.verdict, "comparisons": []})
    assert study_figures.panel_groups(alone) == [
        ("fc", [("control", "fc")]),
        ("bn_fc", [("control", "bn_fc")]),
    ]
    assert study_figures.line_roles(read("placement")) == [("control", "control"), ("treatment", "treatment")]


def test_curves_tell_the_medians_of_the_histories(read):
    two = read("two")
    chart = study_figures.learning_curves(two)
    assert chart["epochs"] == [1, 4, 7, 9, 12, 15] and chart["seeds"] == 10
    for cell, texts in chart["rows"]:
        last = [run.history["test_accuracy"][-1] for run in two.of_cell(cell)]
        assert texts[-1] == f"{np.median(last):.2%} ({min(last):.2%} to {max(last):.2%})"
        assert f"{cell}: {texts[-1]} at the end." in chart["panels"][0]["label"]


def test_heads_are_drawn_once_with_the_features_of_the_runs(read):
    drawn = study_figures.head_diagrams(read("width"))
    assert [one["text"] for one in drawn] == ["fc", "bn_fc"] and len(drawn[0]["cells"]) == 7
    assert drawn[1]["meaning"] == "batch norm (P1, on the pooled features), then an FC layer"
    picture = ElementTree.fromstring(base64.b64decode(drawn[1]["picture"]))
    words = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "2x2x64" and "out 10" in words
    assert picture.get("viewBox") == f"0 0 {drawn[1]['size'][0]} {drawn[1]['size'][1]}"


def test_a_head_nobody_knows_has_no_picture():
    assert study_figures.head_diagram("nonsense", "")["picture"] == ""


def test_cause_tables_are_drawn_whole_with_their_parts(tmp_path):
    study = read_study(write_study(tmp_path / "study", "causes", seeds=4))
    forests = study_figures.cause_forests(study)
    assert [forest["file"] for forest in forests] == ["causes_accuracy", "causes_dead_share", "causes_nll"]
    for forest, table in zip(forests, study.verdict["causes"], strict=True):
        assert [row["part"] for row in forest["rows"]] == ["sum"] * 6 + ["total"] + ["beside"] * 3
        assert forest["rows"][0]["name"] == "centring" and forest["better"] == 0
        for row, numbers in zip(forest["rows"], table["rows"], strict=True):
            low, high = numbers["interval"]
            assert row["differs"] == (low > 0 or high < 0)
            assert row["chart"]["cut"] == (False, False) and len(row["chart"]["dots"]) == 4
            assert bool(row["share"]) == (numbers["share"] is not None)
    assert study_figures.panel_groups(study) == [
        ("bn_fc against fc", [("control", "fc"), ("treatment", "bn_fc")])
    ]


def test_the_claims_of_each_place_have_the_numbers_of_the_verdict(imbalance):
    drawn = study_figures.claim_forests(imbalance)
    assert [forest["title"] for forest in drawn] == ["fc_bn against fc", "fc_out_bn against fc"]
    rows = [row for forest in drawn for row in forest["rows"]]
    for text, row in zip(rows, imbalance.verdict["claims"]["rows"], strict=True):
        assert text["word"] == row["word"] and text["n"] == row["n"] == 3
        assert text["mean"] == wording.as_difference(row["mean"], row["outcome"])
        assert len(text["gains"]) == len(row["gains"]) <= 2
    majority = next(row for row in drawn[1]["rows"] if row["number"] == "v")
    assert majority["tone"] == "good" and majority["gains"][1] == "0.00"
    assert study_figures.class_table(imbalance)["counts"][0] == "144"


def test_claims_without_numbers_are_not_drawn(imbalance):
    empty = {"word": "INVALID", "n": 0, "seeds": [], "differences": [], "gains": []}
    empty |= dict.fromkeys(("mean", "sd", "interval"))
    rows = [{**row, **empty} for row in imbalance.verdict["claims"]["rows"]]
    study = dataclasses.replace(imbalance, verdict={**imbalance.verdict, "claims": {"rows": rows}})
    assert study_figures.claim_forests(study) == []
    rows[0] = imbalance.verdict["claims"]["rows"][0]
    (forest,) = study_figures.claim_forests(study)
    assert [row["mean"] for row in forest["rows"]][1:] == [wording.NONE] * 6


def test_the_recall_of_each_class_with_and_without_the_prior(imbalance):
    table = study_figures.class_table(imbalance)
    assert table["headings"] == [*map(str, range(10)), "mean"] and table["minority"] == list("456789")
    assert len(table["rows"]) == 2 * 8  # the control and seven treatments
    recalls = {(cell, about): texts for cell, about, texts in table["rows"]}
    share = f"{0.5 + (6 + 1 / 3) / 36:.1%}"
    assert recalls["fc_out_bn", ""] == [share] * 11 and recalls["fc", "without the prior"] == ["50.0%"] * 11


def test_other_studies_have_neither(read):
    assert study_figures.claim_forests(read("two")) == [] and study_figures.class_table(read("two")) is None
