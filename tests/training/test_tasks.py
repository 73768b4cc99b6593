import csv
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.data import DataSet, load
from bnhead.data.memory import InMemory
from bnhead.errors import DataError
from bnhead.runs.predictions import read_predictions
from bnhead.training import train
from bnhead.training.tasks import TASKS, ScaledR2, compile_for_task, labels_for_softmax, task_batches

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 2, 2, 1)).astype("uint8")
ANGLES = np.linspace(-30, 60, 12, dtype="float32")[:, None]
CLASSES = np.arange(12) % 3


def data_set(labels, classes, outputs):
    split = InMemory(IMAGES, labels)
    return DataSet("set/1.0.0", (2, 2, 1), classes, outputs, split, split)


def test_figures_of_a_softmax_get_no_labels_of_other_tasks():
    arrays, batches = (IMAGES, CLASSES), tf.data.Dataset.from_tensors((IMAGES, CLASSES))
    for data in (arrays, batches):
        assert labels_for_softmax(data, "classification") is data
    assert labels_for_softmax(arrays, "multilabel") == (IMAGES,)
    (element,) = labels_for_softmax(batches, "regression")
    np.testing.assert_array_equal(element[0], IMAGES)
    assert len(element) == 1


def linear(outputs):
    inputs = keras.Input((2, 2, 1))
    return keras.Model(inputs, keras.layers.Dense(outputs)(keras.layers.Flatten()(inputs)))


def test_regression_predicts_in_units_and_loses_in_deviations():
    mean, deviation = ANGLES.mean(), ANGLES.std()
    inner = linear(1)
    model = compile_for_task(inner, "regression", data_set(ANGLES, (), 1), keras.optimizers.SGD(0.01))
    predicted = np.asarray(model(IMAGES))
    np.testing.assert_allclose(predicted, np.asarray(inner(IMAGES)) * deviation + mean, rtol=1e-5)
    figures = model.evaluate(IMAGES, ANGLES, verbose=0, return_dict=True)
    error = predicted - ANGLES
    np.testing.assert_allclose(figures["loss"], (error**2).mean() / deviation**2, rtol=1e-5)
    np.testing.assert_allclose(figures["mae"], np.abs(error).mean(), rtol=1e-5)
    expected = 1 - (error**2).sum() / ((ANGLES - mean) ** 2).sum()
    np.testing.assert_allclose(figures["r2"], expected, rtol=1e-4)


def test_a_regressions_gradient_does_not_depend_on_the_units():
    steps = []
    for factor in (1, 1000):
        inner = linear(1)
        inner.set_weights([np.full(w.shape, 0.01, "float32") for w in inner.get_weights()])
        targets = ANGLES * factor
        model = compile_for_task(inner, "regression", data_set(targets, (), 1), keras.optimizers.SGD(1e-4))
        model.train_on_batch(IMAGES, targets)
        steps.append(inner.get_weights()[0])
    np.testing.assert_allclose(*steps, rtol=1e-4)


def test_several_targets_have_units_of_their_own():
    targets = np.concatenate([ANGLES * 20 + 1e5, ANGLES / 50], 1).astype("float32")
    inner = linear(2)
    model = compile_for_task(inner, "regression", data_set(targets, (), 2), keras.optimizers.SGD(0.01))
    predicted = np.asarray(model(IMAGES), "float64")
    expected = np.asarray(inner(IMAGES)) * targets.std(0) + targets.mean(0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-4)
    figures = model.evaluate(IMAGES, targets, verbose=0, return_dict=True)
    error = (predicted - targets) / targets.std(0)
    np.testing.assert_allclose(figures["loss"], (error**2).mean(), rtol=1e-3)
    np.testing.assert_allclose(figures["r2"], (1 - (error**2).mean(0)).mean(), rtol=1e-3)


def test_r2_survives_a_mean_far_from_zero():
    rng = np.random.default_rng(0)
    targets = rng.normal(2000, 0.6, (500, 1)).astype("float32")
    predicted = (targets + rng.normal(0, 0.12, targets.shape)).astype("float32")
    metric = ScaledR2(targets.mean(0), targets.std(0))
    for part in range(0, 500, 100):
        metric.update_state(targets[part : part + 100], predicted[part : part + 100])
    error, spread = (
        (predicted - targets).astype("float64"),
        targets.astype("float64") - targets.mean(dtype="float64"),
    )
    np.testing.assert_allclose(float(metric.result()), 1 - (error**2).sum() / (spread**2).sum(), atol=1e-3)


