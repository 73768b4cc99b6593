import contextlib
import dataclasses
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from bnhead.__main__ import main
from bnhead.cli import study, train as train
from bnhead.errors import UsageError
from bnhead.runs import atomic
from bnhead.runs.directory import RunDirectory
from bnhead.studies import worker
from bnhead.studies.commands import study_command, train_command
from bnhead.studies.custom import OF_DATA
from bnhead.studies.outcomes import read_outcomes
from bnhead.studies.plan import run_id
from bnhead.studies.study import STUDIES
from bnhead.studies.verdict import judge
from bnhead.training.config import TrainConfig
from tests.studies import fake


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr("bnhead.texts.shutil.which", lambda name: f"/bin/{name}")


def one_line_report(directory, runs):
    (directory / "report.md").write_text("x\n")


OWN = ("--heads=fc,bn_fc",)


def cheap(arguments, work=fake.work):
    """The command with runs that cost nothing, in this process, and a report of one line."""
    jobs = {
        worker.look_at_data: fake.look,
        worker.train_one: work,
        worker.pace: lambda config, report: {"seconds": 30.0},
    }
    engine = fake.Inline(jobs)
    return study.main(arguments, lambda workers: contextlib.nullcontext(engine), one_line_report)


def test_without_a_name_the_studies_are_listed(capsys):
    assert main(["study"]) == 0
    out = capsys.readouterr().out
    for name in STUDIES:
        heads = ", ".join(dict.fromkeys(head for head, _ in STUDIES[name].cells(TrainConfig())))
        assert f" {name} {STUDIES[name].question} {heads} " in " ".join(out.split())
    assert (
        "  fc_units: 32, 64, 128" in out
        and "  140 runs with 10 seeds; up to 560 where 10 leave it open\n" in out
    )
    assert all(len(line) <= 80 for line in out.splitlines())


def test_help_tells_the_flags_of_study_and_train_but_not_those_that_are_the_studys(capsys):
    assert main(["study", "--help"]) == 0
    out = capsys.readouterr().out
    for flag in ("seeds=10,20,40", "first_seed=0", "dir=", "engine=local", "workers=0", "delta=0.0",
                 "alpha=0.05", "[no]dry_run", "heads=", "control=", "vary=", "outcome=", "name=heads",
                 "question=", "commands="):  # fmt: skip
        assert f"  --{flag}\n" in out
    assert "  --learning_rate=" in out and "  --head=" not in out and "  --seed=" not in out


def test_flags_become_the_plan():
    request, plan, _ = study.plan_of(
        ["placement", "--seeds=3", "--delta=0.02", "--epochs=7", "--workers", "2"]
    )
    assert (request.study, request.workers, request.engine) == ("placement", 2, "local")
    assert plan.seeds == (0, 1, 2) and plan.delta == 0.02 and plan.settings["epochs"] == 7
    plan = study.plan_of(["placement"])[1]
    assert plan.looks == (10, 20, 40) and plan.seeds == tuple(range(40)) and plan.delta == 0.01


def test_looks_and_the_first_seed_become_the_plan():
    _, plan, _ = study.plan_of(["bn_before_fc", "--seeds=3,5", "--first_seed=7"])
    assert plan.looks == (3, 5) and plan.seeds == (7, 8, 9, 10, 11)
    assert {run.seed for run in plan.runs} == set(plan.seeds)


def test_heads_of_ones_choice_become_the_plan():
    request, plan, _ = study.plan_of([
        "--heads=fc,bn_fc,fastai", "--name=mine", "--question=Which head?", "--outcome=nll", "--epochs=7",
    ])  # fmt: skip
    assert (request.study, plan.study, plan.question) == ("", "mine", "Which head?")
    assert [cell.name for cell in plan.cells] == ["fc", "bn_fc", "fastai"] and plan.settings["epochs"] == 7
    assert [(pair.control, pair.treatment) for pair in plan.comparisons] == [
        ("fc", "bn_fc"), ("fc", "fastai"),
    ]  # fmt: skip
    assert plan.measures[0].name == "nll" and plan.delta == plan.measures[0].measure.margin
    assert {measure.name for measure in plan.measures} > {"accuracy", "dead_share"} and not plan.trend


