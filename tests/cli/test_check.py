import json
import os
import re
import resource
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from bnhead.cli import check
from bnhead.lint.rules import RULES


def test_a_finished_run(short_run, capsys):
    """Its training is that of its settings."""
    config, _ = short_run
    assert check.main([config.workdir, f"--data_dir={config.data_dir}", "--format=json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["facts"]["training"] == "batches of 256, 1,437 examples, 2 epochs, 10 steps"
    warnings = {item["rule"]: item for item in content["findings"] if item["severity"] != "info"}
    assert set(warnings) == {"BN201"}, "0.9^10 of the initial averages is left"
    assert warnings["BN201"]["value"] == pytest.approx(0.9**10)


def test_a_backbone_at_80_columns(data_dir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    flags = ["--dataset=digits", f"--data_dir={data_dir}", "--head=fastai", "--epochs=10"]
    assert check.main(["resnet8", *flags]) == 1
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 and "\n\n\n" not in out
    assert "\nwarning  BN401 dropout-before-norm  head_bn_2\n         head_dropout, rate 0.25, makes" in out
    assert "\n  why    Dropout adds variance" in out and "\n  fix    put the dropout after" in out
    assert "\n1 warning; 15 rules checked, 2 not\n" in out and "check --explain=BN401\n" in out
    assert check.main(["resnet8", *flags, "--fail_on=error"]) == 0
    assert check.main(["resnet8", *flags, "--fail_on=never", "--select=BN4"]) == 0
    assert check.main(["resnet8", *flags, "--ignore=BN401"]) == 0


def test_a_file_of_somebodys(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = layers.Dense(8, name="fc"), layers.BatchNormalization(momentum=0.1, name="bn"), layers.Dense(2)
    keras.Sequential([keras.Input((4,)), *parts]).save("mine.keras")
    assert check.main(["mine.keras"]) == 1
    out = capsys.readouterr().out
    assert "BN101 bias-before-norm  fc" in out and "BN202 fast-averages  bn" in out and "not checked: " in out
    rng = np.random.default_rng(0)
    np.savez("train.npz", x=rng.normal(size=(65, 4)).astype("float32"), y=np.arange(65) % 2)
    flags = ["mine.keras", "--data=train.npz", "--batch_size=16", "--select=BN203"]
    assert check.main(flags) == 1  # 65 = 4 x 16 + 1
    assert "the last batch of an epoch has 1 example" in capsys.readouterr().out
    assert check.main([*flags, "--drop_remainder"]) == 0
    np.savez("sorted.npz", x=rng.normal(size=(64, 4)).astype("float32"), y=np.arange(64) // 32)
    flags = ["mine.keras", "--data=sorted.npz", "--batch_size=16", "--select=BN206"]
    assert check.main(flags) == 0 and check.main([*flags, "--noshuffle"]) == 1


def test_the_rules(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert check.main(["--list_rules"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^  (BN\d+)  (?:warning|error)", out, re.M) == list(RULES)
    assert max(map(len, out.splitlines())) <= 80
    assert check.main(["--list_rules", "--select=BN3", "--format=json"]) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)] == ["BN301", "BN302"]
    for rule in RULES.values():
        assert check.main([f"--explain={rule.id}"]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{rule.id} {rule.name}\n") and f"if {rule.limit}" in out.replace(
            "\n" + " " * 10, " "
        )
        assert max(map(len, out.splitlines())) <= 80


def test_listing_rules_imports_no_tensorflow_and_takes_no_time():
    code = (
        "import sys; from bnhead.__main__ import main; main(['check', '--list_rules'])\n"
        "assert not {'keras', 'tensorflow', 'jax', 'torch', 'rich'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.5, "0.2 s on an idle core"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "model is missing"),
        (["resnet20"], "dataset is missing; only a run has its own: "),
        (["resnet20", "--dataset=digits", "--select=BN41"], "select: rule 'BN41' is not known; did you mean"),
        (["--explain=dropout-before-nrm"], "rule 'dropout-before-nrm' is not known; did you mean 'dropout-b"),
        (
            ["--list_rules", "--ignore=x"],
            "ignore: rule 'x' is not known; bnhead check --list_rules lists them",
        ),
        (
            ["--list_rules", "--format=jsn"],
            "format 'jsn' is not known; did you mean 'json'? (there are console",
        ),
        (
            ["resnet20", "--dataset=digits", "--fail_on=warn"],
            "fail_on 'warn' is not known; did you mean 'warning'?",
        ),
        (["resnet20", "--dataset=digits", "--examples=0"], "examples must be at least 1, got 0"),
        (
            ["resnet20", "--dataset=digits", "--listrules"],
            "flag --listrules is not known; did you mean 'list_rules'?",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert check.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bnhead check: ") and message in error and error.count("\n") == 1
