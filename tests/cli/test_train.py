import dataclasses
import json
import shutil
import subprocess
import sys
import time

import pytest

from bnhead.cli import train
from bnhead.errors import UsageError
from bnhead.training import TrainConfig


def test_every_field_is_a_flag_with_help_and_default():
    text = train.COMMAND.usage()
    for spec in dataclasses.fields(TrainConfig):
        name = f"--[no]{spec.name}" if isinstance(spec.default, bool) else f"--{spec.name}={spec.default}"
        name += "[=auto]" * (spec.type == bool | str)
        alias = ", --lr" * (spec.name == "learning_rate")
        assert f"  {name}{alias}\n    " in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "Exit status: 0 ok, 2 usage" in text


def test_flags_become_the_config():
    assert train.COMMAND.parse([]) == TrainConfig()
    given = ["--head=bn_fc", "--seed", "3", "--learning_rate=0.05", "--weight_histograms", "--fc_units=12"]
    expected = TrainConfig(head="bn_fc", seed=3, learning_rate=0.05, weight_histograms=True, fc_units=12)
    assert train.COMMAND.parse(given) == expected
    assert train.COMMAND.parse(["--noweight_histograms"]) == TrainConfig()
    assert train.COMMAND.parse(["--lr=0.05", "--fc-units=12"]) == TrainConfig(learning_rate=0.05, fc_units=12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--haed=fc"],
            "flag --haed is not known; did you mean 'head'",
        ),
        (["--seed=1", "--seed=2"], "flag --seed is given 2 times"),
        (["--weight_histograms", "--noweight_histograms"], "flag --weight_histograms is given 2 times"),
        (["bn_fc"], "argument 'bn_fc' is not a flag"),
        (["--", "bn_fc"], "argument 'bn_fc' is not a flag"),
        (["--epochs=many"], "epochs must be a whole number, got 'many'"),
        (["--head"], "flag --head needs a value, as in --head=fc"),
        (["--learning_rate=nan"], "learning_rate must be a finite number of at least 0, got nan"),
        (["--head=bn_fx"], "head 'bn_>>fx<<'"),
    ],
)
def test_bad_flags_are_one_line(arguments, message):
    with pytest.raises(UsageError, match=message) as caught:
        train.COMMAND.parse(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [["--head=bn_fx"], ["--dataset=cifr10"], ["--heed=fc"], ["--backbone=resnet9"], ["--epochs=0"]],
)
def test_usage_errors_exit_2_with_one_line_before_tensorflow_loads(arguments):
    code = (
        "import sys; from bnhead.cli import train; status = train.main(sys.argv[1:]); "
        "print('tensorflow' in sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr.startswith("bnhead train: ") and done.stderr.count("\n") == 1


def test_help_brings_neither_tensorflow_nor_keras():
    code = (
        "import sys; from bnhead.cli import train; train.main(['--help']); "
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'tensorflow_datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def arguments(config):
    given = dataclasses.asdict(config)
    return [f"--{name}={value}" for name, value in given.items()]


def test_a_run_and_the_same_again(short_config, capsys):
    config = short_config(epochs=1)
    assert train.main(arguments(config)) == 0
    first = capsys.readouterr()
    assert first.err == ""
    assert "epoch 1/1" in first.out and "test accuracy  " in first.out and config.workdir in first.out
    started = time.perf_counter()
    assert train.main(arguments(config)) == 0
    second = capsys.readouterr().out
    assert "holds this run, finished" in second and "epoch 1/1" not in second
    assert second.splitlines()[2:] == first.out.splitlines()[3:]
    assert time.perf_counter() - started < 60


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "model.keras is missing"),
        (lambda path: path.write_bytes(b""), "model.keras has another SHA-256 than in status.json"),
        (cut, "model.keras has another SHA-256 than in status.json"),
    ],
)
def test_a_finished_run_whose_model_is_not_there_says_so(short_run, tmp_path, capsys, harm, message):
    config, _ = short_run
    shutil.copytree(config.workdir, tmp_path / "run")
    harm(tmp_path / "run" / "model.keras")
    assert train.main(arguments(dataclasses.replace(config, workdir=str(tmp_path / "run")))) == 0
    told = capsys.readouterr()
    assert told.err == f"bnhead: {tmp_path / 'run'}: {message}; --overwrite trains it again\n"
    assert "holds this run, finished" in told.out


def test_a_result_that_is_not_the_runs_is_no_result(short_run, tmp_path, capsys):
    config, _ = short_run
    shutil.copytree(config.workdir, tmp_path / "run")
    changed = {**json.loads((tmp_path / "run" / "result.json").read_text()), "test_accuracy": 0.999}
    (tmp_path / "run" / "result.json").write_text(json.dumps(changed))
    assert train.main(arguments(dataclasses.replace(config, workdir=str(tmp_path / "run")))) == 3
    told = capsys.readouterr()
    assert told.err.endswith("so it is not the run's; --overwrite trains it again\n") and not told.out


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("environment.json", "seconds", "x"),
        ("result.json", "status", 3),
        ("result.json", "dead/head_fc/per_input", "x"),
        ("result.json", "data", {"test": 360, "checks": {"warnings": None}}),
        ("result.json", "test_accuracy", "0.5"),
    ],
)
def test_odd_values_in_a_finished_run_are_one_line(short_run, tmp_path, capsys, name, key, value):
    config, _ = short_run
    shutil.copytree(config.workdir, tmp_path / "run")
    content = json.loads((tmp_path / "run" / name).read_text())
    (tmp_path / "run" / name).write_text(json.dumps({**content, key: value}))
    assert train.main(arguments(dataclasses.replace(config, workdir=str(tmp_path / "run")))) == 3
    told = capsys.readouterr()
    assert f"{name} cannot be read: " in told.err and "must be of type" in told.err
    assert told.err.count("\n") == 1 and not told.out


@pytest.mark.parametrize(
    ("settings", "status", "message"),
    [
        ({"dataset": "mnist"}, 4, "bnhead train: data set 'mnist' is not prepared"),
        ({"dead_layers": "nowhere"}, 2, "bnhead train: layers: model 'resnet8' has no layer 'nowhere'"),
    ],
)
def test_exit_status(short_config, capsys, settings, status, message):
    assert train.main(arguments(short_config(**settings))) == status
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1


def test_exit_status_of_another_run_in_the_place(short_run, capsys):
    config, _ = short_run
    assert train.main(arguments(dataclasses.replace(config, seed=8))) == 3
    assert "holds another run: seed 0 there, 8 now" in capsys.readouterr().err


def test_exit_status_of_a_diverged_run(short_config, capsys):
    assert train.main(arguments(short_config(learning_rate=1e12, warmup_epochs=0.0))) == 5
    assert "status              diverged" in capsys.readouterr().out


def test_an_interrupt_exits_130(short_config, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_and_summarize", interrupted)
    assert train.main(arguments(short_config())) == 130
    assert capsys.readouterr().err == "bnhead train: interrupted\n"
