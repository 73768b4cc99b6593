import subprocess
import sys

import pytest

from bnhead.__main__ import main
from tests.studies.fake import write_study


def test_it_tells_where_the_report_is(tmp_path, capsys):
    write_study(tmp_path, seeds=2)
    assert main(["report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"report.html  {tmp_path}/report.html\n" in out and f"--logdir {tmp_path}/tensorboard" in out
    assert f" verify {tmp_path}\n" in out
    assert f"\nruns.csv     {tmp_path}/runs.csv\nfigures      {tmp_path}/figures\n" in out
    assert (tmp_path / "runs.csv").is_file() and (tmp_path / "figures" / "accuracy.svg").is_file()
    assert (tmp_path / "report.md").is_file() and (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "DIR is missing; usage: bnhead report DIR"),
        (["a", "b"], 2, "argument 'b' is not a flag; write every setting as --name=value"),
        (["--open", "a"], 2, "flag --open is not known; `bnhead report --help` lists them"),
        (["nowhere"], 3, "nowhere holds neither a study nor a run: plan.json is missing"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == status
    assert capsys.readouterr().err == f"bnhead report: {message}\n"


def test_help(capsys):
    assert main(["report", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: bnhead report DIR\n")


def test_it_needs_neither_tensorflow_nor_keras(tmp_path):
    write_study(tmp_path, seeds=2)
    code = (
        "import sys; from bnhead.__main__ import main; status = main(['report', sys.argv[1]]); "
        "print(status, [name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.endswith("\n0 []\n") and done.stderr == ""


def test_the_events_of_a_run_are_in_its_directory(tmp_path, capsys):
    run = next(write_study(tmp_path, seeds=2).glob("runs/*"))
    assert main(["report", str(run)]) == 0
    out = capsys.readouterr().out
    assert f"tensorboard --logdir {run}\n" in out and f" inspect {run}\n" in out
