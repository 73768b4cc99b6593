"""On feature arrays the runs of a comparison train in one stack; their files are those of single runs."""

import csv
import json

import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.comparison import trainees
from bnhead.comparison.data import ComparedData
from bnhead.runs.predictions import read_predictions
from tests.comparison.nets import DATA, compared, results


def build(head, seed):
    inputs = keras.Input((5,))
    if head == "clipped":
        outputs = heads.apply("fc", inputs, 3, fc_units=6, seed=seed)
        optimizer = keras.optimizers.Adam(clipnorm=1.0)
    else:
        outputs = heads.apply(head, inputs, 3, fc_units=6, seed=seed)
        optimizer = keras.optimizers.Adam(0.02)
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def histories(folder):
    return {
        path.parent.name: [
            {k: float(v or "nan") for k, v in row.items()}
            for row in csv.DictReader(path.read_text().splitlines())
        ]
        for path in folder.glob("runs/*/history.csv")
    }


@pytest.mark.slow
def test_stacked_runs_are_the_single_runs(tmp_path, monkeypatch, capsys):
    names, options = ("fc", "bn_dropout0.5_fc", "clipped"), {"epochs": 2, "batch_size": 16}
    together = compared(tmp_path / "together", build, names=names, **options)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "clipped is trained alone: its optimizer has clipnorm"
    fits = []
    monkeypatch.setattr(trainees, "can_stack", lambda data, fit: False)
    monkeypatch.setattr("bnhead.comparison.run.can_stack", lambda data, fit: fits.append(1))
    single = compared(tmp_path / "single", build, names=names, **options)
    assert fits == [1]
    ours, theirs = (histories(tmp_path / name) for name in ("together", "single"))
    assert len(ours) == 6 and ours.keys() == theirs.keys()
    for name in ours:
        for row, expected in zip(ours[name], theirs[name], strict=True):
            assert row == pytest.approx(expected, abs=1e-5, nan_ok=True), name
        logits, others = (read_predictions(tmp_path / f / "runs" / name) for f in ("together", "single"))
        np.testing.assert_allclose(logits.outputs, others.outputs, atol=1e-4)
    first, second = (results(tmp_path / name) for name in ("together", "single"))
    assert {name: list(result) for name, result in first.items()} == {n: list(r) for n, r in second.items()}
    for ours, theirs in zip(together.comparisons, single.comparisons, strict=True):
        assert ours["word"] == theirs["word"]
    plans = [json.loads((tmp_path / name / "plan.json").read_text()) for name in ("together", "single")]
    assert plans[0]["sha256"] == plans[1]["sha256"]


def test_which_data_are_stacked():
    def data(x):
        return ComparedData.of(((x, np.arange(12) % 3), (x, np.arange(12) % 3)), 16)

    features = np.ones((12, 5), "float32")
    assert trainees.can_stack(data(features), {})
    assert not trainees.can_stack(data(features), {"class_weight": {0: 2.0}})
    assert not trainees.can_stack(data(np.ones((12, 4, 4, 3), "float32")), {})
    assert not trainees.can_stack(data({"a": features, "b": features}), {})


def test_too_many_weights_are_trained_alone(monkeypatch, capsys):
    monkeypatch.setattr(trainees, "MOST_WEIGHTS", 100)
    together = trainees.Together(ComparedData.of(DATA, 16), 16, runs=10)
    assert together.join("fc", build("fc", 0), 0) is None
    assert "fc is trained alone: 10 runs of 57 weights" in capsys.readouterr().err
