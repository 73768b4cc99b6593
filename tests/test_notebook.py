import sys

import pytest
from matplotlib import pyplot

from bnhead import notebook
from bnhead.errors import UsageError

pytestmark = pytest.mark.quick


def test_a_table_escapes_names_and_draws_bars_for_finite_shares():
    cells = [notebook.Bar("25%", 0.25, "#102030"), notebook.Bar("?", float("nan"))]
    text = notebook.table("a < b", [("<i>", 'say "so"'), ("x", ""), ("y", "")], [["<b>", *cells]], ["n & m"])
    assert "a &lt; b" in text and "&lt;i&gt;" in text and "&lt;b&gt;" in text and "n &amp; m" in text
    assert 'title="say &quot;so&quot;"' in text
    assert text.count("linear-gradient") == 1 and "#10203066 25.0%,transparent 25.0%" in text


def test_a_short_row_ends_in_a_wide_cell():
    text = notebook.table("t", [("a", ""), ("b", ""), ("c", "")], [["x", "unknown"]])
    assert '<td colspan="2"' in text and text.count("<td") == 2


def test_a_frame_is_indexed_and_may_lack_values():
    frame = notebook.frame([{"a": 1, "b": 2.0}, {"a": 2}], "a")
    assert list(frame.index) == [1, 2] and frame["b"].isna().tolist() == [False, True]
    assert notebook.frame([{"a": 1, "b": 2, "c": 3}], ("a", "b")).index.names == ["a", "b"]


def test_without_pandas_the_error_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"^to_frame needs pandas.*: pip install pandas$"):
        notebook.frame([{"a": 1}], "a")


def test_axes_of_the_caller_or_of_a_new_figure():
    _, ax = pyplot.subplots()
    assert notebook.axes(ax, 9, 9) is ax
    new = notebook.axes(None, 3, 2)
    assert new.figure is not ax.figure and new.figure.get_size_inches().tolist() == [3, 2]
    pyplot.close("all")
