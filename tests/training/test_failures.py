import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.data import load
from bnhead.devices.replicas import Replicas
from bnhead.graph.weights import WeightCheck
from bnhead.runs import checkpoints
from bnhead.training import train
from bnhead.training.failures import Finite, Learning, constant_loss, locate, penalty
from bnhead.training.state import captured

STEPS = 5


def net(scale=1.0):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((2,)),
        keras.layers.Dense(3, name="first"),
        keras.layers.Rescaling(scale, name="grow"),
        keras.layers.Dense(1, name="last"),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(1e-3, name="sgd"), "mse")
    return model


def feed(spoiled=None, value=np.nan):
    """Twenty batches; the inputs of one of them hold a value that is not finite."""
    x = np.ones((4 * STEPS, 8, 2), "float32")
    if spoiled is not None:
        x[spoiled, 3, 1] = value
    y = np.ones((4 * STEPS, 8, 1), "float32")
    return types.SimpleNamespace(
        train=lambda epoch, step, epochs=1: tf.data.Dataset.from_tensor_slices((x, y)).skip(
            epoch * STEPS + step
        ),
        steps=STEPS,
        epochs=4,
        replicas=Replicas(),
    )


@pytest.mark.parametrize("spoiled", [0, 3, 4, 11])
def test_the_step_that_broke_is_found_from_any_state_before(spoiled):
    model, batches = net(), feed(spoiled)
    start = captured(model)
    failure = locate(model, start, batches, 0)
    assert failure == {"step": spoiled + 1, "epoch": spoiled // STEPS + 1, "where": "input", "layer": ""}
    assert not WeightCheck(model)(), "it is left as it was before that step"
    assert int(model.optimizer.iterations) == spoiled


def test_the_layer_whose_output_overflows_is_named():
    model, batches = net(scale=1e38), feed()
    model.get_layer("first").kernel.assign(np.full((2, 3), 1e3, "float32"))
    failure = locate(model, captured(model), batches, 0)
    assert failure == {"step": 1, "epoch": 1, "where": "activation", "layer": "grow"}


def test_a_loss_that_overflows_is_the_losss():
    model, batches = net(), feed()
    model.get_layer("last").bias.assign(np.full(1, 1e30, "float32"))
    failure = locate(model, captured(model), batches, 0)
    assert failure == {"step": 1, "epoch": 1, "where": "loss", "layer": ""}


def test_a_gradient_that_overflows_names_the_layer_nearest_to_the_output():
    model, batches = net(), feed()
    model.get_layer("last").bias.assign(np.full(1, 1e15, "float32"))  # of which the square is finite
    model.get_layer("last").kernel.assign(np.full((3, 1), 1e25, "float32"))
    model.get_layer("first").kernel.assign(np.zeros((2, 3), "float32"))
    failure = locate(model, captured(model), batches, 0)
    assert (failure["step"], failure["where"]) == (1, "gradient") and failure["layer"].endswith("first")


def test_where_nothing_breaks_again_there_is_the_step_alone():
    model, batches = net(), feed()
    batches.epochs = 1
    failure = locate(model, captured(model), batches, 2)
    assert failure == {"step": STEPS, "epoch": 1}


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_training_stops_behind_the_step(seconds):
    model = net()
    finite = Finite(WeightCheck(model), seconds)
    model.fit(
        feed(7).train(0, 0), epochs=4, steps_per_epoch=STEPS, verbose=0, shuffle=False, callbacks=[finite]
    )
    assert finite.broken and finite.step == 2 and int(model.optimizer.iterations) == 8


def test_weights_are_looked_at_though_the_loss_is_finite():
    """TensorFlow's kernels can turn NaN into 0 on the way to the loss."""

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                self.model.get_layer("bn").moving_mean.assign(np.full(2, np.nan, "float32"))

    for seconds, step in ((0.0, 2), (1e9, 4)):
        model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(name="bn")])
        model.compile("sgd", "mse")
        finite = Finite(WeightCheck(model), seconds)
        data = feed().train(0, 0).map(lambda x, y: (x, x))
        options = {"verbose": 0, "shuffle": False, "callbacks": [Spoil(), finite]}
        model.fit(data, epochs=4, steps_per_epoch=STEPS, **options)
        assert finite.broken and finite.step == step, "at once, or at the end of the epoch"


