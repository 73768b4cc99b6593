import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import bnhead
from bnhead.errors import UsageError
from bnhead.lint.linter import CHECKS, check
from bnhead.lint.rules import RULES
from tests.lint.nets import CLASSES, X, norm, sequential


def test_every_rule_has_its_check():
    assert list(CHECKS) == list(RULES)


def test_from_python():
    model = sequential(layers.Dense(16, name="fc"), layers.Dropout(0.5), norm())
    findings = bnhead.check(model, (X, CLASSES), 60, epochs=1)
    assert [(item.rule.id, item.severity) for item in findings] == [
        ("BN201", "warning"),
        ("BN401", "warning"),
    ]
    assert findings.facts == {
        "read": "540 training examples in batches of 60",
        "training": "batches of 60, 600 examples, 1 epoch, 10 steps",
        "batch norms": "1, 1 of them normalise by the batch in training",
    }
    assert set(findings.missing) == {"BN204", "BN301"} and set(findings.checked) == set(RULES) - {
        "BN204",
        "BN301",
    }


def test_a_check_changes_nothing():
    model = sequential(layers.Dense(16, "relu"), layers.Dropout(0.5), norm())
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [np.array(v) for v in model.variables]
    check(model, (X, CLASSES))
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(before, model.variables, strict=True))
    assert model.train_function is None and not model.optimizer.built


def test_without_data():
    findings = check(sequential(layers.Dense(16), norm()))
    assert {item.rule.id for item in findings} == {"BN101"}
    assert {"BN401", "BN101", "BN202"} <= set(findings.checked) and findings.missing["BN402"] == "data"
    assert findings.missing["BN205"] == "data with labels"


def test_the_first_batches_of_a_stream():
    read = []

    def batches():
        for i in range(0, 600, 100):
            read.append(i)
            yield X[i : i + 100], CLASSES[i : i + 100]

    findings = check(sequential(norm()), batches(), examples=250)
    assert read == [0, 100, 200] and findings.facts["training"] == "batches of 100"
    dataset = tf.data.Dataset.from_tensor_slices((X, CLASSES)).batch(50)
    findings = check(sequential(norm()), dataset, labels=CLASSES, epochs=2)
    assert findings.facts["training"] == "batches of 50, 600 examples, 2 epochs, 24 steps"


def test_several_inputs():
    inputs = {"a": keras.Input((16,), name="a"), "b": keras.Input((16,), name="b")}
    y = layers.Dense(4)(norm()(layers.Dropout(0.5)(layers.Concatenate()(list(inputs.values())))))
    findings = check(keras.Model(inputs, y), ({"a": X, "b": X}, CLASSES), 60)
    assert [item.rule.id for item in findings.at_least("warning")] == ["BN401"]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.bn = layers.Dense(8), layers.Dropout(0.5), norm()
        self.out = layers.Dense(4)

    def call(self, x, training=None):
        x = keras.ops.tanh(self.fc(x)) + 0.1
        return self.out(self.bn(self.drop(x, training=training), training=training))


def test_a_subclassed_model_is_measured():
    model = Subclassed()
    model(X[:2])
    assert "BN401" in {item.rule.id for item in check(model, (X, CLASSES), 60).at_least("warning")}
    without = check(model, select=["BN202", "BN401"])
    assert set(without.missing.values()) == {"a model that does not declare its inputs needs data"}


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = sequential(layers.Dense(32, use_bias=False), layers.Dropout(0.5), norm())
    finally:
        keras.config.set_dtype_policy("float32")
    (found,) = check(model, (X, CLASSES), 60, select=["BN401"])
    assert found.value == pytest.approx(2, abs=0.2)


def test_loss_scaling():
    model = sequential(norm())
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, weight_decay=0.01)), "mse")
    (found,) = check(model, (X, CLASSES), 60, epochs=10, select=["BN204"])
    assert found.severity == "warning"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": ["BN999"]}, "select: rule 'BN999' is not known"),
        ({"select": "BN4", "ignore": "BN4"}, "leave no rule"),
        ({"epochs": -1}, "epochs must be a whole number of at least 0, got -1"),
        ({"examples": 0}, "examples must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"task": "classify"}, "task must be classification, multilabel or regression, got 'classify'"),
        ({"data": X[:, :8]}, r"data does not fit the model: input .* is \(batch, 16\), got \(batch, 8\)"),
        ({"data": "digits"}, "data must be arrays"),
        ({"data": iter(())}, "data must have at least one example"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(UsageError, match=message):
        check(sequential(norm()), **{"data": (X, CLASSES), **options})


def test_bad_models():
    with pytest.raises(UsageError, match="must be built"):
        check(Subclassed(), X)
    with pytest.raises(UsageError, match="model must be a Keras model"):
        check("resnet20", X)


ON_A_BACKEND = """
import json, sys
import keras, numpy as np
import bnhead
from bnhead.models import resnet8

rng = np.random.default_rng(0)
x, y = rng.normal(size=(256, 8, 8, 1)).astype("float32"), np.arange(256) % 10
model = resnet8((8, 8, 1), "fastai", 10)
weights = [rng.normal(size=w.shape) * 0.3 if w.ndim > 1 else w for w in model.get_weights()]
model.set_weights(weights)
found = bnhead.check(model, (x, y), 64, epochs=3)
json.dump([(item.rule.id, item.where, item.value) for item in found], sys.stdout)
"""


@pytest.mark.slow
def test_the_same_findings_on_every_backend():
    found = {}
    for backend in ("tensorflow", "jax", "torch"):
        environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", ON_A_BACKEND]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[backend] = json.loads(done.stdout)
    assert [rule for rule, _, _ in found["jax"]] == ["BN201", "BN401"]
    for backend in ("jax", "torch"):
        for ours, theirs in zip(found["tensorflow"], found[backend], strict=True):
            assert ours[:2] == theirs[:2] and theirs[2] == pytest.approx(ours[2], rel=0.05)  # other dropout
