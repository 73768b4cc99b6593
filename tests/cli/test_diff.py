import pytest

from bnhead.__main__ import main


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
