import pytest

from bnhead.cli.tables import table

pytestmark = pytest.mark.quick


def test_columns_are_aligned_under_their_headings(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = table(
        ["head", "diff.", "verdict"], [["fc", "-10.5", "a b"], ["bn_fc", "+1.0", ""]], right=("diff.",)
    )
    assert text == "head   diff.  verdict\nfc     -10.5  a b\nbn_fc   +1.0"


def test_no_cell_is_markup_and_none_is_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    lines = table(["a", "b"], [["[bold]x[/bold]", "one two three"]]).splitlines()
    assert max(map(len, lines)) <= 20
    assert "[bold]" in "".join(line.split()[0] for line in lines)
    assert {"one", "two", "three"} <= set("\n".join(lines).split())
