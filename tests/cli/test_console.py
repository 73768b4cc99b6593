import json
import pathlib
import subprocess
import sys

import pytest

from bnhead.cli.console import EpochLines
from bnhead.training import train


def test_one_line_per_epoch_where_there_is_no_terminal(short_config, capsys):
    config = short_config()
    train(config, [EpochLines(config)])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "resnet8  2x2x64 -> gap -> 64 -> bn -> fc(32, relu) -> out(10)  [P1]"
    assert len(out) == 3
    for number, line in enumerate(out[1:], start=1):
        assert line.startswith(f"epoch {number}/2  loss ")
        assert all(
            word in line for word in ("  accuracy ", "  test loss ", "  test accuracy ", "  silent ", " s")
        )


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


def test_a_bar_is_drawn_on_request_and_the_lines_stay(short_config, capsys):
    config = short_config()
    train(config, [EpochLines(config, bar=True)])
    out = capsys.readouterr().out
    assert "epoch 2/2  loss" in out
