import itertools
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import bnhead
from bnhead import heads
from bnhead.comparison import ComparedData, compare, model_sha256
from bnhead.errors import RunDirectoryError, StudyError, UsageError
from bnhead.runs.predictions import read_predictions

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (90, 5)).astype("float32")
Y = (X[:, 0] > 0).astype("int64") + (X[:, 1] > 1)
DATA = (X[:60], Y[:60]), (X[60:], Y[60:])


def build(head, seed, width=6, loss=None, outputs=3, last=None, initial=None):
    inputs = keras.Input((5,))
    glorot = keras.initializers.GlorotUniform(initial)
    features = keras.layers.Dense(width, "relu", name="features", kernel_initializer=glorot)(inputs)
    features = keras.layers.BatchNormalization()(features) if "bn" in head else features
    model = keras.Model(inputs, keras.layers.Dense(outputs, last)(features))
    model.compile("adam", loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def compared(folder, build=build, data=DATA, names=("fc", "bn_fc"), **options):
    options = {"seeds": 3, "epochs": 1, "batch_size": 16, "progress": False, **options}
    return compare(build, data, names, dir=str(folder), **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "study"
    return folder, compared(folder, epochs=2)


def results(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("runs/*/result.json")}


def test_a_comparison_is_a_study(finished):
    folder, verdict = finished
    assert {"plan.json", "verdict.json", "report.html", "report.md"} <= {p.name for p in folder.iterdir()}
    plan = json.loads((folder / "plan.json").read_text())
    assert len(plan["runs"]) == 6 and plan["looks"] == [3] and plan["settings"]["epochs"] == 2
    (row,) = verdict.comparisons
    assert (row["control"], row["treatment"], row["n"], row["images"]) == ("fc", "bn_fc", 3, 30)
    assert row["word"] == verdict.word and verdict.word in str(verdict)
    assert {other["outcome"] for other in row["secondary"]} == {"dead_share", "silent_share", "nll"}


def test_figures_are_those_of_the_saved_model(finished):
    folder, _ = finished
    for run, result in results(folder).items():
        model = keras.saving.load_model(folder / "runs" / run / "model.keras")
        logits = model.predict(X[60:], verbose=0)
        assert result["test_accuracy"] == pytest.approx((logits.argmax(1) == Y[60:]).mean())
        kept = read_predictions(folder / "runs" / run)
        np.testing.assert_allclose(kept.outputs, logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(kept.labels, Y[60:])
        assert result["dead/features/dataset"] == census_dead(model)


def census_dead(model):
    return bnhead.census.count(model, X[60:], ["features"]).figures()["dead/features/dataset"]


def test_a_finished_comparison_is_not_done_again(finished):
    folder, verdict = finished
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
    assert compared(folder, epochs=2).word == verdict.word
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_stopped_comparison_goes_on(finished, tmp_path):
    class Stopped(BaseException):
        pass

    calls = []

    def stops(head, seed):
        calls.append(seed)
        if len(calls) == 6:  # two for the plan, then in the fourth run
            raise Stopped
        return build(head, seed)

    with pytest.raises(Stopped):
        compared(tmp_path / "study", stops, epochs=2)
    done = results(tmp_path / "study")
    assert len(done) == 3
    compared(tmp_path / "study", epochs=2)
    now = results(tmp_path / "study")
    assert {run: now[run] for run in done} == done
    assert now == results(finished[0])  # as if it had not been stopped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"build": lambda head, seed: build(head, seed, width=7)}, "model_sha256 of fc"),
        ({"data": (DATA[0], (X[60:], Y[60:][::-1].copy()))}, "data_test_sha256"),
        ({"data": ((X[:60] + 1, Y[:60]), DATA[1])}, "data_train_sha256"),
        ({"epochs": 3}, "epochs 2 there, 3 now"),
        ({"names": ("fc", "bn_fc", "bn_fc_bn")}, "cells"),
    ],
)
def test_another_comparison_in_its_directory_is_refused_by_name(finished, options, message):
    with pytest.raises(RunDirectoryError, match=message):
        compared(finished[0], **{"epochs": 2, **options})


def test_runs_of_a_seed_see_the_same_batches():
    def labels_of(seed, epoch=0):
        batches = ComparedData.of(DATA, 16).epoch(seed, epoch, 16)
        return [batches[index][1].tolist() for index in range(len(batches))]

    assert labels_of(0) == labels_of(0)
    assert labels_of(0) != labels_of(1) and labels_of(0) != labels_of(0, epoch=1)
    assert sorted(itertools.chain(*labels_of(0))) == sorted(Y[:60].tolist())


@pytest.mark.slow
def test_tf_data_and_one_hot_labels_and_probabilities(tmp_path):
    train, test = (
        tf.data.Dataset.from_tensor_slices((x, np.eye(3, dtype="float32")[y])).batch(16) for x, y in DATA
    )

    def softmax(head, seed):
        return build(head, seed, loss="categorical_crossentropy", last="softmax")

    compared(tmp_path / "study", softmax, (train.shuffle(60, seed=1), test))
    for run in results(tmp_path / "study"):
        model = keras.saving.load_model(tmp_path / "study" / "runs" / run / "model.keras")
        kept = read_predictions(tmp_path / "study" / "runs" / run)
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
        seeds=3, epochs=1, dir=str(tmp_path / "study"), progress=False,
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
    assert verdict.comparisons[0]["diverged"] == {"control": 0, "treatment": 3}


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
    assert row["n"] == 3 and {other["outcome"] for other in row["secondary"]} >= {"dead_share", "nll"}
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
    (run, *_) = results(tmp_path / "study")
    assert read_predictions(tmp_path / "study" / "runs" / run).layers == ("head_fc",)


def test_the_name_of_a_layer_does_not_make_another_model():
    assert model_sha256(build("fc", 0)) == model_sha256(build("fc", 1))
    assert model_sha256(build("fc", 0)) != model_sha256(build("bn_fc", 0))
    assert model_sha256(build("fc", 0, initial=1)) == model_sha256(build("fc", 0, initial=2))
    other = build("fc", 0)
    other.compile("sgd", other.loss)
    assert model_sha256(build("fc", 0)) != model_sha256(other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"build": None}, "build and heads, or builders"),
        ({"names": ("fc",)}, "heads must be at least 2"),
        ({"names": ("fc", "fc")}, "heads must all differ"),
        ({"control": "gap"}, "control must be one of fc, bn_fc"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"seeds": [3, 3]}, "seeds must increase"),
        ({"seeds": []}, "seeds must be at least 1"),
        ({"better": "bigger"}, "better must be 'higher' or 'lower'"),
        ({"metric": "auc"}, "delta must be set for metric 'auc'"),
        ({"metric": "r2"}, "metric 'r2' is not measured for classification"),
        ({"data": X}, "data must be"),
        ({"data": (DATA[0], (X, Y[:3]))}, "test data must have as many labels as inputs"),
        ({"data": (DATA[0], (X, None))}, "test data must be"),
        ({"build": lambda head, seed: keras.Sequential([keras.Input((5,))])}, "not compiled"),
        ({"build": lambda head, seed: None}, "returned NoneType"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compared(tmp_path / "study", **arguments)
    assert not (tmp_path / "study").exists()


def test_a_metric_that_the_model_lacks_is_named(tmp_path):
    with pytest.raises(StudyError, match="metric 'auc' is none of the model's"):
        compared(tmp_path / "study", metric="auc", delta=0.1)


def test_it_is_public():
    assert bnhead.compare is compare and "compare" in dir(bnhead)
    assert pathlib.Path(compare.__code__.co_filename).name == "comparison.py"
