"""The code, commands, outputs and tables of the README and of the pages in docs/."""

import dataclasses
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnhead import DeadUnits, heads, models
from bnhead.__main__ import COMMANDS, main
from bnhead.cli import study as studies_command, train
from bnhead.studies import verdict
from bnhead.studies.study import STUDIES
from bnhead.training import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.stem: path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
}
README = PAGES["README"]
# what commands of other programs in sh blocks begin with
ELSEWHERE = (
    *("pip install ", "python3 -m venv ", ". ~/", "cd ", "git clone ", "tfds build ", "export KERAS_"),
    *("python -m pytest", "mkdocs ", "python docs/", "python benchmarks/"),
)


def blocks(language, page):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def without_numbers(text):
    """Text in which numbers and the spaces that align them are equal: they differ from CPU to CPU."""
    return re.sub(r" +", " ", re.sub(r"\d+(\.\d+)?", "0", text))


def commands(page):
    """The single commands of a page's sh blocks, without what they set in the environment."""
    lines = "\n".join(blocks("sh", page)).splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&") if part.strip()]
    return [re.sub(r"^([A-Z_]+=\S+ )+", "", part) for part in parts]


def test_the_readme_is_short_and_links_every_guide():
    assert README.count("\n") <= 145
    guides = {name for name in PAGES if (ROOT / "docs" / f"{name}.md").is_file()}
    assert guides == {name for name in guides if f"(docs/{name}.md)" in README} and len(guides) == 17


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", page)])
def test_the_python_code_runs_from_top_to_bottom(page, data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "docs/answer/digits", tmp_path / "studies/bn_before_fc")
    names = {}
    for block in blocks("python", page):
        exec(block.replace("TrainConfig(", f"TrainConfig(data_dir={data_dir!r}, "), names)
    out = capsys.readouterr().out
    if page == "README":
        (shown,) = [block for block in blocks("text", page) if "inputs;" in block]
        assert without_numbers(shown.partition("  ...")[0]) in without_numbers(out)
        assert re.search(r"dead +(\d+)", out)[1] > "0", "the text says that many are"
    expected = {
        "heads": ["62x62x32 -> catpool -> 64 -> bn -> dropout(0.25) -> fc(512, relu) -> out(10)  [P1]"],
        "census": [
            "conv: 16 units, 256 inputs",
            "fc: 64 units, 256 inputs",
            "\n512\n",
            "fc: 8 units removed",
        ],
        "runs": ["test accuracy ", "{'head_fc': {"],
        "studies": ["NO MATERIAL DIFFERENCE after 10 seeds", "control_dead"],
        "models": ["76 layers, 55 after folding"],
        "mechanisms": ["norm batch_normalization", "noise of a logit", "\nno_centring", "\nfolded"],
    }
    assert all(text in out for text in expected.get(page, []))
    if page == "heads":
        assert "\nbn_fc256\n" in out and float(re.search(r"of an output (\S+)", out)[1]) < 1e-5
    if page == "census":
        assert (tmp_path / "logs" / "units").is_dir()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("sh", page)])
