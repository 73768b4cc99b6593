"""The code, commands and tables of the README and of its pages in docs/."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bnhead import DeadUnits, heads, models
from bnhead.__main__ import main
from bnhead.cli import study as studies_command, train
from bnhead.studies import verdict
from bnhead.studies.study import STUDIES
from bnhead.training import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("census", "data", "runs", "studies")}
GUIDE = "\n".join([README, *PAGES.values()])


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_readme_links_every_page():
    assert all(f"(docs/{name}.md)" in README for name in (*PAGES, "heads", "scale"))


def test_the_python_code_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(block, names)
    out = capsys.readouterr().out
    assert "62x62x32 -> catpool -> 64 -> bn -> dropout(0.25) -> fc(512, relu) -> out(10)  [P1]" in out
    assert "conv: 16 units, 256 inputs" in out and "fc: 64 units, 256 inputs" in out
    assert out.endswith("\n512\n")
    assert "76 layers, 55 after folding" in out
    assert (tmp_path / "logs" / "units").is_dir()
    assert "bn_fc256" in out and float(re.search(r"of an output (\S+)", out)[1]) < 1e-5


def test_every_argument_of_dead_units_is_in_its_table():
    table = README.split("| `DeadUnits(...)` |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.M))))
    assert named <= set(inspect.signature(DeadUnits).parameters) and len(named) == 12


def test_ci_runs_the_readmes_test_command():
    (command,) = [block.strip() for block in blocks("sh") if "pytest" in block]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("head", ["bn_fc", pytest.param("fc", marks=pytest.mark.slow)])
def test_the_main_command_reaches_97_percent_quietly(head, data_dir, tmp_path):
    (line,) = [
        block.strip() for block in blocks("sh") if "--head=bn_fc" in block and "--dataset" not in block
    ]
    python, script, flag = line.split(" && ")[1].split()
    assert (python, script, flag) == ("python", "train.py", "--head=bn_fc")
    environment = {**os.environ, "TFDS_DATA_DIR": data_dir}
    command = [sys.executable, ROOT / script, f"--head={head}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("\n") < 5, done.stderr
    assert "\nlook                tensorboard --logdir runs/\n" in done.stdout
    result = json.loads((tmp_path / f"runs/digits/resnet20/{head}/seed0/result.json").read_text())
    assert result["test_accuracy"] >= 0.97
    assert f"test accuracy       {result['test_accuracy']:.2%} of 360 images" in done.stdout


def test_every_token_and_file_is_in_its_table(short_run):
    tokens = README.split("| token |")[1].split("\n\n")[0]
    first_column = " ".join(re.findall(r"^\| (`[^|]*) \|", tokens, re.M))
    assert set(re.findall(r"`([a-z]+\d?)`", first_column)) == set(heads.TOKENS)
    files = PAGES["runs"].split("| file |")[1].split("\n\n")[0]
    written = {path.name for path in Path(short_run[0].workdir).iterdir()}
    assert written | {"best.keras"} == set(re.findall(r"^\| `([\w.]+)/?`", files, re.M)), (
        "no validation split"
    )


def test_the_data_command_draws_its_sheet(data_dir, tmp_path, monkeypatch, capsys):
    (line,) = [block.strip() for block in blocks("sh") if block.startswith("bnhead data")]
    monkeypatch.chdir(tmp_path)
    assert main([*line.split()[1:], f"--data_dir={data_dir}"]) == 0
    assert "0 of test in train" in capsys.readouterr().out and (tmp_path / "digits.png").is_file()


def test_the_flags_of_the_data_table_are_taken():
    table = PAGES["data"].split("| flag | effect |")[1].split("\n\n")[0]
    flags = dict(re.findall(r"`--(\w+)(?:=([^`]+))?`", table))
    assert set(flags) < {spec.name for spec in dataclasses.fields(TrainConfig)} and len(flags) == 8
    for flag, value in flags.items():
        if value:
            assert getattr(train.COMMAND.parse([f"--{flag}={value}"]), flag) == float(value)
    for row, field in (("--imbalance", "imbalance"), ("--augment", "augment")):
        (line,) = [line for line in table.splitlines() if f"`{row}`" in line]
        for value in re.findall(r"`([a-z]\w+(?::\d+)?)`", line):
            TrainConfig(**{field: value})


def test_placements_are_those_of_the_table():
    for placement, row in re.findall(r"^\| (P\d) \|(.*)\|$", README, re.M):
        for text in re.findall(r"`([a-z_]+)`", row):
            assert heads.placement(text) == (placement,)


def test_every_backbone_of_the_table_is_known():
    table = README.split("| `--backbone` |")[1].split("\n\n")[0]
    named = [n for n in re.findall(r"`([a-z]+\d*\w*|keras:\w+)`", table) if n not in ("_v2", "flatten")]
    assert {"resnet8", "wrn28_10", "keras:MobileNetV2", "allcnn", "resnet50_v1"} <= set(named)
    for name in named:
        models.check_backbone(name)


def test_every_study_and_every_verdict_is_in_its_table():
    studies = README.split("| `bnhead study` | question |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", studies, re.M)) == set(STUDIES)
    verdicts = PAGES["studies"].split("| verdict | rule |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([A-Z][A-Z, ]+) \|", verdicts, re.M)
    assert rows == re.findall(r"^([A-Z][A-Z, ]+[A-Z])  ", verdict.__doc__, re.M)
    for line in re.findall(r"`bnhead (study \w+ --[^`]+)`", GUIDE):
        studies_command.plan_of(line.split()[1:])
