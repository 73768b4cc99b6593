import math

import pytest

from bnhead.runs.run_files import read_run_files
from tests.studies.fake import plan_of, write_run


@pytest.fixture
def directory(tmp_path):
    plan = plan_of()
    write_run(plan.config(plan.runs[0], tmp_path))
    return tmp_path / "runs" / plan.runs[0].id


def test_every_file_is_read(directory):
    run = read_run_files(directory)
    assert run.config["head"] == "fc" and run.environment["keras"] == "3"
    assert run.status["status"] == "finished"
    assert run.result["test_accuracy"] == run.history["test_accuracy"][-1] and run.history["epoch"] == [1, 2]
    assert run.problem == "" and not run.problems


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("config.json", "[]", "config.json cannot be read: it does not hold a JSON object"),
        ("result.json", "\xff", "result.json cannot be read: 'utf-8' codec can't decode byte"),
        ("result.json", '{"status": 1}', "result.json cannot be read: it has no 'epochs'"),
        (
            "history.csv",
            "epoch,loss\n1,x\n",
            "history.csv cannot be read: could not convert string to float: 'x'",
        ),
        ("history.csv", "epoch,loss\n1,1e300\n", "history.csv cannot be read: it holds the number 1e300"),
        ("history.csv", "", "history.csv cannot be read: it is empty"),
        ("environment.json", None, "environment.json is missing"),
    ],
)
def test_every_file_may_be_bad(directory, name, text, problem):
    file = directory / name
    file.unlink()
    if text is not None:
        file.write_text(text, encoding="latin-1")
    run = read_run_files(directory)
    assert run.problem.startswith(problem) and run.lacks(name) == (text is None)


def test_a_run_that_does_not_exist(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        run = read_run_files(path)
        assert run.problem == "not there" and run.lacks("config.json") and run.history == {}


def test_numbers_that_are_missing_are_nan(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n1,\n2,nan\n3,0.5\n")
    assert [math.isnan(value) for value in read_run_files(tmp_path).history["loss"]] == [True, True, False]
