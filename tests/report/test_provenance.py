import shlex

from bnhead.cli.train import parse
from bnhead.report.provenance import command, machine, train_command
from bnhead.report.study import Run, read
from tests.report import studies


def test_the_command_of_a_run_asks_for_its_settings(tmp_path):
    study = read(studies.write(tmp_path, "learning_rate", seeds=2))
    for run in (study.runs[-1], Run("abc", study.runs[-1].cell, 1)):  # one that is there, one that is missing
        python, script, *flags = shlex.split(command(study, run))
        assert (python, script) == ("python", "train.py")
        settings = parse(flags)
        assert (settings.head, settings.seed, settings.learning_rate) == ("bn_fc", 1, 1.0)
        assert settings.workdir == f"DIR/runs/{run.id}"
        assert {k: v for k, v in settings.settings().items() if k in study.runs[-1].config} == study.runs[
            -1
        ].config


def test_the_number_of_threads_is_part_of_it(tmp_path):
    study = read(studies.write(tmp_path, seeds=2))
    study.plan["threads"] = 1
    assert command(study, study.runs[0]).startswith(
        "TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 python "
    )


def test_the_shell_reads_values_as_they_are():
    settings = {"dataset": "folder:my $(pictures)", "mixed_precision": True, "weight_histograms": False}
    assert shlex.split(train_command(settings, "there"))[2:] == [
        "--dataset=folder:my $(pictures)",
        "--mixed_precision",
        "--noweight_histograms",
        "--workdir=there",
    ]


def test_machines_that_differ_are_told_apart():
    environments = [{"keras": "3.15.1", "devices": ["CPU"], "seconds": 1, "started": "now",
                     "sessions": [{"started": "now", "step": 0}]},
                    {"keras": "3.15.1", "devices": ["GPU", "CPU"]}, {"keras": "3.16.0"}, {}]  # fmt: skip
    runs = [Run(str(i), "fc", i, environment=own) for i, own in enumerate(environments)]
    assert machine(runs) == [
        ("keras", [("3.15.1", 2), ("3.16.0", 1)]),
        ("devices", [("CPU", 1), ("GPU, CPU", 1)]),
    ]
