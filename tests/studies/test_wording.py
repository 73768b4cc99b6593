import math
import types

import pytest

from bnhead.runs.directory import RunDirectory
from bnhead.studies import wording
from bnhead.studies.directory import read_plan
from tests.studies import fake


@pytest.mark.parametrize(
    ("value", "accuracy", "r2"),
    [(0.0031, "+0.31", "+0.0031"), (-0.25, "−25.00", "−0.2500"), (-1e-9, "0.00", "0.0000"), (None, "–", "–"),  # noqa: RUF001
     (math.nan, "–", "–")],  # noqa: RUF001
)  # fmt: skip
def test_differences_have_signs_and_units(value, accuracy, r2):
    assert wording.as_difference(value, "test_accuracy") == accuracy
    assert wording.as_difference(value, "test_r2") == r2


def test_intervals_and_scores():
    assert wording.as_interval([-0.001, 0.0064], "test_accuracy") == "[−0.10, +0.64]"  # noqa: RUF001
    assert wording.as_interval(None, "test_accuracy") == "–" == wording.as_interval([], "test_r2")  # noqa: RUF001
    assert (
        wording.as_score(0.98889, "test_accuracy") == "98.89%"
        and wording.as_score(-1.5, "test_r2") == "−1.5000"  # noqa: RUF001
    )
    assert wording.as_spread(0.0031, "test_accuracy") == "0.31" and wording.as_share(0.5151) == "51.5%"


def test_margins_agree_with_their_number():
    assert [wording.as_margin(v, "test_accuracy") for v in (0.01, 0.005, 0.02)] == [
        "1 point",
        "0.5 points",
        "2 points",
    ]
    assert wording.as_margin(0.01, "test_r2") == "0.01" and wording.unit("test_r2") == ""


