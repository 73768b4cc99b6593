import math

import keras
import pytest

from bnhead.errors import RunDirectoryError, UsageError
from bnhead.training import command, train
from bnhead.training.rehearsal import _duration, rehearse, training_bytes


def test_it_tells_sizes_and_times_and_writes_nothing(short_config, tmp_path, capsys):
    config = short_config(epochs=7, workdir=str(tmp_path / "run"), dry_run=True)
    found = rehearse(config)
    assert not (tmp_path / "run").exists()
    assert found["settings"] == config.settings() and found["head"].startswith("2x2x64 -> gap -> 64 -> bn")
    assert (found["steps_per_epoch"], found["steps"]) == (5, 35)
    assert found["parameters"] > found["trainable"] > 70_000
    assert 0 < found["seconds_per_step"] < 60 and 0 < found["seconds_per_evaluation"] < 60
    per_epoch = 5 * found["seconds_per_step"] + found["seconds_per_evaluation"]
    assert found["seconds"] == pytest.approx(7 * per_epoch)
    flags = [f"--{name}={value}" for name, value in config.settings().items()]
    places = [f"--workdir={config.workdir}", f"--data_dir={config.data_dir}", "--dry_run"]
    assert command.main([*flags, *places]) == 0
    told = capsys.readouterr().out
    assert "head        2x2x64" in told and f"{found['parameters']:,}" in told and "35: 7 epochs of 5" in told
    assert "nothing was written there" in told and not (tmp_path / "run").exists()


def test_what_is_there_is_not_gone_over(short_run, short_config):
    config, _ = short_run
    with pytest.raises(RunDirectoryError, match="holds another run: seed 0 there, 1 now"):
        rehearse(short_config(weight_histograms=True, seed=1, workdir=config.workdir, dry_run=True))


def test_train_itself_does_no_dry_run(short_config):
    with pytest.raises(UsageError, match="dry_run"):
        train(short_config(dry_run=True))


def test_bytes_by_hand():
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.BatchNormalization(name="b")]
    trainable, fixed, outputs = 4 * 3 + 3 + 2 * 3, 2 * 3, 10 * (3 + 3)
    assert training_bytes(keras.Sequential(layers), 10) == 4 * (3 * trainable + fixed + outputs)


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (130, "2 min"), (9000, "2.5 h"), (math.nan, "unknown")]
)
def test_durations(seconds, text):
    assert _duration(seconds) == text
