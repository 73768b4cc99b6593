import io
import math

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


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], "0 inputs"),
        ({1}, "1 input"),
        ([2048.0, 2048], "2,048 inputs"),
        ([9, 1024, 3], "3 to 1,024 inputs"),
    ],
)
def test_numbers_that_differ_are_a_range(numbers, text):
    assert texts.counted_range(numbers, "input") == text


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


def test_text_fits_the_terminal_and_words_stay_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    path = "runs/digits/resnet20/bn_fc/seed0-with-a-long-name"
    text = texts.wrapped(f"the quick brown fox jumps over {path} and back", indent=2, hanging=4)
    assert text == f"  the quick brown fox jumps\n    over\n    {path}\n    and back"
    assert texts.wrapped("a b c " * 10, 12).splitlines()[0] == "a b c a b c a b c a", "20 at least"
    assert texts.columns() == 30
    monkeypatch.delenv("COLUMNS")
    assert texts.columns(77) == 77, "of a pipe, as under pytest"


def test_labels_stand_before_their_texts_and_commands_stay_in_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "22")
    rows = [("head", "one two three four five"), ("", "six")]
    assert texts.labelled(rows, 6) == "head  one two three\n      four five\n      six"
    assert texts.labelled(rows, 6, whole=True) == "head  one two three four five\n      six"


def test_a_notice_goes_to_stderr_in_one_line_unless_it_is_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    texts.notice("word " * 10)
    assert capsys.readouterr().err == "word " * 10 + "\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    texts.notice("word " * 10)
    assert capsys.readouterr().err == "word word word word word word\n  word word word word\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h"), (math.nan, "unknown")],
)
def test_duration(seconds, text):
    assert texts.duration(seconds) == text


def test_one_has_no_plural():
    assert [texts.counted(n, "unit") for n in (0, 1, 2, 1024)] == [
        "0 units",
        "1 unit",
        "2 units",
        "1,024 units",
    ]


def test_the_cause_of_an_error_in_a_layer():
    keras_error = (
        'in user code:\n\n    File "a.py", line 3\n        x\n\n    ValueError: Exception encountered when '
        "calling Conv2D.call().\n    \n    \x1b[1mNegative dimension size for '{{node n/c}} = "
        "Conv2D[T=1](a)' with input shapes: [4,2].\x1b[0m\n    \n    Arguments received:\n      * x=1"
    )
    assert texts.cause(ValueError(keras_error)) == "Negative dimension size with input shapes: [4,2]."
    plain = 'in user code:\n\n    File "a.py", line 3\n        x\n\n    TypeError: no such axis\n'
    assert texts.cause(TypeError(plain)) == "no such axis"
    assert texts.cause(ValueError("just this\nand more")) == "just this"


def test_a_long_label_does_not_touch_its_text():
    rows = [("units", "8"), ("units of a_layer_with_a_name", "64")]
    assert texts.labelled(rows, 10, whole=True) == "units     8\nunits of a_layer_with_a_name 64"