def test_multilabel_is_a_sigmoid_for_each_class():
    model = compile_for_task(
        linear(3), "multilabel", data_set(CLASSES, ("a", "b", "c"), 3), keras.optimizers.SGD()
    )
    data = task_batches(InMemory(IMAGES, CLASSES).evaluation_batches(5), "multilabel", 3, with_labels=False)
    figures = model.evaluate(data, verbose=0, return_dict=True)
    logits, hot = np.asarray(model(IMAGES), "float64"), np.eye(3)[CLASSES]
    expected = np.mean(np.maximum(logits, 0) - logits * hot + np.log1p(np.exp(-np.abs(logits))))
    np.testing.assert_allclose(figures["loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(figures["accuracy"], (logits.argmax(1) == CLASSES).mean())
    np.testing.assert_allclose(figures["binary_accuracy"], ((logits > 0) == hot).mean(), rtol=1e-6)


def test_batches_carry_the_labels_as_a_second_input_where_the_head_reads_them():
    data = InMemory(IMAGES, CLASSES).evaluation_batches(5)
    (images, labels), targets = next(iter(task_batches(data, "classification", 3, with_labels=True)))
    np.testing.assert_array_equal(images, IMAGES[:5])
    np.testing.assert_array_equal(labels, CLASSES[:5])
    np.testing.assert_array_equal(targets, CLASSES[:5])
    assert labels.dtype == tf.int32
    images, targets = next(iter(task_batches(data, "classification", 3, with_labels=False)))
    np.testing.assert_array_equal(images, IMAGES[:5])


def test_equal_targets_have_nothing_to_learn():
    with pytest.raises(DataError, match="all training targets are 4, nothing to predict"):
        compile_for_task(linear(1), "regression", data_set(np.full((12, 1), 4.0), (), 1), None)


@pytest.mark.parametrize(
    "task", ["classification", "regression", pytest.param("multilabel", marks=pytest.mark.slow)]
)
def test_every_task_trains_and_reports_its_figures(task, short_config):
    settings = {"dataset": "digits_rotation"} if task == "regression" else {}
    config = short_config(task=task, head="bn_fc", epochs=1, batch_size=512, **settings)
    result = train(config)
    first = f"test_{TASKS[task].primary}"
    assert result["status"] == "finished" and list(result)[2] == first
    model = keras.saving.load_model(f"{config.workdir}/model.keras")
    assert model.output.shape == (None, 1 if task == "regression" else 10)
    kept = read_predictions(Path(config.workdir))
    assert kept.images == 360 and kept.layers == ("head_fc",)
    assert kept.silent_share().mean() == pytest.approx(result["dead/head_fc/per_input"])
    if task == "regression":
        mae = np.abs(kept.outputs[:, 0] - np.ravel(kept.labels)).mean()
        assert mae == pytest.approx(result["test_mae"], rel=1e-4)
    else:
        assert kept.accuracy().mean() == pytest.approx(result["test_accuracy"])
        assert kept.negative_log_likelihood(task).mean() == pytest.approx(result["test_loss"], rel=1e-4)
    if task == "regression":
        assert model.layers[-1].name == "to_units" and result["test_mae"] > 1


@pytest.mark.slow
def test_digits_rotation_is_learned(short_config):
    """As the README has it, shorter: a third of the epochs explain most of the variance."""
    config = short_config(
        dataset="digits_rotation", task="regression", epochs=5, batch_size=64, backbone="resnet8"
    )
    assert train(config)["test_r2"] > 0.6


def test_labels_as_an_input_frozen_statistics_and_a_plain_model(short_config):
    config = short_config(head="fbn_cdropout0.5_fc", epochs=1, batch_size=512)
    assert train(config)["status"] == "finished"
    model = keras.saving.load_model(f"{config.workdir}/model.keras")
    assert len(model.inputs) == 1
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    norm = model.get_layer("head_fbn")
    assert np.abs(norm.moving_mean).max() > 0.01, "measured before training"
    assert np.abs(norm.moving_variance - 1).max() > 0.01


@pytest.mark.slow
def test_recomputed_statistics_are_those_that_are_reported(short_config):
    """After very few steps moving averages are far behind; the saved model has the new ones."""
    config = short_config(head="bn_fc", epochs=2, batch_size=512, recompute_batch_stats="all")
    result = train(config)
    with open(f"{config.workdir}/history.csv") as file:
        *_, last = csv.DictReader(file)
    assert result["test_accuracy"] > float(last["test_accuracy"])
    test = load("digits", config.data_dir).test
    model = keras.saving.load_model(f"{config.workdir}/model.keras")
    predicted = model.predict(test.images, verbose=0).argmax(1)
    np.testing.assert_allclose((predicted == test.labels).mean(), result["test_accuracy"], atol=1e-6)