def test_other_words():
    assert (
        wording.metric_name("test_r2") == "test R²"
        and wording.metric_name("test_accuracy") == "test accuracy"
    )
    assert [wording.as_list(list(text)) for text in ("", "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert not any(wording.is_number(value) for value in (None, math.inf, "1")) and wording.is_number(0)


def judged(tmp_path, shape, seeds=15):
    directory = fake.write_study(tmp_path / shape, shape, seeds)
    return read_plan(directory), RunDirectory(directory).read("verdict.json")


@pytest.mark.parametrize(
    ("shape", "title", "heading", "names"),
    [
        ("placement", "test accuracy against fc in points", "head", "bn_gap_fc bn_fc fc_bn fc_out_bn"),
        ("width", "dead units of bn_fc against fc in points", "fc_units", "32 64 128 256 512 1024 2048"),
        ("regression", "test R\N{SUPERSCRIPT TWO} against fc", "head", "bn_fc"),
    ],
)  # fmt: skip
def test_the_table_has_what_the_comparisons_do_not_share(tmp_path, shape, title, heading, names):
    plan, verdict = judged(tmp_path, shape)
    caption, headings, rows = wording.verdict_table(plan, verdict)
    assert caption == f"{title}; all intervals hold together with 95 %; 15 seeds"
    assert headings == [heading, *wording.COLUMNS] and [row[0] for row in rows] == names.split()
    for row, comparison in zip(rows, verdict["comparisons"], strict=True):
        name = comparison["outcome"]
        assert row[1] == wording.ascii_difference(comparison["mean"], name)
        assert row[2] == " to ".join(wording.ascii_difference(x, name) for x in comparison["interval"])
        assert row[3] == comparison["word"].replace("NO MATERIAL DIFFERENCE", "NOT MATERIAL")
        assert row[4].startswith(wording.as_change(wording.dead_shares(verdict, comparison)))


def test_a_table_of_comparisons_that_share_nothing_has_their_names(tmp_path):
    plan, verdict = judged(tmp_path, "width", 3)
    other = {**verdict["comparisons"][0], "treatment": verdict["comparisons"][0]["control"], "name": "x"}
    caption, headings, rows = wording.verdict_table(
        plan, {**verdict, "comparisons": [verdict["comparisons"][1], other]}
    )
    assert caption.startswith("dead units in points; ") and headings[0] == "comparison"
    assert [row[0] for row in rows] == [verdict["comparisons"][1]["name"], "x"]


def test_cells_of_what_is_not_known_are_dashes():
    comparison = {
        "mean": None,
        "interval": None,
        "control": "a",
        "treatment": "b",
        "word": "INVALID",
        "outcome": "accuracy",
        "secondary": [],
    }
    cells = {"cells": [{"name": "a", "dead": {}}, {"name": "b", "dead": {"fc/dataset": {"mean": 0.5}}}]}
    row = [cell(cells, comparison) for cell in wording.COLUMNS.values()]
    assert row == ["-", "-", "INVALID", "-"]
    assert wording.dead_shares(cells, comparison) == (None, 0.5)


ROW = {
    "name": "bn_fc against fc", "control": "fc", "treatment": "bn_fc", "outcome": "accuracy", "n": 3,
    "mean": 0.037, "interval": [-0.0541, 0.1281], "margin": 0.01, "word": "UNDECIDED",
    "control_mean": 0.85, "treatment_mean": 0.887,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {},
            "UNDECIDED after 3 seeds. With bn_fc, test accuracy was 3.70 points higher on average than with "
            "fc (85.0% -> 88.7%), but anything from 5.41 points lower to 12.81 points higher fits these "
            "runs.",
        ),
        (
            {"word": "HELPS", "interval": [0.01, 0.06]},
            "HELPS after 3 seeds. With bn_fc, test accuracy was 3.70 points higher on average than with fc "
            "(85.0% -> 88.7%); from 1.00 to 6.00 points higher fits these runs.",
        ),
        (
            {"word": "NO MATERIAL DIFFERENCE", "mean": 0.001, "interval": [-0.003, 0.005]},
            "NO MATERIAL DIFFERENCE after 3 seeds. With bn_fc, test accuracy was 0.10 points higher on "
            "average than with fc (85.0% -> 88.7%); from 0.30 points lower to 0.50 points higher fits these "
            "runs, less than 1 point either way.",
        ),
        (
            {"word": "HELPS", "outcome": "dead_share", "mean": -0.05, "interval": [-0.06, -0.04]},
            "HELPS after 3 seeds. With bn_fc, dead units were 5.00 points lower on average than with fc "
            "(85.0% -> 88.7%); from 4.00 to 6.00 points lower fits these runs.",
        ),
        (
            {"word": "HURTS", "mean": -0.02, "interval": [-0.03, -0.01], "treatment_mean": 0.83},
            "HURTS after 3 seeds. With bn_fc, test accuracy was 2.00 points lower on average than with fc "
            "(85.0% -> 83.0%); from 1.00 to 3.00 points lower fits these runs.",
        ),
        (
            {"outcome": "nll", "mean": 0.1, "interval": [-0.1, 0.3], "treatment_mean": 0.95},
            "UNDECIDED after 3 seeds. With bn_fc, negative log-likelihood was 0.1000 higher on average than "
            "with fc (0.8500 -> 0.9500), but anything from 0.1000 lower to 0.3000 higher fits these runs.",
        ),
        ({"word": "INVALID", "interval": None}, "INVALID. bn_fc against fc: fewer than two pairs of runs."),
    ],
)
def test_a_verdict_in_a_sentence(changed, sentence):
    assert wording.sentence({**ROW, **changed}) == sentence


def test_a_reason_stands_in_the_place_of_the_numbers():
    invalid = {**ROW, "word": "INVALID"}
    assert wording.sentence(invalid, "2 seeds") == "INVALID. bn_fc against fc: 2 seeds."


