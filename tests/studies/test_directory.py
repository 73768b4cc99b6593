import json
import os
import subprocess
import sys

import pytest

from bnhead.errors import RunDirectoryError
from bnhead.studies.directory import (
    failures,
    held,
    read_plan,
    set_aside,
    settle,
    write_failures,
    write_plan,
)
from bnhead.studies.plan import with_data
from tests.studies.fake import FACTS, plan_of


def test_a_second_process_is_turned_away_and_a_dead_one_is_not_in_the_way(tmp_path):
    code = (
        "import pathlib, sys, time; from bnhead.studies.directory import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "in\n"
            taken = pytest.raises(RunDirectoryError, match=f"is being written by process {other.pid} on ")
            with taken, held(tmp_path):
                pass
        finally:
            other.kill()
    with held(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    with held(tmp_path):  # given back at the end
        pass


def test_a_place_that_cannot_be_a_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot be written"), held(tmp_path / "file"):
        pass


def test_plans_are_read_back(tmp_path):
    assert read_plan(tmp_path / "nowhere") is None
    with held(tmp_path):
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


def test_another_plan_is_refused_by_name_and_amended_on_demand():
    before = with_data(plan_of(), FACTS)
    assert settle(before, plan_of(), amend=False) == before
    with pytest.raises(RunDirectoryError, match=r"dir holds another plan: delta 0\.01 there, 0\.02 now; "):
        settle(before, plan_of(delta=0.02), amend=False)
    assert settle(before, plan_of(delta=0.02), amend=True).delta == 0.02
    with pytest.raises(RunDirectoryError, match="study cannot be amended: bn_before_fc there, width now"):
        settle(before, plan_of("width"), amend=True)


def test_failures_leave_no_file_when_there_are_none(tmp_path):
    assert failures(tmp_path) == {}
    write_failures(tmp_path, {name: {"error": "ValueError", "message": "no"} for name in ("b", "a")})
    assert list(failures(tmp_path)) == ["a", "b"]
    (tmp_path / "failures.json").write_text('{"a": {"error": 1}}')
    with pytest.raises(RunDirectoryError, match=r"failures\.json cannot be read: a has no 'message'"):
        failures(tmp_path)
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