def test_every_command_is_taken(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/digits/resnet20/bn_fc/seed0").mkdir(parents=True)
    for name in ("table.keras", "mine.keras"):
        (tmp_path / name).write_text("a model")
    np.savez("test.npz", x=np.ones(2))
    for command in commands(page):
        words = shlex.split(command)
        if words[:2] == ["python", "train.py"]:
            train.COMMAND.parse(words[2:])
        elif words[0] == "bnhead" and words[1] == "study":
            studies_command.plan_of(words[2:])
        elif words[0] == "bnhead":
            importlib.import_module(f"bnhead.cli.{words[1]}").COMMAND.parse(words[2:])
        else:
            assert command.startswith(ELSEWHERE), f"{page}: {command}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_exist(page):
    for line in re.findall(r"`bnhead ([a-z]+[^`]*)`", PAGES[page].replace("\n", " ")):
        words = line.split()
        assert words[0] in COMMANDS, line
        if words[0] == "study" and len(words) > 1 and words[1] in STUDIES:
            studies_command.plan_of(words[1:])


def test_every_argument_of_dead_units_is_in_its_table():
    table = PAGES["census"].split("| `DeadUnits(...)` |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.M))))
    assert named == set(inspect.signature(DeadUnits).parameters) - {"self"}


def test_ci_runs_the_readmes_test_command_and_builds_the_site():
    (command,) = [block.strip() for block in blocks("sh", "README") if "pytest" in block]
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert command in lines and any("mkdocs build --strict" in line for line in lines)


@pytest.mark.parametrize("head", ["bn_fc", pytest.param("fc", marks=pytest.mark.slow)])
def test_the_main_command_reaches_97_percent_quietly(head, data_dir, tmp_path):
    (line,) = [block.strip() for block in blocks("sh", "README") if "train.py" in block]
    python, script, flag = line.split(" && ")[1].split()
    assert (python, script, flag) == ("python", "train.py", "--head=bn_fc")
    environment = {**os.environ, "TFDS_DATA_DIR": data_dir}
    command = [sys.executable, ROOT / script, f"--head={head}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("\n") < 5, done.stderr
    if head == "bn_fc":
        (shown,) = [block for block in blocks("text", "README") if block.startswith("head  ")]
        assert without_numbers(shown) in without_numbers(done.stdout)
    result = json.loads((tmp_path / f"runs/digits/resnet20/{head}/seed0/result.json").read_text())
    assert result["test_accuracy"] >= 0.97
    assert f"test accuracy       {result['test_accuracy']:.2%} of 360 images" in done.stdout


def test_every_token_and_file_is_in_its_table(short_run):
    tokens = PAGES["heads"].split("| token |")[1].split("\n\n")[0]
    first_column = " ".join(re.findall(r"^\| (`[^|]*) \|", tokens, re.M))
    assert set(re.findall(r"`([a-z]+\d?)`", first_column)) == set(heads.TOKENS)
    files = PAGES["runs"].split("| file |")[1].split("\n\n")[0]
    written = {path.name for path in Path(short_run[0].workdir).iterdir()}
    # with a validation split, of `bnhead inspect`, on a frozen backbone
    later = {"best.keras", "census", "head.keras"}
    first_column = " ".join(re.findall(r"^\| (`[^|]*) \|", files, re.M))
    assert written | later == set(re.findall(r"`([\w.]+)/?`", first_column))


def test_the_data_command_draws_its_sheet(data_dir, tmp_path, monkeypatch, capsys):
    (line,) = [line for line in commands("data") if line.startswith("bnhead data")]
    monkeypatch.chdir(tmp_path)
    assert main([*line.split()[1:], f"--data_dir={data_dir}"]) == 0
    assert "0 of test in train" in capsys.readouterr().out and (tmp_path / "digits.png").is_file()


def test_the_flags_of_the_data_table_are_taken():
    table = PAGES["data"].split("| flag | effect |")[1].split("\n\n")[0]
    flags = dict(re.findall(r"`--(\w+)(?:=([^`]+))?`", table))
    assert set(flags) < {spec.name for spec in dataclasses.fields(TrainConfig)} and len(flags) == 10
    for flag, value in flags.items():
        if value:
            assert getattr(train.COMMAND.parse([f"--{flag}={value}"]), flag) == float(value)
    for row, field in (("--imbalance", "imbalance"), ("--augment", "augment")):
        (line,) = [line for line in table.splitlines() if f"`{row}`" in line]
        for value in re.findall(r"`([a-z]\w+(?::\d+)?)`", line):
            TrainConfig(**{field: value})


def test_every_backbone_of_the_table_is_known():
    table = PAGES["models"].split("| `--backbone` |")[1].split("\n\n")[0]
    named = [n for n in re.findall(r"`([a-z]+\d*\w*|keras:\w+)`", table) if n not in ("_v2", "flatten")]
    assert {"resnet8", "wrn28_10", "keras:MobileNetV2", "allcnn", "resnet50_v1"} <= set(named)
    for name in named:
        models.check_backbone(name)


def test_every_verdict_is_in_its_table():
    verdicts = PAGES["studies"].split("| verdict | rule |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([A-Z][A-Z, ]+) \|", verdicts, re.M)
    assert rows == re.findall(r"^([A-Z][A-Z, ]+[A-Z])  ", verdict.__doc__, re.M)
