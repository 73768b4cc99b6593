"""Decay in the features' units: one step by hand, and the penalised optimum with and without a batch norm."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.errors import UsageError
from bnhead.training.build import optimizer
from bnhead.training.config import TrainConfig
from bnhead.training.decay import FeatureDecaySGD, reader_and_norm


def build(head, features=3, outputs=3, **options):
    inputs = keras.Input((features,))
    return heads.attach(head, inputs, inputs, outputs, name="net", seed=0, fc_units=4, **options)


def test_the_first_dense_layer_and_the_norm_that_scales_its_features():
    found = {}
    for head in (
        "fc",
        "bn_out",
        "noise_fscale_dropout0.5_fc_bn",
        "center_dense8_fc",
        "noise_fbn-beta-gamma_fc",
    ):
        reader, norm = reader_and_norm(build(head))
        found[head] = reader.name, norm.name if norm else None
    assert found == {
        "fc": ("head_fc", None),
        "bn_out": ("head_out", "head_bn"),
        "noise_fscale_dropout0.5_fc_bn": ("head_fc", "head_fscale"),
        "center_dense8_fc": ("head_dense", None),
        "noise_fbn-beta-gamma_fc": ("head_fc", "head_fbn"),
    }


@pytest.mark.parametrize("head", ["bn_out", "bn-gamma_out", "fscale_out"])
def test_one_step_without_gradient_by_hand(head):
    model = build(head)
    config = TrainConfig(
        learning_rate=0.5,
        warmup_epochs=0,
        epochs=100,
        momentum=0,
        weight_decay=0.2,
        fc_decay="features",
        head=head,
    )
    sgd = optimizer(config, model, steps=1000)
    assert isinstance(sgd, FeatureDecaySGD)
    reader, norm = reader_and_norm(model)
    norm.moving_variance.assign([0.04, 1.0, 9.0])
    gamma = np.ones(3)
    if head == "bn_out":
        gamma = np.array([2.0, 0.5, 1.0])
        norm.gamma.assign(gamma)
    kernel = np.array(reader.kernel)
    sgd.build(model.trainable_variables)
    sgd.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    precision = 1 / (np.array([0.04, 1.0, 9.0]) + 1e-5)
    rate = 0.5 * 0.2
    np.testing.assert_allclose(reader.kernel, kernel / (1 + rate * precision * gamma**2)[:, None], rtol=1e-5)
    if head == "bn_out":
        np.testing.assert_allclose(norm.gamma, gamma / (1 + rate * precision * (kernel**2).sum(1)), rtol=1e-5)


def fitted_outputs(head, fc_decay, x, y):
    """The outputs of a classifier at the minimum of its penalised loss, by full batches."""
    model = build(head, head_bn_momentum=0.0)
    config = TrainConfig(
        learning_rate=0.3,
        warmup_epochs=0,
        epochs=4000,
        momentum=0.9,
        weight_decay=0.02,
        fc_decay=fc_decay,
        head=head,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(config, model, steps=1), loss)
    many = np.tile(x, (1000, 1)), np.tile(y, 1000)  # an epoch of 1,000 steps, each on all examples
    model.fit(*many, batch_size=len(x), epochs=2, verbose=0, shuffle=False)
    return np.asarray(model(x))


@pytest.mark.slow
def test_in_the_features_units_a_batch_norm_has_the_optimum_of_none():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = (rng.normal(size=(60, 3)) + 0.7 * np.eye(3)[y]) * [0.2, 1.0, 3.0]
    x = x.astype("float32")

    def distance(outputs):
        outputs = outputs - outputs.mean(1, keepdims=True)
        return np.abs(outputs - without).max()

    without = fitted_outputs("out", "weights", x, y)
    without = without - without.mean(1, keepdims=True)
    for head in ("bn-gamma_out", "bn_out"):
        assert distance(fitted_outputs(head, "weights", x, y)) > 0.08
        assert distance(fitted_outputs(head, "features", x, y)) < 0.02


def test_without_decay_the_reader_alone_is_spared():
    model = build("bn_fc")
    config = TrainConfig(weight_decay=0.1, momentum=0, warmup_epochs=0, fc_decay="none", head="bn_fc")
    sgd = optimizer(config, model, steps=10)
    before = {v.path: np.array(v) for v in model.trainable_variables}
    sgd.build(model.trainable_variables)
    sgd.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    changed = {v.path for v in model.trainable_variables if not np.array_equal(before[v.path], v)}
    assert changed == {"head_out/kernel"}


@pytest.mark.parametrize("head", ["bn_relu_fc", "bn_gap_fc", "bn_ln_fc", "l2_fc", "bn_gbn4_fc"])
def test_heads_whose_fc_has_no_such_units_are_refused(head):
    with pytest.raises(
        UsageError, match=r"^fc_decay features needs a head with at most one norm over the batch"
    ):
        TrainConfig(head=head, fc_decay="features")
    assert TrainConfig(head=head, fc_decay="none").fc_decay == "none"
    assert (
        TrainConfig(head="center_noise_fbn_dropout0.5_fc_relu_bn", fc_decay="features").fc_decay == "features"
    )


@pytest.mark.slow
def test_on_pytorch():
    pytest.importorskip("torch")
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "by_hand",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout[-3000:]
