import csv
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnhead.training import train


def directory(config):
    return Path(config.workdir)


def test_history_has_a_row_per_epoch(short_run):
    config, result = short_run
    rows = list(csv.DictReader((directory(config) / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    columns = {"loss", "accuracy", "test_loss", "test_accuracy", "learning_rate", "images_per_second"}
    assert columns | {"dead/head_fc/per_input"} <= set(rows[0])
    assert float(rows[-1]["test_accuracy"]) == result["test_accuracy"]
    assert float(rows[-1]["dead/head_fc/dataset"]) == result["dead/head_fc/dataset"]


def test_named_layers_are_counted(short_config):
    result = train(short_config(epochs=1, dead_layers="stage3_block1_relu2,head_fc", probe_examples=100))
    assert result["dead/stage3_block1_relu2/inputs"] == result["dead/head_fc/inputs"] == 100
    assert result["dead/head_fc/bound"] == 0.03


@pytest.fixture(scope="module")
def measured_run(short_config):
    config = short_config(measure="gap,guess,dropout")
    return config, train(config)


def test_measuring_changes_nothing_that_is_trained(measured_run, short_run):
    history, plain = (result.history for _, result in (measured_run, short_run))
    for name in plain.keys() - {"images_per_second"}:
        np.testing.assert_array_equal(history[name], plain[name], err_msg=name)


def test_the_mechanisms_are_in_history_result_and_tensorboard(measured_run):
    config, result = measured_run
    columns = {name for name in result.history if name.startswith("mechanisms/")}
    assert "mechanisms/accuracy_population" in columns and "mechanisms/noise_sd" not in columns
    for name in columns:
        last = result.history[name][-1]
        assert result[name] == last or np.isnan([result[name], last]).all()
    assert result["mechanisms/accuracy_moving"] == pytest.approx(result["test_accuracy"])
    assert result["mechanisms/loss_moving"] == pytest.approx(result["test_loss"], rel=1e-4)
    initial = result.history["mechanisms/initial_modal_share"]
    assert 0.1 < initial[0] == initial[1] <= 1
    assert np.isnan(result["mechanisms/variance_shift"])  # no dropout before the norm
    events = EventAccumulator(str(Path(config.workdir, "test"))).Reload()
    assert "mechanisms/accuracy_population" in events.Tags()["tensors"]
    metadata = events.summary_metadata["mechanisms/accuracy_population"]
    assert metadata.summary_description == "accuracy with statistics of the training examples"


def test_a_runs_recomputed_statistics_are_measured_too(short_config):
    result = train(short_config(epochs=1, measure="gap", recompute_batch_stats="head"))
    assert result["mechanisms/loss_moving"] == pytest.approx(result["test_loss"], rel=1e-4)
    assert result["mechanisms/average_bias_largest"] < 0.3
    assert result.history["mechanisms/average_bias_largest"][-1] > 0.3


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_tasks_without_one_class_per_example_have_the_other_figures(task, short_config):
    dataset = "digits_rotation" if task == "regression" else "digits"
    result = train(short_config(epochs=1, task=task, dataset=dataset, measure="all", learn_within=0))
    assert result["mechanisms/noise_logit_sd"] > 0
    assert np.isnan([result[f"mechanisms/{name}"] for name in ("nc1", "nll", "prejudiced_epochs")]).all()