def test_heads_need_no_more_than_their_names():
    _, plan, _ = study.plan_of(["--heads=fc,bn_fc,ln_fc"])
    assert (plan.study, plan.question) == ("heads", "Do bn_fc and ln_fc differ from fc?")
    assert plan.looks == (10, 20, 40) and plan.measures[0].name == "accuracy"


def test_the_control_is_the_first_head_or_the_one_that_is_named():
    _, plan, _ = study.plan_of(["--heads=fc,bn_fc,ln_fc", "--control=bn_fc"])
    assert {pair.control for pair in plan.comparisons} == {"bn_fc"}
    assert [pair.treatment for pair in plan.comparisons] == ["fc", "ln_fc"]
    first = study.plan_of(["--heads=bn_fc,fc,ln_fc"])[1]
    assert first == plan and study.plan_of(["--heads=bn_fc,fc,ln_fc", "--control=bn_fc"])[1] == plan


@pytest.mark.parametrize(
    ("vary", "key", "values"),
    [
        ("fc_units=64,256", "fc_units", [64, 256]),
        ("fc-units=64,256", "fc_units", [64, 256]),
        ("learning_rate=0.1,1", "learning_rate", [0.1, 1.0]),
        ("lr=0.1,1", "learning_rate", [0.1, 1.0]),
        ("backbone=resnet8,resnet20", "backbone", ["resnet8", "resnet20"]),
        ("mixed_precision=false,true", "mixed_precision", [False, True]),
        ("fc_decay=weights,none", "fc_decay", ["weights", "none"]),
    ],
)
def test_a_varied_setting_has_its_type_and_a_comparison_at_each_value(vary, key, values, tmp_path):
    _, plan, _ = study.plan_of(["--heads=fc,bn_fc", f"--vary={vary}", "--seeds=3"])
    assert [pair.stratum for pair in plan.comparisons] == [{key: value} for value in values]
    assert [type(pair.stratum[key]) for pair in plan.comparisons] == [type(value) for value in values]
    assert len(plan.runs) == 2 * len(values) * 3 and key not in plan.settings
    command = shlex.split(study_command(plan, "there"))
    assert study.plan_of(command[2:])[1] == plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plaecment"], "study 'plaecment' is not known; did you mean 'placement'"),
        (["--seeds=3"], "a study or --heads is missing (studies: adversarial, batch_size, bn_before_fc, "),
        (["--heads="], "a study or --heads is missing (studies: "),
        (["--control=fc"], "a study or --heads is missing (studies: "),
        (["width", "more"], "argument 'more' is not a flag"),
        (["width", "--head=fc"], "flag --head cannot be given: the study sets it"),
        (["width", "--seed=1"], "flag --seed cannot be given: the study sets it"),
        (["width", "--workdir=x"], "flag --workdir cannot be given: the study sets it"),
        (["width", "--fc_units=64"], "flag --fc_units is what the study varies; leave it out"),
        (["width", "--fc-units=256"], "flag --fc_units is what the study varies; leave it out"),
        (["batch_size", "--batch_size", "64"], "flag --batch_size is what the study varies; leave it out"),
        (["batch_size", "--batch_size", "128"], "flag --batch_size is what the study varies; leave it out"),
        ([*OWN, "--vary=fc_units=8,64", "--fc_units=256"], "flag --fc_units is what the study varies"),
        ([*OWN, "--vary=fc_units=8,64", "--fc_units", "9"], "flag --fc_units is what the study varies"),
        ([*OWN, "--vary=lr=1,2", "--lr=0"], "flag --learning_rate is what the study varies"),
        ([*OWN, "--vary=mixup=0,0.2", "--mixup=0"], "flag --mixup is what the study varies"),
        ([*OWN, "--vary=deterministic=true,false", "--nodeterministic"], "flag --deterministic is what the"),
        ([*OWN, "--vary=test_corruption=none,blur:3"], "all runs of a study have one test_corruption"),
        (["imbalance", "--imbalance=none"], "has 'longtail:100' in place of 'none'; leave the flag out"),
        (["pretrained", "--learning_rate=0.1"], "has 0.01 in place of 0.1; leave the flag out"),
        ([*OWN, "width"], "heads must be left out for study 'width', which has its own"),
        (["width", "--control=fc"], "flag --control belongs to a study of --heads; width has its own"),
        (["width", "--vary=epochs=1,2"], "flag --vary belongs to a study of --heads; width has its own"),
        (["width", "--name=mine"], "flag --name belongs to a study of --heads; width has its own"),
        (["width", "--question=Why?"], "flag --question belongs to a study of --heads; width has its own"),
        (["width", "--outcome=nll"], "flag --outcome belongs to a study of --heads; width has its own"),
        (["widht", "--outcome=nll"], "study 'widht' is not known; did you mean 'width'"),
        (["--heads=fc"], "heads must be at least 2, a control and another, got 'fc'"),
        (["--heads=fc,fc"], "two of its cells have the same runs; every head must differ"),
        (["--heads=fc,,bn_fc"], "head must be tokens joined by '_'"),
        (["--heads=fc,bnfc"], "'bnfc' is not a token; did you mean 'bn_fc'?"),
        ([*OWN, "--control=bnfc"], "control must be one of the heads; did you mean 'bn_fc'? (fc,bn_fc), got"),
        ([*OWN, "--name="], "name must be up to 60 letters, digits, _, . or -"),
        ([*OWN, "--name=.."], "name must be up to 60 letters, digits, _, . or -"),
        ([*OWN, "--name=../mine"], "name must be up to 60 letters, digits, _, . or -"),
        ([*OWN, "--name=" + 61 * "a"], "name must be up to 60 letters, digits, _, . or -"),
        ([*OWN, "--name=width"], "name 'width' is that of another study; choose another --name"),
        ([*OWN, "--outcome=nlll"], "outcome 'nlll' is not measured for classification; did you mean 'nll'?"),
        ([*OWN, "--outcome=r2"], "outcome 'r2' is not measured for classification"),
        ([*OWN, "--vary=fc_units"], "vary: fc_units cannot be ''"),
        ([*OWN, "--vary=fc_units=64"], "vary needs at least two values of fc_units, got '64'"),
        ([*OWN, "--vary=fc_units=64,x"], "vary: fc_units cannot be 'x'"),
        ([*OWN, "--vary=fc_units=64,064"], "vary: a value of fc_units is given twice: 64,064"),
        ([*OWN, "--vary=fc_units=0,64"], "fc_units must be at least 1, got 0"),
        ([*OWN, "--vary=deterministic=true,maybe"], "vary: deterministic cannot be 'maybe'"),
        ([*OWN, "--vary=fc_unit=1,2"], "vary must be a setting=values, got 'fc_unit=1,2'; did you mean 'fc_"),
        ([*OWN, "--vary=seed=1,2"], "vary must be a setting=values, got 'seed=1,2'"),
        ([*OWN, "--vary=data_dir=a,b"], "vary must be a setting=values, got 'data_dir=a,b'"),
        *(
            ([*OWN, f"--vary={name}=1,2"], f"vary: all runs of a study have one {name}; do a study for each")
            for name in OF_DATA
        ),
        (
            ["width", "--dir=gs://bucket/x"],
            "dir must be a path on a disk of this machine, got 'gs://bucket/x'",
        ),
        (["width", "--seeds=0"], "seeds must be at least 1, got 0"),
        (["width", "--seeds=10001"], "seeds must be at most 10,000, got 10001"),
        (["width", "--seeds=5,10001"], "seeds must be at most 10,000, got 10001"),
        (["width", "--seeds=ten"], "seeds must be whole numbers such as 10 or 10,20,40, got 'ten'"),
        (["width", "--seeds=10,"], "seeds must be whole numbers such as 10 or 10,20,40, got '10,'"),
        (["width", "--seeds=2,4"], "seeds must be at least 3 at the first of several looks, got 2"),
        (["width", "--seeds=10,10"], "seeds must increase from look to look, got 10,10"),
        (["width", "--first_seed=-1"], "first_seed must be at least 0, got -1"),
        (["width", "--workers=-1"], "workers must be at least 0, got -1"),
        (["width", "--engine=rey"], "engine 'rey' is not known; did you mean 'ray'"),
        (["width", "--delta=nan"], "delta must be between 0 and 1, got nan"),
        (["width", "--alpha=0"], "alpha must be between 0 and 0.5, got 0.0"),
        (["width", "--epochs=0"], "epochs must be at least 1, got 0"),
        (["width", "--seedz=3"], "flag --seedz is not known; did you mean 'seeds'"),
    ],
)
def test_bad_input_is_one_line_and_exits_2(arguments, message, capsys):
    assert main(["study", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bnhead study: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_can_be_asked_for_by_its_name(name):
    """Also one that is called like the flag that it varies."""
    _, plan, _ = study.plan_of([name])
    assert plan.study == name


def test_what_a_study_varies_is_no_more_its_users_in_a_flag_file(tmp_path):
    (tmp_path / "flags").write_text("--fc_units=64\n")
    with pytest.raises(UsageError, match="flag --fc_units is what the study varies; leave it out"):
        study.plan_of(["width", f"--flagfile={tmp_path / 'flags'}"])


def test_bad_input_brings_no_tensorflow():
    code = (
        "import sys; from bnhead.__main__ import main; status = main(sys.argv[1:]); "
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    for arguments in (["study", "widht"], ["study", "width", "--seeds=0"], ["study", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_dry_run_lists_ids_and_commands_and_writes_nothing(tmp_path, capsys):
    place = tmp_path / "s"
    assert cheap(["bn_before_fc", "--seeds=2", "--epochs=3", "--dry_run", f"--dir={place}"]) == 0
    out, (_, plan, _) = capsys.readouterr().out, study.plan_of(["bn_before_fc", "--seeds=2", "--epochs=3"])
    assert "each run with TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1" in out
    for run in plan.runs:
        line = f"--head={run.cell} --epochs=3 --seed={run.seed} --workdir={place}/runs/{run.id}"
        assert f"{run.id}  bnhead train {line}\n" in out
    assert re.search("4 runs of 3 epochs, 0 done, . at a time: about [0-9]+ s, going by the first", out)
    assert not place.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["learning_rate", "--data_dir=here", "--weight_histograms"],
        ["bn_before_fc", "--task=regression", "--dataset=digits_rotation"],
        ["bn_before_fc", "--task=regression", "--dataset=digits_rotation", "--learning_rate=0.1"],
    ],
)
def test_the_commands_of_a_dry_run_are_the_runs(arguments):
    _, plan, machine_fields = study.plan_of(arguments)
    for run in plan.runs:
        config = plan.config(run, pathlib.Path("some where"), machine_fields)
        assert train.COMMAND.parse(shlex.split(train_command(dataclasses.asdict(config)))[2:]) == config


def test_a_study_ends_with_verdict_and_report_and_does_nothing_twice(tmp_path, capsys):
    arguments = ["bn_before_fc", "--seeds=4", f"--dir={tmp_path}", "--epochs=2"]
    assert cheap(arguments) == 0
    out = capsys.readouterr().out
    assert "8 of 8  bn_fc, seed 3" in out and "\nHELPS after 4 seeds. With bn_fc, test accuracy" in out
    assert "warning" not in out
    assert out.splitlines()[-2:] == [
        f"report     {tmp_path / 'report.html'}",
        f"to check   bnhead verify {tmp_path}",
    ]
    assert json.loads((tmp_path / "verdict.json").read_text())["word"] == "HELPS"
    assert (tmp_path / "report.md").read_text() == "x\n"
    assert cheap(arguments) == 0
    assert "of 8  " not in capsys.readouterr().out
    assert cheap([*arguments, "--momentum=0.5"]) == 3
    err = capsys.readouterr().err
    assert "dir holds another plan: momentum 0.9 there, 0.5 now" in err and err.count("\n") == 1
    assert cheap([*arguments, "--delta=0.02", "--amend"]) == 0
    assert (
        "exploratory: delta of accuracy was changed after the plan was written: 0.01 there, 0.02 now"
    ) in " ".join(capsys.readouterr().out.split())


def test_a_finished_study_reads_each_file_of_its_runs_once(tmp_path, monkeypatch):
    arguments = ["bn_before_fc", "--seeds=2", f"--dir={tmp_path}", "--epochs=2"]
    assert cheap(arguments) == 0
    reads = []
    real = atomic.read_text
    monkeypatch.setattr(atomic, "read_text", lambda path: reads.append(path) or real(path))
    jobs = fake.Inline({})
    assert study.main(arguments, lambda workers: contextlib.nullcontext(jobs)) == 0
    reads = [path for path in reads if "runs" in path.parts and path.name != "status.json"]
    assert len(reads) == len(set(reads)) == 4 * 4
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("name", STUDIES)
def test_the_end_of_a_study_fits_80_columns(tmp_path, name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    assert cheap([name, "--seeds=3", "--epochs=2"]) == 0
    out = capsys.readouterr().out
    end = out.split("\n\n", 1)[1]  # where there is no terminal each run has one line
    lines = [line for line in end.splitlines() if not line.startswith("to decide  ")]  # is there to be copied
    assert all(len(line) <= 80 for line in lines), end
    assert "\nwarning: 3 seeds show large differences only; the default is 10,20,40\n" in out
    plan = study.plan_of([name, "--seeds=3"])[1]
    verdict = RunDirectory(f"studies/{name}").read("verdict.json")
    assert study.format_verdict(plan, verdict) in out
    assert len(verdict["comparisons"]) == 1 or re.search(r"  verdict +dead units\n", out)


@pytest.mark.parametrize("name", [name for name in STUDIES if name not in ("bn_before_fc", "causes")])
@pytest.mark.parametrize("word", ["NO MATERIAL DIFFERENCE", "UNDECIDED"])
def test_a_table_of_the_widest_cells_fits_80_columns(tmp_path, name, word, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    plan = fake.plan_of(name, seeds=3)
    verdict = judge(plan, read_outcomes(plan, tmp_path))
    dead = {"head_fc/dataset": {"mean": 0.515}}
    wide = {"word": word, "mean": -0.1041, "interval": [-0.2041, 0.1281]}
    rows = [
        {**row, **wide, "secondary": [{"outcome": "dead_share", "word": word}]}
        for row in verdict["comparisons"]
    ]
    cells = [{**cell, "dead": dead} for cell in verdict["cells"]]
    text = study.format_verdict(plan, {**verdict, "comparisons": rows, "cells": cells})
    table = text[text.index("  diff.") :].partition("\n\n")[0].splitlines()[1:]  # claims come after it
    assert len(table) == len(rows), text  # no cell is folded
    shown = "NOT MATERIAL" if word == "NO MATERIAL DIFFERENCE" else word
    assert all("51.5% -> 51.5%" in line and f"  {shown}  " in line for line in table)
    assert all(len(line) <= 80 for line in text.splitlines()), text


def verdict_with(step, failed=0):
    return {"next": step, "flow": {"failed": failed}}


@pytest.mark.parametrize(
    "arguments",
    [
        ["bn_before_fc", "--seeds=3", "--epochs=5"],
        ["batch_size", "--seeds=3", "--epochs=5", "--amend", "--deterministic"],
        ["--heads=fc,bn_fc", "--control=bn_fc", "--question=What's it?", "--seeds=3", "--epochs=5"],
        ["--heads=fc,fastai", "--vary=fc_units=8,16", "--name=mine", "--seeds=3", "--epochs=5"],
    ],
)
def test_an_undecided_study_names_the_command_that_decides(tmp_path, arguments):
    place = tmp_path / "a b"
    request, before, _ = study.plan_of([*arguments, "--first_seed=4", f"--dir={place}"])
    lines = study.format_next(request, verdict_with({"kind": "seeds", "seeds": 10}), place).splitlines()
    command = shlex.split(lines[1].removeprefix("to decide  "))
    assert command[:2] == ["bnhead", "study"]
    again, plan, _ = study.plan_of(command[2:])
    # new seeds in a new directory: the runs that raised the question do not answer it
    assert plan.looks == (10,) and plan.seeds == tuple(range(7, 17))
    assert not {run.id for run in plan.runs} & {run.id for run in before.runs}
    assert again.dir == f"{place}_from_seed_7" and not again.amend
    same = ("study", "question", "measures", "cells", "comparisons", "settings")
    assert [getattr(plan, name) for name in same] == [getattr(before, name) for name in same]


def test_what_an_undecided_study_prints_works_when_typed(tmp_path, capsys):
    """The scores of `bn_fc` scatter over the seeds around a small difference: only more seeds decide."""

    def scattered(config, report):
        return fake.write_run(config, 0.9 + (config.head == "bn_fc") * (0.02 + 0.05 * (config.seed % 3 - 1)))

    assert cheap(["bn_before_fc", "--seeds=3,6", "--epochs=2", f"--dir={tmp_path / 'a b'}"], scattered) == 0
    out = capsys.readouterr().out
    assert "\nundecided after 3 seeds; on to 6\n" in out and "\nUNDECIDED after 6 seeds. " in out
    (line,) = [line for line in out.splitlines() if line.startswith("to decide  ")]
    command = shlex.split(line.removeprefix("to decide  "))
    assert command[:3] == ["bnhead", "study", "bn_before_fc"]
    assert cheap(command[2:], scattered) == 0
    out = capsys.readouterr().out
    verdict = json.loads((tmp_path / "a b_from_seed_6" / "verdict.json").read_text())
    assert f"\n{verdict['word']} after {verdict['look']['seeds']} seeds. " in out
    assert verdict["word"] == "HELPS" and verdict["comparisons"][0]["seeds"][0] == 6


def test_a_study_between_two_looks_goes_on_with_the_same_command(tmp_path):
    arguments = ["bn_before_fc", "--seeds=3,6", "--first_seed=2", "--delta=0.02", f"--dir={tmp_path / 'a b'}"]
    request, plan, _ = study.plan_of(arguments)
    command = shlex.split(study.decisive_step(request, {"kind": "look", "seeds": 6}, tmp_path / "a b"))
    assert study.plan_of(command[2:])[:2] == (request, plan)


def test_where_no_command_decides_a_sentence_says_so(tmp_path):
    request, _, _ = study.plan_of(["bn_before_fc", "--seeds=3"])
    step = study.decisive_step(request, {"kind": "images", "seeds": None}, tmp_path)
    assert step.startswith("more test images, not more seeds")
    step = study.decisive_step(request, {"kind": "seeds", "seeds": None}, tmp_path)
    assert step.startswith("over 1,000 seeds would be needed")


def test_failed_runs_come_before_what_would_decide(tmp_path):
    request, _, _ = study.plan_of(["bn_before_fc", "--seeds=3"])
    text = study.format_next(request, verdict_with({"kind": "seeds", "seeds": 10}, failed=2), tmp_path)
    assert "the same command repeats the runs that failed" in text and "to decide" not in text
    text = study.format_next(request, verdict_with(None), tmp_path)
    assert "to decide" not in text and "\nnext" not in text


def never(config, report):
    raise AssertionError("a run was started")


def written(path):
    """The configs of the commands in a file, each checked to be a line that a shell runs."""
    configs = []
    for line in path.read_text().splitlines():
        words = shlex.split(line)
        assert dict(word.split("=") for word in words[:2]) == worker.ENVIRONMENT
        assert words[2:4] == ["bnhead", "train"]
        configs.append(train.COMMAND.parse(words[4:]))
    return configs


@pytest.mark.parametrize(
    "arguments",
    [
        ["bn_before_fc", "--seeds=4", "--epochs=2"],
        ["--heads=fc,fastai", "--vary=fc_units=8,16", "--seeds=3", "--epochs=2", "--mixed_precision"],
    ],
)
def test_commands_are_written_for_the_runs_of_the_plan_and_nothing_is_trained(tmp_path, arguments, capsys):
    place, file = tmp_path / "a b", tmp_path / "commands.txt"
    assert cheap([*arguments, f"--dir={place}", f"--commands={file}"], never) == 0
    plan, configs = study.plan_of(arguments)[1], written(file)
    assert f"{len(plan.runs)} commands in {file}, the missing runs of {plan.looks[0]} seeds\n" in (
        capsys.readouterr().out
    )
    assert [pathlib.Path(config.workdir) for config in configs] == [
        place / "runs" / run.id for run in plan.runs
    ]
    assert [run_id(config.settings()) for config in configs] == [run.id for run in plan.runs]
    assert (place / "plan.json").is_file() and not (place / "runs").exists()
    assert not (place / "verdict.json").exists() and not (place / "report.md").exists()
    for config in configs:
        fake.write_run(config)
    assert cheap([*arguments, f"--dir={place}"], never) == 0  # judges them
    assert (place / "verdict.json").is_file()


def test_commands_are_written_for_the_missing_runs_of_the_look_that_is_next(tmp_path, capsys):
    file = tmp_path / "commands.txt"
    arguments = ["bn_before_fc", "--seeds=3,6", "--epochs=2", f"--dir={tmp_path / 's'}"]
    assert cheap([*arguments, f"--commands={file}"], never) == 0
    first = written(file)
    assert {config.seed for config in first} == {0, 1, 2} and len(first) == 6
    for config in first[1:]:
        fake.write_run(config, 0.9 + 0.01 * (config.seed * (config.head == "bn_fc")))
    assert cheap([*arguments, f"--commands={file}"], never) == 0
    assert written(file) == first[:1]
    fake.write_run(first[0], 0.9)
    capsys.readouterr()
    assert cheap([*arguments, f"--commands={file}"], never) == 0
    assert {config.seed for config in written(file)} == {3, 4, 5}
    assert f"6 commands in {file}, the missing runs of 6 seeds\n" in capsys.readouterr().out


def test_a_decided_study_needs_no_commands(tmp_path, capsys):
    file = tmp_path / "commands.txt"
    arguments = ["bn_before_fc", "--seeds=4,8", "--epochs=2", f"--dir={tmp_path / 's'}"]
    assert cheap([*arguments, f"--commands={file}"], never) == 0
    for config in written(file):  # an interval of no width
        fake.write_run(config, 1.0 if config.head == "bn_fc" else 0.0)
    assert cheap([*arguments, f"--commands={file}"], never) == 0
    assert file.read_text() == "" and f"0 commands in {file}: no run is missing\n" in capsys.readouterr().out


def test_commands_that_cannot_be_written_are_one_line(tmp_path, capsys):
    arguments = ["bn_before_fc", "--seeds=3", f"--dir={tmp_path / 's'}", f"--commands={tmp_path}"]
    assert cheap(arguments, never) == 3
    err = capsys.readouterr().err
    assert err == f"bnhead study: commands {tmp_path} cannot be written: Is a directory\n"


def test_another_plan_is_refused_before_a_worker_starts(tmp_path, capsys):
    arguments = ["bn_before_fc", "--seeds=4", f"--dir={tmp_path}", "--epochs=2"]
    assert cheap(arguments) == 0

    def open_pool(workers):
        raise AssertionError("a pool was opened")

    assert study.main([*arguments, "--momentum=0.5"], open_pool, one_line_report) == 3
    assert study.main([*arguments[:3], "--task=regression"], open_pool, one_line_report) == 4
    err = capsys.readouterr().err.splitlines()
    assert "dir holds another plan" in err[0] and "task regression needs numbers" in err[1]


def test_ctrl_c_says_how_many_runs_are_kept(tmp_path, capsys):
    def interrupted(config, report):
        if config.seed == 1:
            raise KeyboardInterrupt
        return fake.work(config, report)

    assert cheap(["bn_before_fc", "--seeds=4", f"--dir={tmp_path}"], interrupted) == 130
    err = capsys.readouterr().err
    assert err == ("bnhead study: interrupted by SIGINT; 2 of 8 runs are kept; the same command goes on\n")


def test_exit_status_of_failed_runs_and_of_a_mismatch(tmp_path, capsys):
    arguments = ["bn_before_fc", "--seeds=4", f"--dir={tmp_path}", "--epochs=2"]
    assert cheap(arguments, fake.fails_for_seed_1) == 7
    full = [arguments[0], "--seeds=9", f"--dir={tmp_path}/other", "--epochs=2"]
    assert cheap(full, fake.finds_the_disk_full) == 7
    assert "3 runs in a row failed alike" in capsys.readouterr().err


def test_the_engines_have_the_threads_that_the_plan_fixes():
    assert set(worker.ENVIRONMENT.values()) == {str(fake.plan_of().threads)}
    with pytest.raises(UsageError):
        study.plan_of(["width", "--engine=kubernetes"])
