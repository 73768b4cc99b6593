import dataclasses
import shlex

import pytest

from bnhead.cli import diagnose, study as study_cli, train as train_cli
from bnhead.studies import commands
from bnhead.studies.study import cause_study
from bnhead.training.config import TrainConfig
from tests.studies.fake import plan_of

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "arguments",
    [
        ["bn_before_fc"],
        ["placement", "--seeds=4", "--delta=0.005", "--epochs=3", "--mixed_precision", "--deterministic"],
        ["batch_size", "--learning_rate=0.2"],
        ["learning_rate", "--alpha=0.01", "--dataset=folder:my pictures"],
        ["width", "--task=regression", "--dataset=digits_rotation"],
        ["adversarial", "--adversarial_epsilon=16", "--backbone=resnet8"],
        ["domains", "--augment=none"],
        ["imbalance", "--imbalance=longtail:20", "--batch_size=32"],
        ["imbalance"],
        ["--heads=fc,bn_fc", "--seeds=3"],  # the usual question is no flag
        ["--heads=fc,bn_fc,fastai", "--question=Which?", "--seeds=3,5", "--first_seed=7"],
        ["--heads=out,bn_out", "--question=Why?", "--vary=batch_size=32,64", "--name=mine", "--outcome=nll"],
    ],
)
def test_the_command_of_a_study_makes_its_plan(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my pictures").mkdir()
    plan = study_cli.plan_of(arguments)[1]
    program, command, *again = shlex.split(commands.study_command(plan, "some where"))
    assert (program, command, again[-1]) == ("bnhead", "study", "--dir=some where")
    assert study_cli.plan_of(again)[1] == plan
    # dir is always there; of the rest only what was asked for
    assert {flag.partition("=")[0] for flag in again} == {
        *(flag.partition("=")[0] for flag in arguments), "--dir"
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [[], ["--head=bn_out", "--seeds=5", "--epochs=3", "--head_bn_momentum=0.99"]]
)
def test_the_command_of_a_diagnosis_makes_its_plan(arguments):
    def plan_of_diagnosis(flags):
        request = diagnose.COMMAND.parse(flags)
        return study_cli.planned(request, cause_study(request.head), flags)[0]

    plan = plan_of_diagnosis(arguments)
    program, command, *again = shlex.split(commands.study_command(plan, "some where"))
    assert (program, command, again[-1]) == ("bnhead", "diagnose", "--dir=some where")
    assert plan_of_diagnosis(again) == plan


def test_a_study_that_no_command_makes():
    plan = plan_of("batch_size")
    assert commands.study_command(dataclasses.replace(plan, study="mine"), "d") == ""
    assert commands.study_command(dataclasses.replace(plan, cells=plan.cells[2:]), "d") == ""
    assert commands.study_command(dataclasses.replace(plan, cells=()), "d") == ""


def test_the_command_of_a_run_has_what_differs_from_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my $(pictures)").mkdir()
    config = TrainConfig(dataset="folder:my $(pictures)", mixed_precision=True, deterministic=True)
    command = commands.train_command({**config.settings(), "workdir": "there"})
    program, name, *flags = shlex.split(command)
    assert (program, name) == ("bnhead", "train") and sorted(flags) == sorted([
        *("--dataset=folder:my $(pictures)", f"--head={config.head}", "--mixed_precision", "--deterministic"),
        *("--seed=0", "--workdir=there"),
    ])  # fmt: skip
    assert train_cli.COMMAND.parse(shlex.split(command)[2:]) == dataclasses.replace(config, workdir="there")
