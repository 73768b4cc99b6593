"""What holds on a GPU: `python -m pytest -m gpu -n0`, on a machine that has one."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.census import count
from bnhead.layers import BatchNormalization
from bnhead.models import resnet8
from bnhead.training import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="there is no GPU to be seen"),
]


def test_a_run_learns_and_says_what_it_ran_on(short_config):
    config = short_config(backbone="resnet8", epochs=8)
    assert train(config)["test_accuracy"] > 0.9
    environment = json.loads(Path(config.directory, "environment.json").read_text())
    assert environment["devices"] != ["CPU"]


def test_deterministic_runs_are_equal_and_so_is_one_that_was_stopped(short_config):
    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    results = [train(short_config(epochs=3, head="bn_dropout0.5_fc", deterministic=True)) for _ in range(2)]
    stopped = short_config(epochs=3, head="bn_dropout0.5_fc", deterministic=True, checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, [keras.callbacks.LambdaCallback(on_epoch_begin=stop)])
    assert results[0] == results[1] == train(stopped)


def test_a_norm_takes_kerass_own_path():
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype("float32")
    for training in (False, True):
        one, other = BatchNormalization(), keras.layers.BatchNormalization()
        np.testing.assert_array_equal(one(x, training=training), other(x, training=training))


def test_units_are_counted_as_on_the_cpu():
    """TensorFloat-32 rounds what is near 0 to either side, so a few inputs may be counted otherwise."""
    model = resnet8((16, 16, 3), "bn_fc", 10, seed=0)
    x = np.random.default_rng(0).normal(size=(500, 16, 16, 3)).astype("float32")
    here = count(model, x).layers["head_fc"]
    with tf.device("CPU:0"):
        cpu = resnet8((16, 16, 3), "bn_fc", 10, seed=0)
        expected = count(cpu, x).layers["head_fc"]
    assert np.abs(here.active - expected.active).max() <= 5
