import json
import os
import subprocess
import sys

import pytest

from bnhead import report
from bnhead.errors import RunDirectoryError
from bnhead.report.verify import verify
from bnhead.studies.directory import (
    locked_study,
    read_failures,
    read_plan,
    read_study,
    set_aside,
    settled_plan,
    write_failures,
    write_plan,
)
from bnhead.studies.plan import digest, to_json, with_data
from tests.studies.fake import FACTS, change_json, dump, plan_of, write_study


def test_a_second_process_is_turned_away_and_a_dead_one_is_not_in_the_way(tmp_path):
    code = (
        "import pathlib, sys, time; from bnhead.studies.directory import locked_study\n"
        "with locked_study(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "in\n"
            taken = pytest.raises(RunDirectoryError, match=f"is being written by process {other.pid} on ")
            with taken, locked_study(tmp_path):
                pass
        finally:
            other.kill()
    with locked_study(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    with locked_study(tmp_path):  # given back at the end
        pass


def test_a_place_that_cannot_be_a_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot be written"), locked_study(tmp_path / "file"):
        pass


def test_plans_are_read_back(tmp_path):
    assert read_plan(tmp_path / "nowhere") is None
    with locked_study(tmp_path):
        assert read_plan(tmp_path) is None
        plan = with_data(plan_of(), FACTS)
        write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    write_plan(tmp_path, plan_of(seeds=6), plan)
    assert read_plan(tmp_path) == plan_of(seeds=6)
    assert (tmp_path / f"plan-{plan.sha256[:12]}.json").is_file()


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "letters").mkdir()
    with pytest.raises(RunDirectoryError, match=r"is not empty and holds no study \(letters\)"):
        read_plan(tmp_path)


def test_a_plan_that_cannot_be_read(tmp_path):
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"plan\.json cannot be read"):
        read_plan(tmp_path)


def test_a_study_of_the_earlier_rules_is_refused_in_one_line(tmp_path):
    content = to_json(plan_of())
    earlier = {key: content[key] for key in content if key not in ("measures", "looks", "trend", "sha256")}
    earlier |= {"format": 1, "delta": 0.01, "chance": 0.1}
    dump(tmp_path / "plan.json", {**earlier, "sha256": digest(earlier)})
    dump(tmp_path / "verdict.json", {"comparisons": [{"name": "bn_fc against fc"}]})  # no outcomes then
    for reader in (read_plan, read_study, verify):
        with pytest.raises(RunDirectoryError, match="began under earlier rules") as refused:
            reader(tmp_path)
        assert "\n" not in str(refused.value)


def test_a_plan_that_was_edited(tmp_path):
    write_study(tmp_path, seeds=2)
    assert not read_study(tmp_path).is_edited
    change_json(tmp_path / "plan.json", ["measures", 0, "margin"], 0.02)
    with pytest.raises(RunDirectoryError, match=r"plan\.json was changed since it was written: its hash"):
        read_plan(tmp_path)
    study = read_study(tmp_path)
    assert study.is_edited and study.plan.delta == 0.02 and study.plan_sha256 != study.plan.sha256


def test_a_study_is_read_back(tmp_path):
    study = read_study(write_study(tmp_path, "two", seeds=3))
    assert study.plan == read_plan(tmp_path) and study.plan_sha256 == study.plan.sha256
    assert list(study.runs) == [run.id for run in study.plan.runs]
    assert [run.config["seed"] for run in study.of_cell("bn_fc")] == [0, 1, 2]
    assert json.loads((tmp_path / "verdict.json").read_text()) == study.verdict
    runs = {run: files for run, files in study.runs.items()}
    assert read_study(tmp_path, runs).runs == runs


def test_damaged_runs_are_recorded(tmp_path):
    study = read_study(write_study(tmp_path, "damaged"))
    problems = {(run.cell, run.seed): study.runs[run.id].problem for run in study.plan.runs}
    assert {key: problem for key, problem in problems.items() if problem} == {
        ("fc", 3): "not there",
        ("fc", 6): "result.json cannot be read: Unterminated string starting at: line 1 column 12 (char 11)",
        ("bn_fc", 4): "history.csv cannot be read: a row of it is cut off",
    }
    half = study.of_cell("fc")[6]
    assert half.history and not half.result


