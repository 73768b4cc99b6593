import math

import pytest

from bnhead.studies import wording


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
