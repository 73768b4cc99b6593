import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead import heads
from bnhead.comparison import run
from bnhead.comparison.compare import compare
from bnhead.errors import RunDirectoryError, StudyError
from bnhead.runs.predictions import read_predictions
from tests.comparison.nets import DATA, RNG, X, Y, build, compared, results


@pytest.mark.slow
def test_tf_data_and_one_hot_labels_and_probabilities(tmp_path):
    train, test = (
        tf.data.Dataset.from_tensor_slices((x, np.eye(3, dtype="float32")[y])).batch(16) for x, y in DATA
    )

    def softmax(head, seed):
        return build(head, seed, loss="categorical_crossentropy", last="softmax")

    compared(tmp_path / "study", softmax, (train.shuffle(60, seed=1), test))
    for name in results(tmp_path / "study"):
        model = keras.saving.load_model(tmp_path / "study" / "runs" / name / "model.keras")
        kept = read_predictions(tmp_path / "study" / "runs" / name)
        np.testing.assert_allclose(np.exp(kept.outputs), model.predict(X[60:], verbose=0), rtol=1e-3)
        np.testing.assert_array_equal(kept.labels, Y[60:])


@pytest.mark.slow
def test_numbers_are_judged_by_r2(tmp_path):
    targets = X[:, :1] + X[:, 1:2]
    data = (X[:60], targets[:60]), (X[60:], targets[60:])

    def regress(head, seed):
        return build(head, seed, loss="mse", outputs=1)

    verdict = compared(tmp_path / "study", regress, data)
    (row,) = verdict.comparisons
    assert row["outcome"] == "r2" and row["images"] is None
    (result, *_) = results(tmp_path / "study").values()
    assert result["test_r2"] < 1


def test_a_metric_of_the_model_and_no_heads_at_all(tmp_path):
    def with_metric(rate):
        def builder(seed):
            model = build("fc", seed, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            top2 = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
            model.compile(keras.optimizers.SGD(rate), model.loss, metrics=[top2])
            return model

        return builder

    verdict = compare(
        data=DATA, builders={"slow": with_metric(0.01), "fast": with_metric(0.5)}, metric="top2", delta=0.05,
        seeds=2, epochs=1, dir=str(tmp_path / "study"), progress=False,
    )  # fmt: skip
    (row,) = verdict.comparisons
    assert row["outcome"] == "test_top2" and row["margin"] == 0.05 and row["name"] == "fast against slow"
    (plan,) = [json.loads((tmp_path / "study" / "plan.json").read_text())]
    assert plan["primary"] == "test_top2"


@pytest.mark.slow
def test_a_model_without_activation_has_no_dead_units(tmp_path):
    def linear(head, seed):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        model.compile("sgd" if head == "fc" else "adam", keras.losses.SparseCategoricalCrossentropy(True))
        return model

    (row,) = compared(tmp_path / "study", linear).comparisons
    assert [other["outcome"] for other in row["secondary"]] == ["nll"]


def test_a_run_that_diverges_is_scored_at_chance(tmp_path):
    def diverges(head, seed):
        model = build(head, seed)
        model.compile(keras.optimizers.SGD(1e30 if head == "bn_fc" else 0.01), model.loss)
        return model

    verdict = compared(tmp_path / "study", diverges, epochs=2)
    assert verdict.word in ("UNSTABLE", "INVALID")
    assert verdict.comparisons[0]["diverged"] == {"control": 0, "treatment": 2}


class Net(keras.Model):
    """A subclassed model, which declares neither inputs nor output shape and need not have a config."""

    def __init__(self, norm):
        super().__init__()
        self.hidden = keras.layers.Dense(6, "relu")
        self.norm = keras.layers.BatchNormalization() if norm else None
        self.logits = keras.layers.Dense(3)

    def call(self, x, training=None):
        x = self.hidden(x)
        return self.logits(self.norm(x, training=training) if self.norm else x)

    def get_config(self):
        raise NotImplementedError


def test_subclassed_models(tmp_path):
    def subclassed(head, seed):
        model = Net("bn" in head)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    verdict = compared(tmp_path / "study", subclassed)
    (row,) = verdict.comparisons
    assert row["n"] == 2 and {other["outcome"] for other in row["secondary"]} >= {"dead_share", "nll"}
    assert compared(tmp_path / "study", subclassed).word == verdict.word
    with pytest.raises(RunDirectoryError, match="model_sha256 of bn_fc"):
        compared(tmp_path / "study", lambda head, seed: subclassed("fc", seed))


@pytest.mark.slow
def test_bnheads_heads_on_a_backbone_of_mine(tmp_path):
    def with_head(head, seed):
        inputs = keras.Input((8, 8, 1))
        features = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
        model = keras.Model(inputs, heads.apply(head, features, 3, fc_units=8, seed=seed))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    images = RNG.normal(0, 1, (90, 8, 8, 1)).astype("float32")
    data = (images[:60], Y[:60]), (images[60:], Y[60:])
    (row,) = compared(tmp_path / "study", with_head, data).comparisons
    assert {other["outcome"] for other in row["secondary"]} >= {"dead_share"}
    (name, *_) = results(tmp_path / "study")
    assert read_predictions(tmp_path / "study" / "runs" / name).layers == ("head_fc",)


def test_a_metric_that_the_model_lacks_is_named(tmp_path):
    with pytest.raises(StudyError, match="metric 'auc' is none of the model's"):
        compared(tmp_path / "study", metric="auc", delta=0.1)


def test_dead_units_are_counted_on_the_first_inputs_and_predictions_are_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "MOST_COUNTED", 8)
    compared(tmp_path / "study", seeds=1)
    for name, result in results(tmp_path / "study").items():
        assert result["dead/features/inputs"] == 8
        model = keras.saving.load_model(tmp_path / "study" / "runs" / name / "model.keras")
        kept = read_predictions(tmp_path / "study" / "runs" / name)
        np.testing.assert_allclose(kept.outputs, model.predict(X[60:], verbose=0), rtol=1e-4, atol=1e-5)
        assert kept.silent.shape == (30, 1)