def test_no_study(tmp_path):
    with pytest.raises(
        RunDirectoryError, match=r"nowhere holds neither a study nor a run: plan\.json is missing"
    ):
        read_study(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="file is a file, not a study's directory"):
        read_study(tmp_path / "file")
    directory = write_study(tmp_path / "study", seeds=2)
    (directory / "verdict.json").unlink()
    assert read_study(directory).verdict == {}
    (directory / "verdict.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"verdict\.json cannot be read: Expecting property name"):
        read_study(directory)


@pytest.mark.parametrize(
    ("name", "keys", "value", "message"),
    [
        ("plan.json", ["seeds"], [0, True], r"cannot be read: seeds\[1\] must be of type int, got True"),
        ("plan.json", ["cells"], "no", r"cannot be read: cells must be of type list, got 'no'"),
        ("plan.json", ["cells", 1], {}, r"cannot be read: cells\[1\] has no 'name'"),
        ("plan.json", ["runs", 0, "cell"], "fd", "there is no cell called 'fd'"),
        (
            "plan.json",
            ["runs", 0, "id"],
            "../../x",
            r"runs\[0\]: id '\.\./\.\./x' cannot be the name of a run",
        ),
        ("plan.json", ["cells", 1, "settings", "head"], [None], r"head must be of type str or .*\[None\]"),
        ("plan.json", ["settings", "momentum"], {}, r"momentum must be of type str or .*, got {}"),
        ("plan.json", ["primary"], "", r"primary must be a figure of the test split, got ''"),
        ("plan.json", ["measures", 0, "margin"], 0, r"delta must be between 0 and 1, got 0"),
        ("plan.json", ["alpha"], 0.5, r"alpha must be between 0 and 0.5, got 0.5"),
        ("plan.json", ["seeds"], [], r"seeds must be 2, as many as at the last look, got 0"),
        ("plan.json", ["looks"], [0], r"seeds must be at least 1, got 0"),
        ("plan.json", ["format"], 3, r"must be of format 2, got 3"),
        ("verdict.json", ["comparisons", 0, "differences"], [], r"has 0 differences of 2 seeds"),
        ("verdict.json", ["comparisons", 0, "control"], "fd", "the plan has no cell called 'fd'"),
        ("verdict.json", ["comparisons", 0, "converged"], "x", r"of type dict or null, got 'x'"),
        ("verdict.json", ["comparisons", 0, "interval"], [1], r"interval must have 2 entries, got 1"),
        ("verdict.json", ["cells", 1, "dead", "head_fc/per_input"], "x", r"of type dict or null, got 'x'"),
    ],
)
def test_values_that_no_study_writes_are_one_line(tmp_path, name, keys, value, message):
    directory = write_study(tmp_path, seeds=2)
    change_json(directory / name, keys, value)
    with pytest.raises(RunDirectoryError, match=message) as raised:
        report.build(directory)
    assert name in str(raised.value) and "\n" not in str(raised.value)
    assert not (directory / "report.html").exists()


def test_a_law_of_no_width_is_one_line(tmp_path):
    directory = write_study(tmp_path, "width", seeds=1)
    change_json(directory / "verdict.json", ["width_law", 0, "points", 0, "fc_units"], 0)
    with pytest.raises(RunDirectoryError, match="fc_units must be at least 1"):
        read_study(directory)


def test_another_plan_is_refused_by_name_and_amended_on_demand():
    before = with_data(plan_of(), FACTS)
    assert settled_plan(before, plan_of(), amend=False) == before
    with pytest.raises(
        RunDirectoryError, match=r"dir holds another plan: delta of accuracy 0\.01 there, 0\.02 now"
    ):
        settled_plan(before, plan_of(delta=0.02), amend=False)
    assert settled_plan(before, plan_of(delta=0.02), amend=True).delta == 0.02
    with pytest.raises(RunDirectoryError, match="study cannot be amended: bn_before_fc there, width now"):
        settled_plan(before, plan_of("width"), amend=True)


def test_failures_leave_no_file_when_there_are_none(tmp_path):
    assert read_failures(tmp_path) == {}
    write_failures(tmp_path, {name: {"error": "ValueError", "message": "no"} for name in ("b", "a")})
    assert list(read_failures(tmp_path)) == ["a", "b"]
    (tmp_path / "failures.json").write_text('{"a": {"error": 1}}')
    with pytest.raises(RunDirectoryError, match=r"failures\.json cannot be read: a has no 'message'"):
        read_failures(tmp_path)
    write_failures(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_damaged_runs_are_kept(tmp_path):
    for number in (1, 2):
        (tmp_path / "runs" / "abc").mkdir(parents=True)
        assert set_aside(tmp_path, "abc") == tmp_path / "damaged" / f"abc-{number}"
    assert not (tmp_path / "runs" / "abc").exists()
    (tmp_path / "damaged" / "abc-1").rmdir()
    (tmp_path / "damaged" / "abc-2" / "kept").touch()
    (tmp_path / "runs" / "abc").mkdir()
    assert set_aside(tmp_path, "abc") == tmp_path / "damaged" / "abc-1"
    (tmp_path / "runs" / "abc").mkdir()
    assert set_aside(tmp_path, "abc") == tmp_path / "damaged" / "abc-3"
