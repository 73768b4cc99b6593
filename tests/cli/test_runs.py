"""`bnhead runs`: a row for each run and study, read from files alone."""

import json
import subprocess
import sys

import pytest

from bnhead.__main__ import main
from bnhead.runs import lock
from bnhead.training.config import TrainConfig
from tests.studies.fake import change_json, write_run, write_study

pytestmark = pytest.mark.quick


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a study, a finished run and a killed one."""
    monkeypatch.setenv("COLUMNS", "80")
    write_study(tmp_path / "studies" / "mine", seeds=3)
    write_run(TrainConfig(head="bn_fc", epochs=2, seed=7, workdir=str(tmp_path / "runs" / "a")), 0.9875,
              **{"dead/head_fc/dataset": 0.125})  # fmt: skip
    killed = tmp_path / "runs" / "b"
    killed.mkdir()
    (killed / "config.json").write_text(json.dumps({"head": "fc", "seed": 1}))
    (killed / "status.json").write_text('{"status": "running"}')
    return tmp_path


def listed(folder, capsys):
    assert main(["runs", str(folder)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_folder(folder, capsys):
    verdict = json.loads((folder / "studies/mine/verdict.json").read_text())["word"].split()
    assert listed(folder, capsys) == [
        ["study", "name", "runs", "seeds", "verdict"],
        ["studies/mine", "bn_before_fc", "6", "of", "6", "3", *verdict],
        [],
        ["run", "head", "seed", "status", "test", "dead"],
        ["runs/a", "bn_fc", "7", "finished", "98.75%", "12.5%"],
        ["runs/b", "fc", "1", "interrupted"],
    ]


def test_a_study_lists_its_runs_in_the_order_of_its_plan(folder, capsys):
    rows = listed(folder / "studies" / "mine", capsys)
    plan = json.loads((folder / "studies/mine/plan.json").read_text())
    assert [row[0] for row in rows[4:]] == [f"runs/{run['id']}" for run in plan["runs"]]
    assert [row[1:3] for row in rows[4:]] == [
        [cell, str(seed)] for cell in ("fc", "bn_fc") for seed in range(3)
    ]


def test_a_run_whose_process_lives_is_running(folder, capsys):
    with lock.writer_lock(folder / "runs" / "b"):
        assert listed(folder / "runs", capsys)[-1] == ["b", "fc", "1", "running"]


def test_a_study_without_a_verdict_is_incomplete(folder, capsys):
    (folder / "studies/mine/verdict.json").unlink()
    run = json.loads((folder / "studies/mine/plan.json").read_text())["runs"][0]["id"]
    (folder / "studies/mine/runs" / run / "result.json").unlink()
    assert listed(folder / "studies", capsys)[1] == ["mine", "bn_before_fc", "5", "of", "6", "INCOMPLETE"]


def test_damaged_files_are_named_in_their_row(folder, capsys):
    change_json(folder / "studies/mine/plan.json", ["cells"], 1)
    (folder / "runs/a/result.json").write_text("{")
    text = "".join(word for row in listed(folder, capsys) for word in row)  # a long path is broken anywhere
    assert "plan.jsoncannotberead" in text and "result.jsoncannotberead" in text


def test_a_study_of_earlier_rules_is_called_so(folder, capsys):
    plan = json.loads((folder / "studies/mine/plan.json").read_text())
    del plan["looks"]
    (folder / "studies/mine/plan.json").write_text(json.dumps({**plan, "format": 1}))
    assert listed(folder / "studies", capsys)[1] == ["mine", "bn_before_fc", "of", "earlier", "rules"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere"], 3, "dir nowhere is not a directory"),
        (["--all"], 2, "flag --all is not known; `bnhead runs --help` lists them"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    assert main(["runs", *arguments]) == status
    assert capsys.readouterr().err == f"bnhead runs: {message}\n"


def test_an_empty_folder(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs and no studies in {tmp_path}\n"


def test_it_needs_neither_tensorflow_nor_keras(folder):
    code = (
        "import sys; from bnhead.__main__ import main; status = main(['runs', sys.argv[1]]); "
        "print(status, [name for name in ('tensorflow', 'keras', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.stdout.endswith("\n0 []\n") and done.stderr == ""
