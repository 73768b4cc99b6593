import io

import pytest
from matplotlib.figure import Figure

from bnhead import texts


def test_escapes_reach_no_terminal():
    assert texts.printable("a\x1b[31mb\nc\td") == "a\\x1b[31mb\nc\td"
    assert texts.one_line("a\n\x1b]0;T\x07 b") == "a \\x1b]0;T\\x07 b"
    texts.printable(b"x\xff".decode(errors="surrogateescape")).encode("utf-8", "strict")


@pytest.mark.parametrize("text", ["$\\frac$", "$x^$", "a$b", "\\$5", "$", "\x1b[0m", "plain"])
def test_no_name_is_a_formula(text):
    figure = Figure()
    axes = figure.subplots()
    axes.set_title(texts.plotted(text))
    figure.savefig(io.BytesIO())
    assert axes.title.get_text() == texts.plotted(text)
