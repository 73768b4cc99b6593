import dataclasses

import keras
import pytest
import tensorflow as tf

from bnhead.cli.train import main
from bnhead.errors import ResourcesError, UsageError
from bnhead.training import estimate, pace, pretrained, train
from bnhead.training.estimate import format_estimate, training_bytes


def test_it_tells_sizes_and_times_and_writes_nothing(short_config, tmp_path, capsys):
    config = short_config(epochs=7, workdir=str(tmp_path / "run"), dry_run=True)
    estimated = estimate.estimate(config)
    assert not (tmp_path / "run").exists()
    assert estimated["settings"] == config.settings() and estimated["head"].startswith(
        "2x2x64 -> gap -> 64 -> bn"
    )
    assert (estimated["steps_per_epoch"], estimated["steps"]) == (5, 35)
    assert estimated["parameters"] > estimated["trainable"] > 70_000
    assert 0 < estimated["seconds_per_step"] < 60 and 0 < estimated["seconds_per_evaluation"] < 60
    per_epoch = 5 * estimated["seconds_per_step"] + estimated["seconds_per_evaluation"]
    assert estimated["seconds_compiling"] > estimated["seconds_per_step"]
    assert estimated["seconds"] == pytest.approx(estimated["seconds_compiling"] + 7 * per_epoch)
    flags = [f"--{name}={value}" for name, value in config.settings().items()]
    places = [f"--workdir={config.workdir}", f"--data_dir={config.data_dir}", "--dry_run"]
    assert main([*flags, *places]) == 0
    printed = capsys.readouterr().out
    assert (
        "head        2x2x64" in printed
        and f"{estimated['parameters']:,}" in printed
        and "35: 7 epochs of 5" in printed
    )
    assert "nothing was written there" in printed and not (tmp_path / "run").exists()


def test_a_run_of_one_execution_has_no_time(short_config):
    config = short_config(epochs=1, steps_per_execution=5, dry_run=True)
    printed = format_estimate(estimate.estimate(config), config)
    assert "a step      unknown: the whole run is one execution" in printed and "about unknown" in printed
    assert "for tracing and compiling" in printed


def test_memory_that_is_full_is_said(short_config, monkeypatch):
    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(pace, "fit", fit)
    with pytest.raises(ResourcesError, match="out of memory with batch_size 256"):
        estimate.estimate(short_config(dry_run=True))


def test_a_directory_in_use_refuses_no_dry_run_and_is_named(short_run, short_config):
    config, _ = short_run
    other = short_config(weight_histograms=True, seed=1, workdir=config.workdir, dry_run=True)
    estimated = estimate.estimate(other)
    assert "holds another run: seed 0 there, 1 now" in estimated["obstacle"]
    assert "holds another run: seed 0 there, 1 now" in " ".join(format_estimate(estimated, other).split())


def test_settings_that_differ_from_their_defaults_are_listed_and_all_on_request(short_config):
    config = short_config(dry_run=True, seed=3)
    estimated = estimate.estimate(config)
    settings = format_estimate(estimated, config).split("\n\n")[0].splitlines()
    assert settings[0] == "settings" and "  seed                  3" in settings
    assert settings[-1] == f"  {len(estimated['settings']) - 7} at their defaults; --verbose lists them"
    assert len(settings) == 1 + 7 + 1 and "momentum" not in "".join(settings)
    settings = format_estimate(estimated, dataclasses.replace(config, verbose=True)).split("\n\n")[0]
    assert settings.count("\n") == len(estimated["settings"]) and "--verbose" not in settings


def test_nothing_is_trained_first(short_config, tmp_path):
    options = {"pretrain_on": "digits", "pretrain_epochs": 1, "weights_control": "shuffled", "dry_run": True}
    config = short_config(data_dir=str(tmp_path), **options)
    estimated = estimate.estimate(config)
    assert not (tmp_path / pretrained.FOLDER).exists()
    assert estimated["settings"] == config.settings()
    text = " ".join(format_estimate(estimated, config).split())
    assert "not counting the training on digits, if it is not kept" in text


def test_train_itself_does_no_dry_run(short_config):
    with pytest.raises(UsageError, match="dry_run"):
        train(short_config(dry_run=True))


def test_bytes_by_hand():
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.BatchNormalization(name="b")]
    trainable, frozen, outputs = 4 * 3 + 3 + 2 * 3, 2 * 3, 10 * (3 + 3)
    assert training_bytes(keras.Sequential(layers), 10) == 4 * (3 * trainable + frozen + outputs)
