import csv
import io
import json

import numpy as np
from rich.console import Console

from bnhead.census.counts import Census
from bnhead.report.census_tables import (
    census_csv,
    census_data,
    layer_rows,
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


def test_rows_show_what_was_counted():
    assert [column.heading for column in census().table_figures()] == [
        *("dead", "silent per input", "5 % to 95 %", "rarely active", "always on"),
        "runs (expected), p",
    ]
    table = layer_rows(census())
    assert table[0][:2] == ("[red]fc", "3")
    assert table[0][2] == ["1 (33.3%)", "44.4%", "33.3% to 63.3%", "33.3%", "33.3%", "1 (1.0), 1"]
    assert table[1][2] == [""] * 6 and table[1][3].startswith("values are not finite on 1 input,")


def test_the_terminal_shows_names_as_they_are():
    console = Console(width=150, file=io.StringIO())
    console.print(terminal_table(census()))
    text = console.file.getvalue()
    assert "[red]fc" in text and "44.4%" in text and "unknown" in text


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
