import pytest

from bnhead.__main__ import main
from bnhead.cli.diff import format_differences
from bnhead.runs.diff import Differences


def test_help(capsys):
    assert main(["diff", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: bnhead diff RUN RUN\n")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "diff takes two run directories, got 0"),
        (["a", "b", "c"], 2, "diff takes two run directories, got 3"),
        (["--all"], 2, "flag --all is not known"),
        (["nowhere", "elsewhere"], 3, "nowhere holds no run"),
    ],
)
def test_bad_input_is_one_line(arguments, status, message, capsys):
    assert main(["diff", *arguments]) == status
    err = capsys.readouterr().err
    assert err.startswith("bnhead diff: ") and message in err and err.count("\n") == 1


def test_a_table_for_each_section_with_shares_in_percent(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = {
        "test_accuracy": (0.997222, 0.95),
        "test_loss": (0.5, 0.25),
        "dead/head_fc/dataset": (0.0, 0.125),
        "dead/head_fc/runs": (2.0, 3.0),
        "epochs": (2, None),
        "head": ("8x8x64 -> fc", "8x8x64 -> bn -> fc"),
        "data.train_sha256": ("0123456789abcdef", "fedcba9876543210"),
    }
    values = {"settings": {"head": ("fc", "bn_fc")}, "ran on": {}, "result": result}
    text = format_differences(
        "runs/one", "runs/other", Differences(values, "they part in epoch 2: loss differ")
    )
    assert (
        text
        == """\
first   runs/one
second  runs/other

settings  first  second
head      fc     bn_fc

ran on  the same

result                first         second        difference
test_accuracy         99.72%        95.00%        -4.72 points
test_loss             0.5           0.25          -0.25
dead/head_fc/dataset  0.0%          12.5%         +12.50 points
dead/head_fc/runs     2             3             +1
epochs                2             -
data.train_sha256     0123456789ab  fedcba987654

history: they part in epoch 2: loss differ"""
    )


def test_dead_units_on_other_numbers_of_inputs_are_not_compared_silently(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = {"dead/fc/dataset": (0.25, 0.125), "dead/fc/inputs": (128, 2048.0)}
    values = {"settings": {}, "ran on": {}, "result": result}
    note = "fc: counted on 128 and 2,048 inputs; dead units are comparable on equally many"
    assert note in format_differences("one", "other", Differences(values, "the same in all 2 epochs"))
    del result["dead/fc/inputs"]
    assert note not in format_differences("one", "other", Differences(values, "the same in all 2 epochs"))
