import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from bnhead.census.census import Census
from bnhead.report.census_tables import (
    census_csv,
    census_data,
    shortened,
    terminal_table,
)
from tests.census.batches import counts_of_batch


def census():
    known = counts_of_batch(
        np.array([1, 2, 1]), np.array([3, 0, 2]), np.array([3, 0, 0]), np.array([1, 1, 1])
    )
    unknown = counts_of_batch(
        np.array([1]), np.array([1, 0]), np.array([1, 0]), nonfinite=1, first_nonfinite=0
    )
    return Census({"[red]fc": known, "bad": unknown})


def printed(census, width, *, wide=False):
    console = Console(width=1000, file=io.StringIO(), highlight=False)
    console.print(terminal_table(census, width, wide=wide))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_shows_what_was_counted():
    heading, known, unknown = printed(census(), 80)
    assert heading.split() == ["layer", "units", "dead", "silent", "per", "input"]
    assert known.split() == ["[red]fc", "3", "1", "(33.3%)", "44.4%"] and unknown.split() == [
        "bad", "2", "unknown",
    ]  # fmt: skip
    heading, known, _ = printed(census(), 80, wide=True)
    assert (
        heading.endswith("runs (expected), p") and "5 % to 95 %" in heading and known.endswith("1 (1.0), 1")
    )


def deep_census(layers=20, name="stage{}_relu", dead=()):
    """Layers of 8 units; those of the numbers `dead` have one dead unit."""
    census = Census()
    for number in range(layers):
        active = np.full(8, 2)
        active[0] = 0 if number in dead else 2
        silent = np.array([number % 8, int(number in dead)])
        census.layers[name.format(number)] = counts_of_batch(silent, active, np.zeros(8))
    return census


def test_layers_without_dead_units_are_one_row_except_the_last():
    lines = printed(deep_census(dead=(3, 5)), 80)
    assert [line.split()[0] for line in lines] == [
        "layer",
        "stage3_relu",
        "stage5_relu",
        "17",
        "stage19_relu",
    ]
    assert lines[3].startswith("17 layers with no dead units") and lines[3].endswith(
        "0 (0.0%)     0.0% to 43.8%"
    )
    assert len(printed(deep_census(dead=(3, 5)), 80, wide=True)) == 21
    assert len(printed(deep_census(3, dead=(0,)), 80)) == 4  # one flat layer keeps its name


@pytest.mark.parametrize("width", [60, 80, 100, 120, 150, 200])
def test_no_line_is_wider_than_the_terminal_and_no_name_is_broken(width):
    long = "encoder/stage{}/a_block_with_a_long_name_in_a_deep_model/activation_after_the_sum"
    for name in ("stage{}_relu", long):
        for dead in ((), range(20)):
            lines = printed(deep_census(name=name, dead=dead), width)
            assert max(map(len, lines)) <= width and len(lines) == (21 if dead else 3)


def test_a_wide_terminal_has_more_figures():
    columns = [len(printed(deep_census(), width)[0].split("  ")) for width in (119, 120, 200)]
    assert columns[0] < columns[1] < columns[2]
    assert "rarely active" in printed(deep_census(), 120)[0]


def test_a_long_name_is_shortened_in_the_middle():
    assert shortened("stage1_block2_relu1", 11) == "stage\N{HORIZONTAL ELLIPSIS}relu1"
    assert shortened("short", 5) == "short" and len(shortened("a" * 40, 16)) == 16


def test_equal_ranges_are_one_value():
    flat = printed(deep_census(4, dead=(3,)), 200)[1]
    assert "  8  " in flat and "8 to 8" not in flat and "0.0% to 12.5%" in flat


def test_csv_has_a_row_per_layer():
    known, unknown = csv.DictReader(io.StringIO(census_csv(census())))
    assert known["layer"] == "[red]fc" and float(known["per_input"]) == 4 / 9 and known["inputs"] == "3"
    assert known["constant"] == "" and known["unknown"] == ""
    assert unknown["per_input"] == "" and unknown["unknown"].startswith("values are not finite")


def test_plain_data_give_the_census_back():
    data = json.loads(json.dumps(census_data(census())))
    layers = data["layers"]
    assert layers["[red]fc"]["figures"]["dataset"] == 1 / 3 and layers["bad"]["unknown"]
    again = Census.from_dict({**data, "layers": {name: layer["counts"] for name, layer in layers.items()}})
    assert again.layers["[red]fc"].figures() == census().layers["[red]fc"].figures()
