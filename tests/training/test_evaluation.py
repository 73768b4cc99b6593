import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.devices.replicas import Replicas
from bnhead.runs.predictions import read_predictions
from bnhead.training.build import Reuse
from bnhead.training.evaluation import Evaluation
from bnhead.training.run import prepare_training


def evaluation(config):
    feed, model, probe, *_ = prepare_training(config, Replicas(), Reuse())
    callback = Evaluation(feed, probe, None)
    callback.set_model(model)
    callback.set_params({"epochs": 2})
    return feed, model, callback


TASKS = [
    {"head": "bn_fc"},
    {"head": "bn_fc", "mixup": 0.2},
    {"head": "arcface"},  # reads the labels too
    {"dataset": "digits_rotation", "task": "regression"},
    {"task": "multilabel"},
]


@pytest.mark.parametrize("settings", TASKS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_the_counting_pass_gives_the_figures_of_keras(short_config, settings):
    feed, model, callback = evaluation(short_config(**settings))
    assert callback.keras_batches() is None
    logs = {}
    callback.on_epoch_end(0, logs)
    expected = model.evaluate(feed.test(), verbose=0, return_dict=True)
    figures = {name.removeprefix("val_"): value for name, value in logs.items() if name.startswith("val_")}
    assert figures == pytest.approx(expected, rel=1e-5)
    predictions = callback.predictions()
    inputs = feed.every_test_image().map(lambda x, _: (x,))
    np.testing.assert_allclose(predictions.outputs, model.predict(inputs, verbose=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(predictions.labels, feed.data.test.labels)
    shares = predictions.silent_share()
    assert shares.mean() == pytest.approx(next(iter(callback.census.layers.values())).figures()["per_input"])


def test_a_longer_test_split_is_evaluated_by_keras(short_config):
    feed, _, callback = evaluation(short_config(probe_examples=100))
    assert callback.keras_batches() is not None
    logs = {}
    callback.on_epoch_end(0, logs)
    assert not [name for name in logs if name.startswith("val_")]
    assert next(iter(callback.census.layers.values())).inputs == 100
    assert callback.predictions().images == feed.data.test.size


def test_a_penalty_of_activations_is_left_to_keras(short_config):
    feed, model, probe, *_ = prepare_training(short_config(), Replicas(), Reuse())
    model.get_layer("head_fc").activity_regularizer = keras.regularizers.L2(0.1)
    assert Evaluation(feed, probe, None).keras_batches() is not None


def test_a_changed_model_is_predicted_again(short_config):
    _, model, callback = evaluation(short_config())
    callback.on_epoch_end(0, {})
    before = callback.predictions().outputs
    model.get_layer("head_out").bias.assign_add(np.ones(10, "float32"))
    callback.forget()
    np.testing.assert_allclose(callback.predictions().outputs, before + 1, atol=1e-5)
    assert callback.repeat()["test_loss"] > 0


def test_runs_of_the_same_model_share_the_traced_pass(short_config):
    config, reuse = short_config(), Reuse()
    (model, probe), (again, shared) = (
        prepare_training(dataclasses.replace(config, seed=seed), Replicas(), reuse)[1:3] for seed in (1, 2)
    )
    assert again is model and shared is probe
    _, other, another, *_ = prepare_training(dataclasses.replace(config, head="fc"), Replicas(), reuse)
    assert other is not model and another is not probe


def test_the_scores_of_a_run_are_those_of_its_predictions(short_run):
    """The test split is read once: loss and accuracy come from the outputs of the pass that counts."""
    config, result = short_run
    predictions = read_predictions(Path(config.workdir))
    assert predictions.layers == ("head_fc",) and predictions.images == 360
    assert predictions.accuracy().mean() == pytest.approx(result["test_accuracy"])
    loss = predictions.negative_log_likelihood("classification").mean()
    assert loss == pytest.approx(result["test_loss"], rel=1e-4)
    assert predictions.silent.mean() == pytest.approx(result["dead/head_fc/per_input"], rel=1e-5)
