"""Numbers against NumPy: the loss of logits + tau log prior, with weights by class."""

import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy import special

from bnhead.data import DataSet
from bnhead.data.memory import InMemory
from bnhead.errors import DataError, Interrupted, UsageError
from bnhead.runs.predictions import read_predictions
from bnhead.training import TrainConfig, train
from bnhead.training.failures import constant_loss
from bnhead.training.imbalance import class_weights, rebalance, trained_prior
from bnhead.training.tasks import compile_for_task

COUNTS = [6, 3, 1]
LABELS = np.repeat([0, 1, 2], COUNTS)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 2, 2, 1)).astype("uint8")
LOGITS = np.random.default_rng(1).normal(0, 2, (10, 3)).astype("float32")


def data_set(labels=LABELS):
    split = InMemory(IMAGES[: len(labels)], labels)
    return DataSet("set/1.0.0", (2, 2, 1), ("a", "b", "c"), 3, split, split)


def compiled(*, soft=False, data=None, **settings):
    inputs = keras.Input((3,))
    data = data_set() if data is None else data
    model = compile_for_task(
        keras.Model(inputs, keras.layers.Identity()(inputs)),
        "classification",
        data,
        keras.optimizers.SGD(0.1),
        soft=soft,
    )
    return rebalance(model, TrainConfig(**settings), data)


def loss_of(model, targets, *, training=True):
    return float(model.compute_loss(None, targets, keras.ops.convert_to_tensor(LOGITS), training=training))


def nll(logits, shares):
    return -(special.log_softmax(logits.astype("float64"), 1) * shares).sum(1)


PRIOR = np.array(COUNTS) / 10
INVERSE = (10 / 3) / np.array(COUNTS)  # the weights that scikit-learn calls balanced
ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "shares"])
@pytest.mark.parametrize(
    ("settings", "shift", "weights"),
    [
        ({"logit_adjustment": 1.0}, np.log(PRIOR), np.ones(3)),
        ({"logit_adjustment": 0.5}, 0.5 * np.log(PRIOR), np.ones(3)),
        ({"class_weights": "inverse"}, 0, INVERSE),
        ({"logit_adjustment": 2.0, "class_weights": "inverse"}, 2 * np.log(PRIOR), INVERSE),
    ],
    ids=str,
)
def test_the_training_loss(settings, shift, weights, soft):
    model = compiled(soft=soft, **settings)
    shares = 0.7 * ONE_HOT + 0.3 * ONE_HOT[::-1] if soft else ONE_HOT
    targets = shares.astype("float32") if soft else LABELS
    # the mixture of the classes' weighted losses: its best constant answer is the weighted prior
    expected = nll(LOGITS + shift, shares * weights).mean()
    assert loss_of(model, targets) == pytest.approx(expected, rel=1e-5)
    assert loss_of(model, targets, training=False) == pytest.approx(nll(LOGITS, shares).mean(), rel=1e-5)


