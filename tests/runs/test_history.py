import math

import pytest

from bnhead.runs.history import format_history, read_history

pytestmark = pytest.mark.quick


def test_rows_come_back_as_numbers(tmp_path):
    rows = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 1e-40}]
    (tmp_path / "history.csv").write_text(format_history(rows))
    assert read_history(tmp_path) == rows


def test_a_table_of_numbers(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n1,\n2,0.5\n")
    (first, second) = read_history(tmp_path)
    assert math.isnan(first["loss"]) and second == {"epoch": 2.0, "loss": 0.5}
    for text, message in (
        ("", "it is empty"),
        ("a,b\n1\n", "a row of it is cut off"),
        ("a\nx\n", "could not convert"),
        ("a\n1e300\n", "it holds the number 1e300"),
        ('"' + "0" * 200_000, "field larger than field limit"),
    ):
        (tmp_path / "history.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_history(tmp_path)
