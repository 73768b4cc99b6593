import io

import jinja2
import pytest
from matplotlib.figure import Figure

from bnhead import texts

pytestmark = pytest.mark.quick


def test_escapes_reach_no_terminal():
    assert texts.printable("a\x1b[31mb\nc\td") == "a\\x1b[31mb\nc\td"
    assert texts.one_line("a\n\x1b]0;T\x07 b") == "a \\x1b]0;T\\x07 b"
    texts.printable(b"x\xff".decode(errors="surrogateescape")).encode("utf-8", "strict")


def test_an_error_is_its_first_line_without_tensorflows_nodes():
    wrapped = (
        "{{function_node __wrapped__DecodeImage_device_/CPU:0}} Unknown kind. [Op:DecodeImage] name: \nmore"
    )
    assert texts.first_line(ValueError(wrapped)) == "Unknown kind."
    inner = "{{function_node __inference_f_7}} {{node case/decode}} bad\x1b[0m"
    assert texts.first_line(ValueError(inner)) == "bad\\x1b[0m"
    assert texts.first_line(OSError()) == "OSError" and texts.first_line(ValueError("\n a\nb")) == "a"


def test_a_page_holds_no_escapes():
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=texts.shown)
    template = environment.from_string(
        "{% macro b(x) %}<b>{{ x }}</b>{% endmacro %}{{ b(a) }} {{ 3 }}\n{{ a }}"
    )
    told = template.render(a="<\x1b[31m\ud800\nü")
    assert told == "<b>&lt;\\x1b[31m\\ud800\nü</b> 3\n&lt;\\x1b[31m\\ud800\nü"
    with pytest.raises(jinja2.UndefinedError):
        template.render()


@pytest.mark.parametrize("text", ["$\\frac$", "$x^$", "a$b", "\\$5", "$", "\x1b[0m", "plain"])
def test_no_name_is_a_formula(text):
    figure = Figure()
    axes = figure.subplots()
    axes.set_title(texts.plotted(text))
    figure.savefig(io.BytesIO())
    assert axes.title.get_text() == texts.plotted(text)
