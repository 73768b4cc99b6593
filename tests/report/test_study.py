import json
import math

import pytest

from bnhead import report
from bnhead.errors import RunDirectoryError
from bnhead.report.study import read, read_run
from tests.report import studies


def test_it_reads_what_a_study_left(tmp_path):
    study = read(studies.write(tmp_path, "two", seeds=3))
    assert [(run.cell, run.seed) for run in study.runs] == [(c, s) for c in ("fc", "bn_fc") for s in range(3)]
    assert not any(run.problem for run in study.runs)
    run = study.of_cell("bn_fc")[1]
    assert run.config["head"] == "bn_fc" and run.result["test_accuracy"] == run.history["test_accuracy"][-1]
    assert run.history["epoch"] == list(range(1, 16)) and run.environment["keras"] == "3.15.1"


def test_what_is_damaged_is_told(tmp_path):
    study = read(studies.write(tmp_path, "damaged"))
    assert {(run.cell, run.seed): run.problem for run in study.runs if run.problem} == {
        ("fc", 3): "not there",
        ("fc", 6): "result.json cannot be read: Unterminated string starting at: line 1 column 12 (char 11)",
        ("bn_fc", 4): "history.csv cannot be read: a row of it is cut off",
    }
    assert study.of_cell("fc")[6].history and not study.of_cell("fc")[6].result


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
def test_every_file_may_be_bad(tmp_path, name, text, problem):
    file = next(studies.write(tmp_path, seeds=2).glob("runs/*")) / name
    file.unlink()
    if text is not None:
        file.write_text(text, encoding="latin-1")
    assert read_run(file.parent).problem.startswith(problem)


def test_numbers_that_are_not_there_are_nan(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n1,\n2,nan\n3,0.5\n")
    assert [math.isnan(value) for value in read_run(tmp_path).history["loss"]] == [True, True, False]


def test_no_study(tmp_path):
    with pytest.raises(
        RunDirectoryError, match=r"nowhere holds neither a study nor a run: plan\.json is missing"
    ):
        read(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="file is a file, not a study's directory"):
        read(tmp_path / "file")
    directory = studies.write(tmp_path / "study", seeds=2)
    (directory / "verdict.json").unlink()
    with pytest.raises(
        RunDirectoryError, match=r"holds a study without a verdict yet: verdict\.json is miss"
    ):
        read(directory)
    (directory / "verdict.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"verdict\.json cannot be read: Expecting property name"):
        read(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.pop("delta"), r"plan\.json cannot be read: it has no 'delta'"),
        (
            lambda plan: plan.update(seeds=[0, True]),
            r"plan\.json cannot be read: seeds\[1\] must be of type int, got True",
        ),
        (
            lambda plan: plan.update(cells="no"),
            r"plan\.json cannot be read: cells must be of type list, got 'no'",
        ),
        (lambda plan: plan["cells"][1].pop("head"), r"plan\.json cannot be read: cells\[1\] has no 'head'"),
        (lambda plan: plan["runs"][0].update(cell="fd"), r"plan\.json has no cell that is called 'fd'"),
        (
            lambda plan: plan["runs"][0].update(id="../../x"),
            r"runs\[0\]: id '\.\./\.\./x' is no name of a run",
        ),
    ],
)
def test_a_plan_of_another_shape_is_one_line(tmp_path, change, message):
    directory = studies.write(tmp_path, seeds=2)
    plan = json.loads((directory / "plan.json").read_text())
    change(plan)
    studies.dump(directory / "plan.json", plan)
    with pytest.raises(RunDirectoryError, match=message) as raised:
        read(directory)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "keys", "value", "message"),
    [
        ("verdict.json", ("comparisons", 0, "differences"), [], r"has 0 differences of 2 seeds"),
        (
            "verdict.json",
            ("comparisons", 0, "converged"),
            "x",
            r"converged must be of type dict or null, got 'x'",
        ),
        ("verdict.json", ("comparisons", 0, "interval"), [1], r"interval must have 2 entries, got 1"),
        (
            "verdict.json",
            ("cells", 1, "dead", "head_fc/per_input"),
            "x",
            r"must be of type dict or null, got 'x'",
        ),
        (
            "plan.json",
            ("cells", 1, "settings", "head"),
            [None],
            r"head must be of type str or .*, got \[None\]",
        ),
        (
            "plan.json",
            ("settings", "learning_rate"),
            "fast",
            r"learning_rate must be of type float, got 'fast'",
        ),
        ("plan.json", ("primary",), "", r"primary must be a figure of the test split, got ''"),
        ("plan.json", ("delta",), 0, r"delta must be between 0 and 1, got 0"),
        ("plan.json", ("alpha",), 0.5, r"alpha must be between 0 and 0.5, got 0.5"),
        ("plan.json", ("seeds",), [], r"seeds must not be empty"),
    ],
)
def test_a_value_of_another_kind_is_one_line(tmp_path, name, keys, value, message):
    directory = studies.write(tmp_path, seeds=2)
    content = inner = json.loads((directory / name).read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    studies.dump(directory / name, content)
    with pytest.raises(RunDirectoryError, match=message) as raised:
        report.build(directory)
    assert name in str(raised.value) and "\n" not in str(raised.value)
    assert not (directory / "report.html").exists()


def test_a_law_of_no_width_is_one_line(tmp_path):
    directory = studies.write(tmp_path, "width", seeds=2)
    verdict = json.loads((directory / "verdict.json").read_text())
    verdict["width_law"][0]["points"][0]["fc_units"] = 0
    studies.dump(directory / "verdict.json", verdict)
    with pytest.raises(RunDirectoryError, match="fc_units must be at least 1"):
        read(directory)


def test_the_pages_hold_no_escapes(tmp_path):
    """Names and texts come from files, which may be a stranger's."""
    bad = "a\x1b]0;T\x07\u202e<b>"
    directory = studies.write(tmp_path, seeds=2)
    verdict = json.loads((directory / "verdict.json").read_text())
    verdict["sentence"] = verdict["exploratory"] = bad
    verdict["exploratory"] = [bad]
    studies.dump(directory / "verdict.json", verdict)
    (run, *_) = sorted(directory.glob("runs/*"))
    for name in ("config.json", "environment.json"):
        content = json.loads((run / name).read_text())
        studies.dump(run / name, {**content, "backbone": bad, "devices": [bad], bad: bad})
    for place in (directory, run):
        report.build(place)
        for page in ("report.md", "report.html"):
            text = (place / page).read_text()
            assert "\\x1b]0;T\\x07\\u202e" in text and "<b>T" not in text
            assert all(letter.isprintable() or letter in "\n\t" for letter in text)