def test_fit_trains_on_it_and_evaluate_does_not():
    """One step of SGD from zero: the bias of class c moves by -rate times the gradient of its loss."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="zeros")(inputs))
    model = compile_for_task(model, "classification", data_set(), keras.optimizers.SGD(0.1))
    rebalance(model, TrainConfig(logit_adjustment=1.0, class_weights="inverse"), data_set())
    x = np.zeros((10, 1), "float32")
    assert model.evaluate(x, LABELS, verbose=0)[0] == pytest.approx(np.log(3))
    log = model.fit(x, LABELS, batch_size=10, verbose=0).history
    weights = INVERSE[LABELS][:, None]
    assert log["loss"][0] == pytest.approx((weights[:, 0] * nll(np.log(PRIOR)[None], ONE_HOT)).mean())
    gradient = (weights * (PRIOR - ONE_HOT)).mean(0)
    np.testing.assert_allclose(model.get_weights()[1], -0.1 * gradient, rtol=1e-5)


def test_class_weights():
    assert class_weights("none", [5, 0]).tolist() == [1, 1]
    np.testing.assert_allclose(class_weights("inverse", COUNTS), INVERSE)
    effective = np.array([sum(0.9**k for k in range(n)) for n in COUNTS])  # Cui et al. 2019, equation 1
    weights = class_weights("effective:0.9", COUNTS)
    np.testing.assert_allclose(weights[0] / weights, effective / effective[0])
    assert (weights * COUNTS).sum() == pytest.approx(10)
    near_one = class_weights("effective:0.9999999999", COUNTS)  # as many effective as there are
    np.testing.assert_allclose(near_one, INVERSE, rtol=1e-6)


def test_the_prior_that_the_loss_sees():
    np.testing.assert_allclose(trained_prior("none", COUNTS), PRIOR)
    np.testing.assert_allclose(trained_prior("inverse", COUNTS), 1 / 3)


def test_the_best_constant_answer_knows_the_weights():
    data = data_set()
    assert constant_loss("classification", data) == pytest.approx(-(PRIOR * np.log(PRIOR)).sum())
    weights = class_weights("inverse", COUNTS)
    assert constant_loss("classification", data, 0.0, weights) == pytest.approx(np.log(3))


@pytest.mark.parametrize("name", ["logit_adjustment", "class_weights"])
def test_every_class_needs_an_example(name):
    settings = {"logit_adjustment": 1.0} if name == "logit_adjustment" else {"class_weights": "inverse"}
    message = f"{name} needs a training example of every class, and class 'b' of set/1.0.0 has none"
    with pytest.raises(DataError, match=f"^{message}$"):
        compiled(data=data_set(np.array([0, 0, 2, 2])), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logit_adjustment": -0.5}, "logit_adjustment must be a finite number of at least 0, got -0.5"),
        ({"logit_adjustment": float("nan")}, "logit_adjustment must be a finite number of at least 0, got n"),
        ({"class_weights": "invers"}, "class_weights 'invers' is not known; did you mean 'inverse'"),
        (
            {"class_weights": "effective:1"},
            r"class_weights must have a beta in \(0, 1\), as effective:0.9999",
        ),
        ({"class_weights": "effective"}, r"class_weights must have a beta in \(0, 1\)"),
        ({"class_weights": "inverse", "task": "multilabel"}, "class_weights is of a softmax, and task multi"),
        (
            {"logit_adjustment": 1.0, "task": "regression", "dataset": "digits_rotation"},
            "logit_adjustment is of a softmax, and task regression has none",
        ),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**settings)


REBALANCED = {
    "imbalance": "longtail:10",
    "logit_adjustment": 1.0,
    "class_weights": "effective:0.99",
    "batch_size": 64,
    "checkpoint_seconds": 0.0,
    "epochs": 3,
}


class StopsOnce(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_run_resumes_in_the_same_bits(short_config):
    whole, stopped = short_config(**REBALANCED), short_config(**REBALANCED)
    result = train(whole)
    with pytest.raises(Interrupted):
        train(stopped, [StopsOnce(7)])
    assert dict(train(stopped)) == dict(result)
    ends = [read_predictions(Path(config.directory)).outputs for config in (whole, stopped)]
    assert np.array_equal(*ends)


def test_the_neutral_guess_of_an_adjusted_loss_has_equal_logits(short_config):
    """With the adjustment they have the prior. The weights stay as they began; the test loss is plain."""
    settings = {"neutral_init": True, "learning_rate": 1e-9, "recompute_batch_stats": "all"}
    config = short_config(imbalance="longtail:100", logit_adjustment=1.0, batch_size=64, **settings)
    result = train(config)
    predictions = read_predictions(Path(config.directory))
    means = predictions.outputs.mean(0)
    assert np.ptp(means) < 1.5 < np.log(100) / 2  # the log prior has a range of log(100)
    assert result["test_loss"] == pytest.approx(predictions.negative_log_likelihood("").mean(), rel=1e-4)
