import math

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
    assert [wording.as_p_value(p) for p in (0.0004, 0.034, 1.0)] == ["<0.001", "0.034", "1.000"]
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
        ("width", "test accuracy of bn_fc against fc in points", "fc_units", "32 64 128 256 512 1024 2048"),
        ("regression", "test r2 against fc", "head", "bn_fc"),
    ],
)  # fmt: skip
def test_the_table_has_what_the_comparisons_do_not_share(tmp_path, shape, title, heading, names):
    plan, verdict = judged(tmp_path, shape)
    caption, headings, rows = wording.verdict_table(plan, verdict)
    assert caption == f"{title}, with 95 % intervals, 15 seeds"
    assert headings == [heading, *wording.COLUMNS] and [row[0] for row in rows] == names.split()
    for row, comparison in zip(rows, verdict["comparisons"], strict=True):
        assert row[1] == wording.ascii_difference(comparison["mean"], plan.primary)
        assert row[2] == " to ".join(
            wording.ascii_difference(x, plan.primary) for x in comparison["interval"]
        )
        assert row[4].startswith(comparison["word"])
    assert rows[0][3] == wording.as_change(wording.dead_shares(verdict, verdict["comparisons"][0]))


def test_a_table_of_comparisons_that_share_nothing_has_their_names(tmp_path):
    plan, verdict = judged(tmp_path, "width", 3)
    other = {**verdict["comparisons"][0], "treatment": verdict["comparisons"][0]["control"], "name": "x"}
    caption, headings, rows = wording.verdict_table(
        plan, {**verdict, "comparisons": [verdict["comparisons"][1], other]}
    )
    assert caption.startswith("test accuracy in points, ") and headings[0] == "comparison"
    assert [row[0] for row in rows] == [verdict["comparisons"][1]["name"], "x"]


def test_cells_of_what_is_not_known_are_dashes():
    comparison = {
        "mean": None,
        "interval": None,
        "control": "a",
        "treatment": "b",
        "word": "INVALID",
        "more_seeds": None,
    }
    cells = {"cells": [{"name": "a", "dead": {}}, {"name": "b", "dead": {"fc/dataset": {"mean": 0.5}}}]}
    row = [cell(fake.plan_of(), cells, comparison) for cell in wording.COLUMNS.values()]  # fmt: skip
    assert row == ["-", "-", "-", "INVALID"]
    assert wording.dead_shares(cells, comparison) == (None, 0.5)


@pytest.mark.parametrize(
    ("more", "text"), [(7, "UNDECIDED, 7 more"), (50, "UNDECIDED, 50 more"), (726, "UNDECIDED, over 50 more")]
)
def test_an_estimate_of_many_seeds_is_no_number(more, text):
    comparison = {"word": "UNDECIDED", "more_seeds": more}
    assert wording.COLUMNS["verdict, seeds to go"](None, None, comparison) == text


COMPARISON = {
    "name": "bn_fc against fc", "control": "fc", "treatment": "bn_fc", "mean": 0.037, "n": 3,
    "interval": [-0.0541, 0.1281], "word": "UNDECIDED", "more_seeds": 7,
    "sentence": "On digits, bn_fc against fc: test accuracy +3.70 points, 3 seeds: UNDECIDED, about 7 more.",
}  # fmt: skip
CELLS = {
    "cells": [
        {"name": "fc", "dead": {"head_fc/per_input": {"mean": 0.5}, "head_fc/dataset": {"mean": 0.0898}}},
        {"name": "bn_fc", "dead": {"head_fc/dataset": {"mean": 0.0}}},
    ]
}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {},
            "UNDECIDED. bn_fc +3.70 points of test accuracy against fc, could be -5.41 to +12.81; 3 seeds "
            "are too few. Dead units 9.0% -> 0.0%.",
        ),
        (
            {"word": "HELPS", "interval": [0.01, 0.06]},
            "HELPS. bn_fc +3.70 points of test accuracy against fc, could be +1.00 to +6.00; 3 seeds. Dead "
            "units 9.0% -> 0.0%.",
        ),
        (
            {"word": "NO MATERIAL DIFFERENCE", "mean": 0.001, "interval": [-0.003, 0.005]},
            "NO MATERIAL DIFFERENCE. bn_fc +0.10 points of test accuracy against fc, could be -0.30 to "
            "+0.50; less than 1 point either way, 3 seeds. Dead units 9.0% -> 0.0%.",
        ),
        (
            {
                "word": "INVALID",
                "sentence": "On digits, bn_fc against fc: INVALID, 2 of 6 runs have no result.",
            },
            "INVALID, 2 of 6 runs have no result. On digits, bn_fc against fc. Dead units 9.0% -> 0.0%.",
        ),
    ],
)
def test_one_comparison_in_plain_words(changed, sentence):
    assert wording.plain_verdict(fake.plan_of(), CELLS, {**COMPARISON, **changed}) == sentence