def test_a_trend_in_a_sentence():
    trend = {**ROW, "outcome": "dead_share", "per": "fc_units", "word": "HELPS", "margin": 0.02 / 6}
    assert wording.trend_sentence({**trend, "control": ""}).startswith(
        "Per doubling of fc_units, dead units change by +3.70 points (-5.41 to +12.81) with bn_fc."
    )
    slopes = [
        {**trend, "control": "", "treatment": head, "mean": mean, "interval": [mean, mean]}
        for head, mean in (("fc", 0.02), ("bn_fc", 0.0))
    ]
    difference = {**trend, "mean": -0.02, "interval": [-0.03, -0.01]}
    assert wording.trend_sentence(difference, slopes) == (
        "HELPS after 3 seeds. Per doubling of fc_units, dead units change by 0.00 points (0.00 to 0.00) "
        "with bn_fc and by +2.00 points (+2.00 to +2.00) with fc: the difference is -2.00 points (-3.00 to "
        "-1.00), and 0.333 points would be material."
    )


def test_the_headline_of_a_trend_has_the_verdict_at_each_value():
    """The slopes come first if they are judged. Where a head has no room to improve, the values do."""
    plan = types.SimpleNamespace(settings={}, cell=lambda name: types.SimpleNamespace(line=name, stratum={}))
    row = {**ROW, "outcome": "dead_share", "secondary": []}
    rows = [
        {**row, "word": "HELPS", "mean": mean, "stratum": {"fc_units": width}}
        for width, mean in ((64, -0.12), (256, -0.07))
    ]
    slope = {"control": "fc", "word": "HURTS", "sentence": "HURTS after 3 seeds."}
    counts = "Dead units by fc_units: 2 HELPS (64 -12.00, 256 -7.00)."
    assert (
        wording.headline(plan, {"comparisons": rows, "trends": [slope]}) == f"HURTS after 3 seeds. {counts}"
    )
    slope |= {"word": "NOT JUDGED", "sentence": "No room."}
    assert wording.headline(plan, {"comparisons": rows, "trends": [slope]}) == f"{counts} No room."


def test_several_comparisons_are_counted_and_the_clearest_have_their_numbers():
    helped = [
        {**ROW, "word": "HELPS", "mean": 0.01 * k, "treatment": f"h{k}"} for k in (2, 5, 3, 1, 4, 8, 7, 6)
    ]
    rows = [{**row, "secondary": [], "stratum": {}} for row in (*helped, ROW)]
    plan = types.SimpleNamespace(
        settings={"dataset": "digits", "backbone": "resnet20"},
        cell=lambda name: types.SimpleNamespace(line=name, stratum={}),
    )
    assert wording.headline(plan, {"comparisons": rows, "trends": []}) == (
        "On digits with resnet20: 9 heads against fc. Test accuracy: 8 HELPS (h8 +8.00, h7 +7.00, h6 +6.00, "
        "h5 +5.00, h4 +4.00, h3 +3.00, h2 +2.00 ...), 1 UNDECIDED (bn_fc)."
    )
    rows = [{**ROW, "secondary": [], "stratum": {"fc_units": width}} for width in (64, 256)]
    assert wording.headline(plan, {"comparisons": rows, "trends": []}) == (
        "On digits with resnet20: bn_fc against fc at 2 values of fc_units. Test accuracy: all 2 UNDECIDED."
    )


def test_the_headline_of_several_heads_at_several_values_counts_both():
    plan = types.SimpleNamespace(settings={}, cell=lambda name: types.SimpleNamespace(line=name, stratum={}))
    rows = [
        {
            **ROW,
            "word": "HELPS",
            "mean": 0.1,
            "secondary": [],
            "treatment": head,
            "stratum": {"fc_units": width},
        }
        for width in (32, 64)
        for head in ("bn_fc", "ln_fc")
    ]
    text = wording.headline(plan, {"comparisons": rows, "trends": []})
    assert text.startswith(
        "2 heads against fc at 2 values of fc_units. Test accuracy: 4 HELPS (bn_fc, 32 +10"
    )


@pytest.mark.parametrize(("backbone", "name"), [("/nets/mine.keras", "mine.keras"), ("resnet8", "resnet8")])
def test_a_headline_names_a_net_by_its_file(backbone, name):
    plan = types.SimpleNamespace(settings={"dataset": "digits", "backbone": backbone})
    rows = [{"word": "INVALID", "sentence": "INVALID. No runs."}]
    text = wording.headline(plan, {"comparisons": rows, "trends": []})
    assert text == f"On digits with {name}: INVALID. No runs."
