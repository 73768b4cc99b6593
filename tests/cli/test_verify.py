import pytest

from bnhead.__main__ import main


def test_help(capsys):
    assert main(["verify", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: bnhead verify DIR\n")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "DIR is missing; usage: bnhead verify DIR"),
        (["a", "b"], 2, "argument 'b' is not a flag"),
        (["--all"], 2, "flag --all is not known"),
        (["nowhere"], 3, "dir nowhere does not exist"),
        (["tests"], 3, "tests holds no study with a verdict: plan.json is missing"),
    ],
)
def test_bad_input_of_verify(arguments, status, message, capsys):
    assert main(["verify", *arguments]) == status
    err = capsys.readouterr().err
    assert err.startswith("bnhead verify: ") and message in err and err.count("\n") == 1
