import re

import pytest

from bnhead.report import charts
from bnhead.report.curves import band

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-1.3, 1.2, [-1, -0.5, 0, 0.5, 1]), (95.4, 99.4, [96, 97, 98, 99]),
     (1, 15, [5, 10, 15]), (0.11, 0.12, [0.11, 0.112, 0.114, 0.116, 0.118, 0.12])],
)  # fmt: skip
def test_ticks_are_round(low, high, ticks):
    assert charts.axis(low, high).ticks == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 0.53, [0, 0.2, 0.4, 0.6]), (0, 0.6, [0, 0.2, 0.4, 0.6]), (0.31, 0.94, [0.2, 0.4, 0.6, 0.8, 1]),
     (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1])],
)  # fmt: skip
def test_the_ends_of_an_enclosing_axis_are_labelled(low, high, ticks):
    axis = charts.enclosing_axis(low, high)
    assert axis.ticks == ticks and (axis.low, axis.high) == (ticks[0], ticks[-1])


@pytest.mark.parametrize("value", [0.5, -3.0, 1e-9, 1e6])
def test_one_value_has_an_axis_around_it(value):
    axis = charts.enclosing_axis(value, value)
    assert axis.low < value < axis.high


ROW = {
    "seeds": [0, 1, 2],
    "differences": [0.2, -0.4, 0.3],
    "mean": 0.1,
    "interval": [-0.3, 0.5],
    "inner": [0.05, 0.15],
}


def test_differences_lie_where_their_values_are():
    chart = charts.difference_chart([ROW], delta=1.0)
    ticks = dict((value, x) for x, value in chart["ticks"])
    per_unit = ticks[1.0] - ticks[0.0]
    assert chart["zero"] == ticks[0.0] and chart["band"] == (ticks[-1.0], ticks[1.0])
    (row,) = chart["rows"]
    assert [seed for *_, seed, _ in row["dots"]] == [0, 1, 2]
    for x, _, _, value in row["dots"]:
        assert x == pytest.approx(chart["zero"] + value * per_unit, abs=0.02)
    assert row["mean"] == pytest.approx(chart["zero"] + 0.1 * per_unit, abs=0.02)
    assert row["inner"] == pytest.approx([chart["zero"] + v * per_unit for v in ROW["inner"]], abs=0.02)
    assert row["cut"] == (False, False) and row["left"] == row["right"] == 0


def test_a_row_that_is_far_off_is_cut_and_says_so():
    far = {"seeds": [0, 1, 2], "differences": [-80.0, 0.2, 90.0], "mean": -40.0, "interval": [-70.0, 0.1]}
    far["inner"] = [-60.0, 0.0]
    chart = charts.difference_chart([ROW, ROW, far], delta=1.0)
    row = chart["rows"][2]
    assert (row["left"], row["right"], row["mean"]) == (1, 1, None) and row["cut"] == (True, False)
    assert [dot[2] for dot in row["dots"]] == [1] and row["interval"][0] == 0
    alone = charts.difference_chart([far], delta=1.0)["rows"][0]
    assert alone["left"] == alone["right"] == 0 and len(alone["dots"]) == 3


def test_numbers_that_are_not_there():
    empty = {"seeds": [0, 1], "differences": [None, None], "mean": None, "interval": [], "inner": []}
    (row,) = charts.difference_chart([empty], delta=0.5)["rows"]
    assert row["dots"] == [] and row["mean"] is None and row["interval"] is None


def test_panels_share_their_axes():
    low, high = band([[1.0, 1.2, 1.3, 1.4]]), band([[2.0, 2.1, 2.4, 2.5], [2.0, 2.3, 2.4, 2.7]])
    first, second = charts.panels([[low], [low, high]], "{:g}".format)
    assert first["x"] == second["x"] == [(0.0, "1"), (33.33, "2"), (66.67, "3"), (100.0, "4")]
    assert first["y"] == second["y"]
    assert first["lines"][0] == second["lines"][0] and second["lines"][1]["area"].endswith("Z")
    places = dict((label, y) for y, label in first["y"])
    last = float(re.search(r"L100 (\S+)$", second["lines"][1]["path"])[1])
    per_unit = places["1"] - places["2"]
    assert last == pytest.approx(places["2"] - 0.6 * per_unit, abs=0.02)
    assert not first["cut"] and charts.panels([[band([[0.1] + [0.9] * 11])]], str)[0]["cut"]


def test_a_whole_axis_begins_at_zero():
    (panel,) = charts.panels([[band([[0.4, 0.5]])]], "{:g}".format, from_zero=True)
    assert (
        panel["y"][0] == (100.0, "0")
        and charts.panels([[[]]], str, from_zero=True)[0]["lines"][0]["path"] == ""
    )


def test_widths_are_on_a_logarithmic_axis():
    first = [(64, 0, 0.1), (64, 1, 0.3), (128, 0, 0.4), (512, 0, 0.5)]
    chart = charts.width_chart([first, [(128, 0, 1.0)]])
    x = dict((width, x) for x, width in chart["x"])
    assert x[512] - x[128] == pytest.approx(2 * (x[128] - x[64]), abs=0.03)
    assert [dot[0] for dot in chart["lines"][0]["dots"]] == [x[64], x[64], x[128], x[512]]
    assert chart["lines"][0]["path"].startswith(f"M{x[64]:g} 80L")  # the median 0.2 of an axis to 1
    assert chart["lines"][1]["path"] == f"M{x[128]:g} 0h0"
    assert charts.svg_path([(1, 2)]) == "M1 2h0" and charts.svg_path([]) == ""


def test_a_bar_has_both_ends_and_an_unknown_one_has_none():
    known = {"dataset": 0.25, "always_on": 0.1, "per_input": 0.6, "rarely_active": 0.3}
    chart = charts.ends_chart([known, {}, {**known, "dataset": 0.0}, known])
    assert chart["slot"] == 25 and chart["y"][0] == (100, "0%") and chart["y"][-1] == (0, "100%")
    assert chart["bars"][0] == {"left": 2, "width": 21, "dead": 25, "always_on": 10, "silent": 40}
    assert chart["bars"][1] == {"left": 27, "width": 21} and chart["bars"][2]["dead"] == 0
    assert chart["x"] == [(12.5, "1"), (37.5, "2"), (62.5, "3"), (87.5, "4")]


def test_many_bars_have_few_labels():
    chart = charts.ends_chart([{}] * 60)
    assert [text for _, text in chart["x"]] == ["10", "20", "30", "40", "50", "60"]
    assert chart["x"][0][0] == pytest.approx(100 * 9.5 / 60, abs=0.01)


def test_slopes_share_their_axis():
    first, second = charts.slopes([[(0.2, 0.4)], [(0.6, 0.3), (0.5, 0.5)]], "{:g}".format)
    assert (
        first["y"]
        == second["y"]
        == [(100.0, "0.2"), (75.0, "0.3"), (50.0, "0.4"), (25.0, "0.5"), (0.0, "0.6")]
    )
    assert first["pairs"] == [(100.0, 50.0)] and second["pairs"] == [(0.0, 75.0), (25.0, 25.0)]
    assert charts.slopes([], str) == []
