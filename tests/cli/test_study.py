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
from bnhead.studies.commands import train_command
from bnhead.studies.study import STUDIES
from tests.studies import fake


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr("bnhead.texts.shutil.which", lambda name: f"/bin/{name}")


def one_line_report(directory, runs):
    (directory / "report.md").write_text("x\n")


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
        assert f" {name} {STUDIES[name].question} {', '.join(STUDIES[name].heads)} " in " ".join(out.split())
    assert "  fc_units: 32, 64, 128" in out and "  140 runs with 10 seeds\n" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_help_tells_the_flags_of_study_and_train_but_not_those_that_are_the_studys(capsys):
    assert main(["study", "--help"]) == 0
    out = capsys.readouterr().out
    for flag in ("seeds=10", "dir=", "engine=local", "workers=0", "delta=0.01", "alpha=0.05", "[no]dry_run"):
        assert f"  --{flag}\n" in out
    assert "  --learning_rate=" in out and "  --head=" not in out and "  --seed=" not in out


def test_flags_become_the_plan():
    request, plan, _ = study.plan_of(
        ["placement", "--seeds=3", "--delta=0.02", "--epochs=7", "--workers", "2"]
    )
    assert (request.study, request.workers, request.engine) == ("placement", 2, "local")
    assert plan.seeds == (0, 1, 2) and plan.delta == 0.02 and plan.settings["epochs"] == 7
    assert len(study.plan_of(["placement"])[1].seeds) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plaecment"], "study 'plaecment' is not known; did you mean 'placement'"),
        (["--seeds=3"], "STUDY is missing; usage: bnhead study STUDY [--flag=value ...]"),
        (["width", "more"], "argument 'more' is not a flag"),
        (["width", "--head=fc"], "flag --head cannot be given: the study sets it"),
        (["width", "--seed=1"], "flag --seed cannot be given: the study sets it"),
        (["width", "--workdir=x"], "flag --workdir cannot be given: the study sets it"),
        (["width", "--fc_units=64"], "flag --fc_units is what study width varies; leave it out"),
        (["batch_size", "--batch_size", "64"], "flag --batch_size is what study batch_size varies"),
        (
            ["width", "--dir=gs://bucket/x"],
            "dir must be a path on a disk of this machine, got 'gs://bucket/x'",
        ),
        (["width", "--seeds=0"], "seeds must be at least 1 and at most 10,000, got 0"),
        (["width", "--seeds=10001"], "seeds must be at least 1 and at most 10,000, got 10001"),
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
    with pytest.raises(UsageError, match="flag --fc_units is what study width varies; leave it out"):
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


def test_the_estimate_goes_by_the_runs_that_are_done(tmp_path):
    plan = fake.plan_of(seeds=5)
    for run in plan.runs[:2]:
        fake.write_run(plan.config(run, tmp_path))
    text = study.estimate_time(plan, tmp_path, 2, None)  # 2 s each
    assert text == "10 runs of 2 epochs, 2 done, 2 at a time: about 8 s, going by those done"


def test_the_estimate_of_a_study_that_has_not_begun_goes_by_the_first_steps(tmp_path):
    text = study.estimate_time(fake.plan_of(seeds=5), tmp_path, 2, lambda: 60.0)
    assert text == "10 runs of 2 epochs, 0 done, 2 at a time: about 5 min, going by the first steps of one"
    text = study.estimate_time(fake.plan_of(seeds=5), tmp_path, 2, lambda: None)
    assert text.endswith("2 at a time; how long they take is known when the first has ended")


def test_a_study_ends_with_verdict_and_report_and_does_nothing_twice(tmp_path, capsys):
    arguments = ["bn_before_fc", "--seeds=4", f"--dir={tmp_path}", "--epochs=2"]
    assert cheap(arguments) == 0
    out = capsys.readouterr().out
    assert "8 of 8  bn_fc, seed 3" in out and "\nHELPS. bn_fc +" in out
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
    assert "exploratory: delta was changed after the plan was written" in capsys.readouterr().out


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
    assert all(len(line) <= 80 for line in end.splitlines()), end
    assert "\nwarning: 3 seeds show large differences only; the default is 10\n" in out
    plan = study.plan_of([name, "--seeds=3"])[1]
    verdict = RunDirectory(f"studies/{name}").read("verdict.json")
    assert study.format_verdict(plan, verdict) in out
    assert len(verdict["comparisons"]) == 1 or "verdict, seeds to go\n" in out


def test_an_undecided_study_names_the_command_that_decides(tmp_path):
    request, _, _ = study.plan_of(["bn_before_fc", "--seeds=3", "--epochs=5", f"--dir={tmp_path / 'a b'}"])
    verdict = {"comparisons": [{"more_seeds": 7}, {"more_seeds": None}], "flow": {"failed": 0}}
    lines = study.format_next(request, verdict, tmp_path / "a b").splitlines()
    command = shlex.split(lines[1].removeprefix("to decide  "))
    again, plan, _ = study.plan_of(command[2:])
    assert command[:3] == ["bnhead", "study", "bn_before_fc"] and len(plan.seeds) == 10
    assert plan.settings["epochs"] == 5 and again.dir == f"{tmp_path / 'a b'}_10"
    failed = study.format_next(request, {**verdict, "flow": {"failed": 2}}, tmp_path)
    assert "the same command repeats the runs that failed" in failed and "to decide" not in failed


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


def test_few_test_images_are_a_warning():
    _, plan, _ = study.plan_of(["width", "--seeds=4"])
    assert study.cautions(dataclasses.replace(plan, data={"test": 99})) == [
        "99 test images are few: one is 1.0 points of accuracy"
    ]
    assert study.cautions(dataclasses.replace(plan, data={"test": 100})) == []


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