def test_the_best_constant_answers_loss(data_dir):
    digits = load("digits", data_dir, imbalance="one_majority:10")
    labels = digits.train.labels
    share = np.bincount(labels, minlength=10) / len(labels)
    logits = np.log(share)[None].repeat(len(labels), 0).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    assert constant_loss("classification", digits) == pytest.approx(float(loss), rel=1e-5)
    hot = np.eye(10, dtype="float32")[labels]
    odds = np.log(share / (1 - share))[None].repeat(len(labels), 0).astype("float32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)(hot, odds)
    assert constant_loss("multilabel", digits) == pytest.approx(float(loss), rel=1e-5)
    assert constant_loss("regression", digits) == 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_best_constant_answers_loss_of_mixed_numbers(alpha):
    draw = np.random.default_rng(0)
    targets = draw.permutation(np.linspace(-1, 1, 100_000))
    targets /= targets.std()
    share = draw.beta(alpha, alpha, len(targets))
    mixed = share * targets + (1 - share) * draw.permutation(targets)
    assert constant_loss("regression", None, alpha) == pytest.approx(mixed.var(), rel=0.02)


def rows_of(losses, accuracy=0.1):
    return [{"loss": loss, "accuracy": accuracy} for loss in losses]


@pytest.mark.parametrize(
    ("losses", "within", "failed"),
    [
        ([2.3, 2.3], 2, True),
        ([2.3, 2.4], 2, True),
        ([2.4, 2.3], 2, False),  # it still falls
        ([2.4, 2.25], 2, False),
        ([2.25, 2.4], 2, False),
        ([2.4, 2.3], 0, False),
        ([2.4, 2.3], 3, False),
        ([2.29, 2.29], 2, True),
    ],
)
def test_what_never_beats_the_constant_answer_has_failed(losses, within, failed):
    learning = Learning(2.3, within, lambda: rows_of(losses))
    learning.set_model(net())
    learning.on_epoch_end(1)
    assert learning.failed == failed == bool(getattr(learning.model, "stop_training", False))


def test_no_checkpoint_holds_what_is_not_finite(short_config):
    """The loss stays finite, and weights are looked at every second only."""

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == STEPS + 2:
                self.model.get_layer("head_bn").moving_mean.assign(np.full(64, np.nan, "float32"))

    config = short_config(checkpoint_seconds=0.0)
    assert train(config, [Spoil()])["status"] == "diverged"
    written = sorted((Path(config.workdir) / checkpoints.FOLDER).glob("step-*"))
    assert [path.name for path in written] == [f"step-{step:010}" for step in (5, 6, 7)]
    for path in written:
        arrays = checkpoints.decode_checkpoint(path.read_bytes()).arrays.values()
        assert all(np.isfinite(array).all() for array in arrays)


def test_regularizers_do_not_count_as_failing_to_learn():
    layer = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5), name="first")
    model = keras.Sequential([keras.Input((2,)), layer, keras.layers.Dense(1, kernel_regularizer=None)])
    layer.kernel.assign(np.ones((2, 3), "float32"))
    assert penalty(model) == 3 and penalty(net()) == 0
    for loss, failed in ((2.3 + 3, True), (2.2 + 3, False)):
        learning = Learning(2.3, 1, lambda loss=loss: rows_of([loss]))
        learning.set_model(model)
        learning.on_epoch_end(0)
        assert learning.failed == failed


def test_epochs_of_a_frozen_stage_do_not_count():
    losses = [0.1, 9.0]
    learning = Learning(2.3, 2, lambda: rows_of(losses), first=1)
    learning.set_model(net())
    learning.on_epoch_end(1)
    assert not learning.failed
    losses.append(9.0)
    learning.on_epoch_end(2)
    assert learning.failed


@pytest.mark.parametrize(("accuracy", "failed"), [(0.705, True), (0.72, False)])
def test_right_answers_are_learning_whatever_the_loss(accuracy, failed):
    """As with a batch norm on the logits, whose size it fixes."""
    learning = Learning(0.2, 2, lambda: rows_of([0.5, 0.5], accuracy), majority=0.7)
    learning.set_model(net())
    learning.on_epoch_end(1)
    assert learning.failed == failed


def test_a_late_plateau_is_noticed_too():
    losses = [9.0, 8.0]
    learning = Learning(2.3, 2, lambda: rows_of(losses))
    learning.set_model(net())
    for epoch, loss in enumerate((7.0, 6.0, 6.0), 2):
        learning.on_epoch_end(epoch - 1)
        assert not learning.failed
        losses.append(loss)
    learning.on_epoch_end(4)
    assert learning.failed


def test_with_a_norm_on_the_logits_of_many_sigmoids_a_net_learns_late(short_config):
    settings = {"task": "multilabel", "imbalance": "one_majority:20"}
    result = train(short_config(batch_size=32, head="fc_out_bn", epochs=7, **settings))
    data = load("digits", result.config.data_dir, **settings)
    assert min(result.history["loss"]) > constant_loss("multilabel", data)
    assert (result["status"], result["epochs"]) == ("finished", 7)


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "domains:digits,digits+contrast:3", "adaptation": "dsbn"},
        pytest.param({"adversarial": "pgd"}, marks=pytest.mark.slow),
    ],
    ids=["dsbn", "pgd"],
)
def test_a_run_whose_step_makes_its_batch_diverges_as_a_result(short_config, settings):
    result = train(short_config(learning_rate=1e20, warmup_epochs=0.0, train_examples=512, **settings))
    assert result["status"] == "diverged" and {*result["failure"]} == {"step", "epoch"}


def test_failing_to_learn_is_a_result(short_config):
    result = train(short_config(learning_rate=1e-9, weight_decay=0.0, epochs=4, learn_within=2))
    assert (result["status"], result["epochs"]) == ("failed_to_learn", 2)
    assert "failure" not in result
