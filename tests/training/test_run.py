import csv
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.data import load
from bnhead.devices.replicas import Replicas
from bnhead.errors import DataError, RunDirectoryError, UsageError
from bnhead.runs.atomic import finite_or_none
from bnhead.training import train
from bnhead.training.build import Reuse, build_model
from bnhead.training.feed import Feed
from tests.data.small_sets import smooth, write_folder


def directory(config):
    return Path(config.workdir)


def test_a_run_leaves_a_directory_that_explains_itself(short_run):
    config, result = short_run
    names = {path.name for path in directory(config).iterdir()}
    assert names == {
        "checkpoints",
        "config.json",
        "environment.json",
        "history.csv",
        "model.keras",
        "predictions.npz",
        "result.json",
        "status.json",
        "test",
        "train",
        "units",
    }
    assert json.loads((directory(config) / "config.json").read_text()) == config.settings()
    assert json.loads((directory(config) / "result.json").read_text()) == finite_or_none(dict(result))
    environment = json.loads((directory(config) / "environment.json").read_text())
    assert environment["keras"] == keras.__version__ and environment["seconds"] > 0 and environment["devices"]


def test_the_same_seed_gives_the_same_result_another_gives_another(short_run, short_config):
    """The second run has the graph of the first, and the result of a run with a graph of its own."""
    _, result = short_run
    reused = Reuse()
    other, again = (train(short_config(weight_histograms=True, seed=s), reuse=reused) for s in (1, 0))
    assert finite_or_none(dict(again)) == finite_or_none(dict(result))
    assert other["test_loss"] != result["test_loss"]


PAIRED = ("fc", "bn_dropout0.3_fc")


def test_heads_start_from_the_same_backbone_and_are_fed_the_same_batches(short_config, data_dir):
    digits = load("digits", data_dir)
    configs = [short_config(head=head, seed=5) for head in PAIRED]
    first, second = (build_model(config, digits) for config in configs)
    for layer in first.layers:
        for weight, twin in zip(layer.get_weights(), second.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(weight, twin)
    fed = [list(Feed.of(config, digits, Replicas()).train(0, 0)) for config in configs]
    assert len(fed[0]) == len(fed[1]) == 10
    for batch, twin in zip(*fed, strict=True):
        for array, twin_array in zip(keras.tree.flatten(batch), keras.tree.flatten(twin), strict=True):
            np.testing.assert_array_equal(array, twin_array)


@pytest.mark.slow
def test_the_training_steps_of_heads_see_the_same_batches(short_config):
    batches = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            step = self.model.train_step

            def train_step(data):
                import tensorflow as tf

                tf.py_function(lambda x, y: batches[-1].append((x.numpy(), y.numpy())), data[:2], [])
                return step(data)

            self.model.train_step = train_step
            self.model.make_train_function(force=True)

    for head in PAIRED:
        batches.append([])
        train(short_config(head=head, seed=5), [Look()])
    assert len(batches[0]) == len(batches[1]) == 10
    for (x, y), (same_x, same_y) in zip(*batches, strict=True):
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)


def test_a_finished_run_is_not_done_again(short_run):
    config, result = short_run
    written_at = (directory(config) / "model.keras").stat().st_mtime_ns
    assert finite_or_none(dict(train(config))) == finite_or_none(dict(result))
    assert (directory(config) / "model.keras").stat().st_mtime_ns == written_at


def test_another_run_in_the_same_place_is_refused(short_run, short_config):
    config, _ = short_run
    with pytest.raises(RunDirectoryError, match="holds another run: seed 0 there, 9 now"):
        train(short_config(seed=9, workdir=config.workdir, weight_histograms=True))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dead_layers": "head_fx"}, UsageError, "has no layer 'head_fx'; did you mean 'head_fc'"),
        ({"batch_size": 1438}, DataError, "batch_size must be at most the 1437 training images, got 1438"),
    ],
)
def test_what_cannot_be_run_leaves_no_directory(short_config, settings, error, message):
    config = short_config(**settings)
    with pytest.raises(error, match=message):
        train(config)
    assert not directory(config).exists()


