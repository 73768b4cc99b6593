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
    assert checks == {**inspect_data(load("digits", data_dir), 256)}
    assert checks["batches"] == {"size": 256, "steps": 5, "left_out": 157}
    assert checks["duplicates"] == {"train_test": 0, "within_train": 0, "within_test": 0}
