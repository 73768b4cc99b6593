import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from bnhead.lint.linter import check
from tests.lint.nets import CLASSES, X, findings, norm, sequential, the_finding


def test_slow_averages():
    model = sequential(norm(momentum=0.99))
    found = the_finding(model, "BN201", epochs=10)  # 100 steps
    assert found.value == pytest.approx(0.99**100) and "(299 steps keep 5%)" in found.what
    assert the_finding(model, "BN201", epochs=30, severity="info").value == pytest.approx(0.99**300)
    assert not findings(sequential(norm(momentum=0.9)), "BN201", epochs=10)
    assert not findings(sequential(norm(momentum=0.99, trainable=False)), "BN201", epochs=1)
    assert check(model, (X, CLASSES), select=["BN201"]).missing == {"BN201": "data and epochs"}
    assert not findings(sequential(norm(momentum=0.0)), "BN201", epochs=10)
    assert "infinitely many" in the_finding(sequential(norm(momentum=1.0)), "BN201", epochs=10).what


def test_fast_averages():
    found = the_finding(sequential(norm(momentum=0.1)), "BN202", data=None)
    assert found.value == pytest.approx(1.1 / 0.9) and found.where == ("bn",)
    assert the_finding(sequential(norm(momentum=0.7)), "BN202", data=None, severity="info").value < 10
    assert not findings(sequential(norm(momentum=0.9)), "BN202", data=None)


def test_batch_of_one():
    model = sequential(norm())
    data = (X[:121], CLASSES[:121])
    found = the_finding(model, "BN203", data=data)
    assert found.value == 1 and "the last batch of an epoch has 1 example, 1 value of a channel" in found.what
    assert not findings(model, "BN203", data=data, drop_remainder=True)
    assert not findings(model, "BN203", data=(X[:120], CLASSES[:120]))
    assert the_finding(model, "BN203", data=(X[:122], CLASSES[:122]), severity="info").value == 2
    assert "a batch has 1 example" in the_finding(model, "BN203", data=None, batch_size=1).what
    maps = sequential(norm(), layers.Flatten(), inputs=(4, 4, 1))
    assert not findings(maps, "BN203", data=X[:121].reshape(-1, 4, 4, 1)), "16 values of a channel"


def compiled(optimizer, **options):
    model = sequential(norm(**options))
    model.compile(optimizer, "mse")
    return model


def test_decayed_norm():
    model = compiled(keras.optimizers.SGD(0.1, weight_decay=0.01))
    found = the_finding(model, "BN204", epochs=10)
    assert found.value == pytest.approx(1 - math.exp(-0.1 * 0.01 * 100)) and found.where == ("bn",)
    assert the_finding(model, "BN204", epochs=1, severity="info").value < 0.05
    assert the_finding(model, "BN204", severity="info").value is None
    excluding = keras.optimizers.SGD(0.1, weight_decay=0.01)
    excluding.exclude_from_weight_decay(var_names=["gamma", "beta"])
    assert not findings(compiled(excluding), "BN204", epochs=10)
    assert not findings(compiled("adam"), "BN204", epochs=10)
    assert not findings(compiled(keras.optimizers.AdamW(0.1), center=False, scale=False), "BN204", epochs=10)


def test_decay_by_regularizers_and_schedules():
    regularised = compiled(keras.optimizers.SGD(0.1), gamma_regularizer=keras.regularizers.L2(0.01))
    assert the_finding(regularised, "BN204", epochs=10).value == pytest.approx(
        1 - math.exp(-0.1 * 0.02 * 100)
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.2, 100)
    halved = compiled(keras.optimizers.SGD(schedule, weight_decay=0.01))
    # the mean of a cosine is half of its start
    assert the_finding(halved, "BN204", epochs=10).value == pytest.approx(1 - math.exp(-0.1), rel=0.03)


SKEWED = (X, (np.arange(600) % 20 == 0).astype("int64"))  # 5 % of class 1


def test_zero_output_bias():
    model = sequential(norm(), outputs=2)
    found = the_finding(model, "BN205", data=SKEWED)
    expected = math.log(2) + 0.05 * math.log(0.05) + 0.95 * math.log(0.95)
    assert found.value == pytest.approx(expected) and found.where == ("out",)
    model.get_layer("out").bias.assign(np.log([0.95, 0.05]))
    assert not findings(model, "BN205", data=SKEWED)
    assert not findings(sequential(norm(), outputs=4), "BN205")
    mild = (X, (np.arange(600) % 3 == 0).astype("int64"))
    assert the_finding(sequential(norm(), outputs=2), "BN205", data=mild, severity="info").value < 0.1
    assert findings(sequential(norm(), layers.Dense(1, "sigmoid"), outputs=0), "BN205", data=SKEWED)
    softmax = sequential(layers.Dense(2, name="last"), layers.Softmax(), outputs=0)
    assert the_finding(softmax, "BN205", data=SKEWED).where == ("last",)


def test_the_offset_of_a_norm_on_the_logits():
    model = sequential(layers.Dense(2), norm(), outputs=0)
    assert the_finding(model, "BN205", data=SKEWED).where == ("bn",)
    model.get_layer("bn").beta.assign([1.0, -1.0])
    assert not findings(model, "BN205", data=SKEWED)


def test_unmixed_batches():
    model, order = sequential(norm()), np.argsort(CLASSES, kind="stable")
    ordered = (X[order], CLASSES[order])
    found = the_finding(model, "BN206", data=ordered, shuffle=False)
    assert found.value < 0.5 and "mixed batches would have 4.0" in found.what
    assert not findings(model, "BN206", data=ordered), "fit shuffles arrays"
    assert not findings(model, "BN206", shuffle=False)
    assert not findings(sequential(layers.ReLU()), "BN206", data=ordered, shuffle=False), "no batch norm"
    stream = tf.data.Dataset.from_tensor_slices(ordered).shuffle(30).batch(60)
    # sorted by class, and only the first class is read
    assert the_finding(model, "BN206", data=stream, batch_size=None, examples=120).value < 0.5
    mixed = tf.data.Dataset.from_tensor_slices(ordered).shuffle(600, seed=1).batch(60)
    assert not findings(model, "BN206", data=mixed, batch_size=None)


def test_rare_classes_are_no_unmixed_batches():
    assert not findings(sequential(norm(), outputs=2), "BN206", data=SKEWED)


def test_batches_that_are_not_mixed_by_domain():
    model, domains = sequential(norm()), np.repeat([0, 1], 300)
    found = the_finding(model, "BN206", shuffle=False, domains=domains)
    assert found.value == pytest.approx(0.5, abs=0.1) and "domains" in found.what
    assert not findings(model, "BN206", domains=domains)
    assert not findings(model, "BN206", shuffle=False, domains=np.arange(600) % 2)