def test_a_loss_that_stops_being_finite_is_a_result(short_config):
    config = short_config(learning_rate=1e12, warmup_epochs=0)
    result = train(config)
    assert result["status"] == "diverged" and result["epochs"] == 1, "it stops there"
    assert train(config).keys() == result.keys() and math.isnan(train(config)["dead/head_fc/dataset"])
    assert math.isnan(result["dead/head_fc/dataset"]), "NaN is never dead"
    assert json.loads((directory(config) / "result.json").read_text())["dead/head_fc/dataset"] is None


@pytest.mark.slow
def test_weights_that_are_not_finite_are_a_result_though_the_loss_is_finite(short_config):
    result = train(short_config(learning_rate=1e4, warmup_epochs=0))
    assert math.isfinite(result["test_loss"]) and result["status"] == "diverged"


@pytest.mark.slow
def test_mixed_precision_computes_in_bfloat16_and_saves_a_model_that_loads(short_config):
    config = short_config(mixed_precision=True)
    policy = keras.config.dtype_policy()
    result = train(config)
    assert keras.config.dtype_policy() == policy
    model = keras.saving.load_model(directory(config) / "model.keras")
    assert model.get_layer("stage1_block1_conv1").compute_dtype == "bfloat16"
    assert model.get_layer("stage1_block1_conv1").kernel.dtype == model.output.dtype == "float32"
    assert result["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_shifted_and_mixed_training(short_config, data_dir, task):
    settings = {"validation": 0.1, "imbalance": "step:2", "label_noise": 0.1, "mixup": 0.4, "cutout": 2}
    config = short_config(task=task, batch_size=128, test_corruption="contrast:1", **settings)
    result = train(config)
    assert result["status"] == "finished"
    counts = result["data"]["checks"]["class_counts"]
    shifts = {name: settings[name] for name in ("validation", "imbalance", "label_noise")}
    trained_on = load("digits", data_dir, **shifts).train
    assert counts["train"] == np.bincount(trained_on.labels).tolist()
    assert result["data"]["train_sha256"] == trained_on.fingerprint()
    model = keras.saving.load_model(directory(config) / "model.keras")
    held_out = load("digits", data_dir, validation=0.1).validation
    predicted = model.predict(held_out.images, verbose=0).argmax(1)
    assert result["validation_accuracy"] == pytest.approx(np.mean(predicted == held_out.labels))
    plain = load("digits", data_dir, test_corruption="contrast:1").test
    predicted = model.predict(plain.images, verbose=0).argmax(1)
    assert result["test_accuracy"] == pytest.approx(np.mean(predicted == plain.labels))
    assert result["data"]["test_sha256"] == plain.fingerprint()


@pytest.mark.slow
def test_mixup_reaches_the_loss(short_config):
    """Mixed about half and half, no net can be surer than the mixture is, whose entropy is log 2."""
    config = short_config(mixup=50.0, epochs=3, batch_size=64)
    result = train(config)
    rows = list(csv.DictReader((directory(config) / "history.csv").read_text().splitlines()))
    assert float(rows[-1]["loss"]) > 0.6 and result["test_accuracy"] > 0.8


@pytest.mark.slow
def test_pictures_of_many_sizes_with_imagenets_augmentation(short_config, tmp_path, data_dir):
    pictures = {
        f"{split}/{name}/{i}.jpg": smooth(20 + i, 30 - i, i + 50 * (name == "b"))
        for split, count in (("train", 12), ("test", 5))
        for name in "ab"
        for i in range(count)
    }
    name = f"folder:{write_folder(tmp_path / 'pictures', pictures)}"
    settings = {"dataset": name, "image_size": 16, "augment": "imagenet", "batch_size": 8, "epochs": 1}
    result = train(short_config(**settings))
    assert result["status"] == "finished" and result["data"]["test"] == 10
    assert result["data"]["checks"]["pixels"]["images"] == 24
