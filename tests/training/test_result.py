import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead.census import count
from bnhead.data import load
from bnhead.data.checks import inspect_data
from bnhead.layers.removal import norms_removed
from bnhead.runs.predictions import read_predictions
from bnhead.training import train


def directory(config):
    return Path(config.workdir)


def test_result_has_the_figures_others_rely_on(short_run):
    _, result = short_run
    assert result["status"] == "finished" and result["epochs"] == 2
    assert 0 <= result["test_accuracy"] <= 1 and math.isfinite(result["test_loss"])
    assert result["head"] == "2x2x64 -> gap -> 64 -> bn -> fc(32, relu) -> out(10)  [P1]"
    assert result["data"]["train"] == 1437 and result["data"]["test"] == 360
    assert result["dead/head_fc/inputs"] == 360 and result["dead/head_fc/bound"] == 3 / 360


def test_the_model_gives_the_results_figures_again(short_run, data_dir):
    config, result = short_run
    model = keras.saving.load_model(directory(config) / "model.keras")
    test = load("digits", data_dir).test
    logits = model.predict(test.images, verbose=0)
    assert np.mean(logits.argmax(1) == test.labels) == pytest.approx(result["test_accuracy"])
    exp = np.exp(logits - logits.max(1, keepdims=True))
    loss = -np.log(exp[np.arange(360), test.labels] / exp.sum(1)).mean()
    assert loss == pytest.approx(result["test_loss"], rel=1e-4)
    figures = count(model, test.images).figures()
    assert figures == {key: result[key] for key in figures}
    assert model.count_params() == result["parameters"]


def test_population_statistics_are_measured_beside_the_moving_averages(short_config, data_dir):
    """Against the run that replaces the moving averages, which computes the same at its end."""
    both, replaced, plain = (
        train(short_config(**settings))
        for settings in ({"population_stats": True}, {"recompute_batch_stats": "head"}, {})
    )
    figures = both["population"]
    assert figures == {key: replaced[key] for key in figures}
    assert {"test_accuracy", "test_loss", "dead/head_fc/dataset"} <= figures.keys()
    assert {key: plain[key] for key in figures} == {key: both[key] for key in figures}
    assert figures["test_loss"] != both["test_loss"] and "population" not in plain
    first, second, third = (read_predictions(directory(run.config)) for run in (both, replaced, plain))
    np.testing.assert_array_equal(first.population.outputs, second.outputs)
    np.testing.assert_array_equal(first.population.silent, second.silent)
    np.testing.assert_array_equal(first.outputs, third.outputs)
    assert third.population is None


@pytest.mark.parametrize(
    "probed", [2048, pytest.param(100, marks=pytest.mark.slow)], ids=["one pass", "Keras evaluates"]
)
def test_a_trained_model_is_measured_without_its_heads_norm_too(short_config, probed):
    """Against the saved model, whose norm is taken out."""
    settings = {"imbalance": "longtail:4", "probe_examples": probed}
    run = train(short_config(without_norms=True, population_stats=True, **settings))
    model = keras.saving.load_model(directory(run.config) / "model.keras")
    kept = read_predictions(directory(run.config))
    test = load("digits", run.config.data_dir).test
    with norms_removed(model, ["head_bn"]):
        logits = model.predict(test.images, verbose=0)
    np.testing.assert_allclose(kept.without_norms.outputs, logits, rtol=1e-3, atol=1e-3)
    assert run["without_norms"]["test_accuracy"] == pytest.approx(kept.without_norms.accuracy().mean())
    assert not np.allclose(kept.population.outputs, kept.without_norms.outputs)
    assert run["test_accuracy"] == pytest.approx(kept.accuracy().mean())  # the model itself came back
    counts = np.array(run["data"]["checks"]["class_counts"]["train"])
    assert run["data"]["prior"] == pytest.approx(counts / counts.sum())


@pytest.mark.parametrize(
    "head",
    [
        "noise_fbn_fc",
        pytest.param("fc", marks=pytest.mark.slow),
        pytest.param("noise_fc", marks=pytest.mark.slow),
    ],
)
def test_a_head_that_infers_without_moving_averages_has_one_set_of_figures(short_config, head):
    result = train(short_config(head=head, population_stats=True, without_norms=True, epochs=1))
    assert not {"population", "without_norms"} & result.keys()


def test_the_model_loads_where_bnhead_is_unknown(short_run, tmp_path):
    config, _ = short_run
    code = (
        "import sys; sys.modules['bnhead'] = None; import keras, numpy; "
        f"model = keras.saving.load_model({str(directory(config) / 'model.keras')!r}); "
        "print(model.predict(numpy.zeros((2, 8, 8, 1), 'uint8'), verbose=0).shape)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert process.stdout.strip() == "(2, 10)", process.stderr


def test_the_checks_are_recorded_with_the_datas_fingerprint(short_run, data_dir):
    _, result = short_run
    checks = result["data"]["checks"]
    assert checks == {**inspect_data(load("digits", data_dir)), "batches": checks["batches"]}
    assert checks["batches"] == {"size": 256, "steps": 5, "left_out": 157}
    assert checks["duplicates"] == {"train_test": 0, "within_train": 0, "within_test": 0}
