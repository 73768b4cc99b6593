import json
import os
import pathlib
import subprocess
import sys

import pytest

from bnhead.cli.console import EpochLines, format_epoch
from bnhead.data import load
from bnhead.errors import ResourcesError
from bnhead.training import train
from bnhead.training.build import build_model


def test_one_line_per_epoch_where_there_is_no_terminal(short_config, capsys):
    config = short_config()
    train(config, [EpochLines(config)])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "resnet8  2x2x64 -> gap -> 64 -> bn -> fc(32, relu) -> out(10)  [P1]"
    assert len(out) == 3
    for number, line in enumerate(out[1:], start=1):
        assert line.startswith(f"epoch {number}/2  loss ")
        assert all(
            word in line
            for word in ("  accuracy ", "%  test loss ", "  test accuracy ", "  dead ", "  silent ", " s")
        )


@pytest.fixture
def lines(short_config):
    """A callback at the beginning of a training, and the function that prints a line."""
    config = short_config()
    model = build_model(config, load("digits", config.data_dir))

    def begin(**options):
        lines = EpochLines(config, **options)
        lines.set_params({"epochs": 2, "steps": 4})
        lines.set_model(model)
        lines.on_train_begin()
        return lines

    return begin


def print_epochs(lines):
    for epoch in range(2):
        lines.on_epoch_begin(epoch)
        lines.on_train_batch_end(0, {"loss": 2.0})
        lines.on_epoch_end(epoch, dict(LOGS))


def test_a_reader_that_has_gone_takes_no_line_and_raises_nothing(lines, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        print_epochs(lines())


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_stdout_is_an_error_of_stdout(lines, monkeypatch):
    with open("/dev/full", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(ResourcesError, match=r"^stdout cannot be written: the disk is full"):
            lines()


@pytest.mark.slow
def test_a_reader_that_has_gone_does_not_end_the_training(short_config):
    config = short_config()
    flags = [f"--{name}={value}" for name, value in config.settings().items()]
    flags += [f"--workdir={config.workdir}", f"--data_dir={config.data_dir}"]
    command = [sys.executable, "-m", "bnhead", "train", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (0, b"")
    assert json.loads((pathlib.Path(config.workdir) / "status.json").read_text())["status"] == "finished"


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_stdout_is_not_blamed_on_the_runs_directory(short_config):
    config = short_config(epochs=1)
    flags = [f"--{name}={value}" for name, value in config.settings().items()]
    flags += [f"--workdir={config.workdir}", f"--data_dir={config.data_dir}"]
    command = [sys.executable, "-m", "bnhead", "train", *flags]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 6
    assert done.stderr == "bnhead train: stdout cannot be written: the disk is full\n"


def test_the_bar_names_epoch_step_loss_and_time_left(short_config, monkeypatch):
    clock = iter([0.0, 10.0, 12.0, 12.1, 16.0]).__next__
    monkeypatch.setattr("bnhead.cli.console.time.perf_counter", clock)
    lines = EpochLines(short_config(), bar=True)
    lines.set_params({"epochs": 3, "steps": 4})
    shown = lambda: lines._bar.tasks[0].description  # noqa: E731
    lines.on_epoch_begin(0)
    assert shown() == "epoch 1/3  step 0/12  the first step is being compiled"
    lines.on_train_batch_end(0, {"loss": 2.34567})
    assert shown() == "epoch 1/3  step 1/12  loss 2.35"
    lines.on_train_batch_end(1, {"loss": 0.12345})
    assert shown() == "epoch 1/3  step 2/12  loss 0.123  20 s left", "10 steps of 2 s"
    lines.on_train_batch_end(2, {"loss": 9.0})
    assert shown().startswith("epoch 1/3  step 2/12"), "a quarter of a second has not passed"
    lines.on_test_begin()
    assert shown() == "epoch 1/3  step 3/12  on the test images"
    lines.on_train_batch_end(3, {"loss": float("nan")})
    assert shown() == "epoch 1/3  step 4/12  loss nan  16 s left"


def test_the_lines_of_epochs_stay_with_a_bar(lines, capsys):
    with lines(bar=True) as with_bar:
        print_epochs(with_bar)
    out = capsys.readouterr().out
    assert "epoch 1/2  loss" in out and "epoch 2/2  loss" in out


LOGS = {
    "loss": 1.98766, "accuracy": 0.3456, "val_loss": 12.3456, "val_accuracy": 1.0, "r2": 0.5, "val_r2": -1.25,
    "dead/head_fc/dataset": 0.0, "dead/head_fc/per_input": 0.513,
}  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            125,
            "epoch  3/15  loss  1.9877  accuracy  34.56%  test loss 12.3456  test accuracy 100.00%"
            "  dead   0.0%  silent  51.3%   10.3 s",
        ),
        (
            100,
            "epoch  3/15  loss  1.9877  acc  34.56%  test acc 100.00%  dead   0.0%  silent  51.3%   10.3 s",
        ),
        (80, "epoch  3/15  loss  1.9877  acc  34.56%  test acc 100.00%  dead   0.0%   10.3 s"),
        (40, "epoch  3/15  loss  1.9877  acc  34.56%  test acc 100.00%  dead   0.0%   10.3 s"),
    ],
)
def test_an_epochs_line_fits_the_terminal(monkeypatch, columns, line):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert format_epoch(3, 15, LOGS, "accuracy", 10.34) == line


def test_an_epochs_line_for_numbers_and_without_dead_units(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    logs = {name: value for name, value in LOGS.items() if "dead" not in name}
    line = format_epoch(3, 3, logs, "r2", 1234.5)
    assert line == "epoch 3/3  loss  1.9877  r2  0.5000  test r2 -1.2500  1234.5 s"
