"""Ablation against nets whose ablated units are cut off by hand, and `evaluate`."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from bnhead import census
from bnhead.census.counts import Counts
from bnhead.errors import UsageError
from tests.census.planted import ALWAYS_ON, RARE, planted_conv, planted_dense

GROUPS = ("dead", "dormant", "rarely_active")
CLASSES = 3


def dense(seed):
    """Dense to Dense, with dormant units."""
    model, name, x = planted_dense(seed)
    kernel, bias = (np.array(w) for w in model.get_layer(name).get_weights())
    kernel[:, 9:12], bias[9:12] = kernel[:, 9:12] * 0.01, bias[9:12] * 0.01
    model.get_layer(name).set_weights([kernel, bias])
    calm(model)
    return model, [name], x


def calm(model):
    """The units that are always on have outputs of 1,000: the logits read them weakly, unit 8 strongly."""
    kernel, bias = (np.array(w) for w in model.layers[-1].get_weights())
    kernel[ALWAYS_ON] *= 1e-3
    kernel[RARE] *= 100
    model.layers[-1].set_weights([kernel, bias])


def conv(seed):
    """A map that an average reads, and units active on a few inputs."""
    model, name, x = planted_conv(seed)
    calm(model)
    return model, [name], x


def deep(seed):
    """Convolution, batch norm, convolution, Dense: the groups of three layers."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((5, 5, 2))
    y = layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    y = layers.Conv2D(8, 3, name="second", activation="relu")(y)
    y = layers.Dense(8, "relu", name="third")(layers.GlobalAveragePooling2D(name="mean")(y))
    model = keras.Model(inputs, layers.Dense(CLASSES, name="out")(y))
    model.set_weights([0.3 * rng.normal(size=w.shape) for w in model.get_weights()])
    for layer in model.layers:
        if layer.name in ("first", "second", "third"):
            kernel, bias = (np.array(w) for w in layer.get_weights())
            bias[0] = -1e3
            kernel[..., 1] *= 1e-3
            bias[1] = 1e-4
            if kernel.shape[-2] == 8:
                kernel[..., 1, :] = 100
            layer.set_weights([kernel, bias])
    return model, ["first", "second", "third"], rng.normal(size=(90, 5, 5, 2)).astype("float32")


READERS = {"hidden": -1, "map": -1, "first": "second", "second": "third", "third": "out"}


def cut(model, name, mask):
    """Loss and metrics by `evaluate` of a copy in which nothing reads the masked units of a layer."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    reader = READERS[name]
    layer = copy.layers[reader] if isinstance(reader, int) else copy.get_layer(reader)
    kernel, bias = (np.array(w) for w in layer.get_weights())
    kernel[..., mask, :] = 0
    layer.set_weights([kernel, bias])
    return copy


TASKS = {
    "classes": (
        lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        lambda: ["accuracy"],
        lambda n: np.random.default_rng(0).integers(0, CLASSES, n),
    ),
    "regression": (
        lambda: "mse",
        lambda: None,
        lambda n: np.random.default_rng(0).normal(size=(n, CLASSES)).astype("float32"),
    ),
    "lazy metric": (  # F1Score makes its variables at its first update
        lambda: keras.losses.CategoricalCrossentropy(from_logits=True),
        lambda: [keras.metrics.F1Score(average="macro")],
        lambda n: np.eye(CLASSES, dtype="float32")[np.random.default_rng(0).integers(0, CLASSES, n)],
    ),
}


@pytest.mark.parametrize("net", [dense, conv, deep])
@pytest.mark.parametrize("task", TASKS)
def test_changes_are_those_of_nets_cut_by_hand(net, task):
    model, names, x = net(1)
    loss, metrics, labels = TASKS[task]
    y = labels(len(x))
    model.compile("sgd", loss(), metrics=metrics())
    counted = census.count(model, (x, y), names)
    ablated = census.ablate(model, (x, y), counted, batch_size=64)
    model.compile("sgd", loss(), metrics=metrics())
    whole = model.evaluate(x, y, batch_size=64, verbose=0, return_dict=True)
    for name in names:
        counts, groups = ablated.layers[name], counted.layers[name]
        masks = groups.dead, groups.dormant(0.025), groups.rarely_active
        assert masks[0].any() and masks[2].any(), "nothing to ablate"
        for number, mask in enumerate(masks):
            copy = cut(model, name, mask)
            copy.compile("sgd", loss(), metrics=metrics())
            changed = copy.evaluate(x, y, batch_size=64, verbose=0, return_dict=True)
            rounding = 1e-5 * max(1, whole["loss"])
            assert counts.ablated_loss[number] == pytest.approx(changed["loss"] - whole["loss"], abs=rounding)
            if task == "regression":
                assert counts.ablated_metric is None
                continue
            metric = "accuracy" if task == "classes" else "f1_score"
            assert counts.ablated_metric[number] == pytest.approx(changed[metric] - whole[metric], abs=1e-5)
        assert counts.ablated_loss[0] == 0, "exactly 0 for the dead"
        assert task == "regression" or counts.ablated_metric[0] == 0
    assert any(abs(counts.ablated_loss[1:]).max() > 1e-3 for counts in ablated.layers.values())
    (note,) = (note for note in ablated.notes if note.startswith("ablation: "))
    assert float(note.split()[2].strip(",")) == pytest.approx(whole["loss"], rel=1e-3)
    assert task == "regression" or float(note.split()[4]) == pytest.approx(whole[metric], rel=1e-3)


def test_rows_of_the_table_and_files():
    model, names, x = dense(0)
    y = np.random.default_rng(0).integers(0, CLASSES, len(x))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    counted = census.count(model, (x, y), names)
    ablated = census.ablate(model, (x, y), counted)
    counts = ablated.layers["hidden"]
    rows = {f"ablated_{group}_{measure}" for group in GROUPS for measure in ("loss", "metric")}
    assert set(counts.figures()) - set(counted.layers["hidden"].figures()) == rows
    assert counted.layers["hidden"].ablated_loss is None and not any("ablation" in n for n in counted.notes)
    for number, group in enumerate(GROUPS):
        assert counts.figures()[f"ablated_{group}_loss"] == counts.ablated_loss[number]
    assert "  without dead        +0, +0 " in str(ablated)
    alone = replace(counts, ablated_metric=None)
    assert "  without dead        +0 " in str(census.Census({"hidden": alone}))
    again = Counts.from_dict(counts.to_dict())
    np.testing.assert_array_equal(again.ablated_loss, counts.ablated_loss)
    np.testing.assert_array_equal(again.ablated_metric, counts.ablated_metric)
    assert counts.merge(counts).ablated_loss is None
    twice = census.ablate(model, (x, y), ablated)
    assert sum("ablation" in note for note in twice.notes) == 1


def test_the_model_and_its_metrics_are_not_changed():
    model, names, x = deep(0)
    y = np.random.default_rng(0).integers(0, CLASSES, len(x))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.evaluate(x, y, verbose=0)
    weights, metrics = model.get_weights(), [m.result() for m in model.metrics]
    census.ablate(model, (x, y), census.count(model, x, names))
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert str(metrics) == str([m.result() for m in model.metrics])


def test_a_recurrent_layer_is_silenced_at_its_output_and_time_steps_together():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4, 6)).astype("float32"), rng.integers(0, CLASSES, 40)
    for layer in (
        layers.GRU(5, return_sequences=True, name="l"),
        layers.TimeDistributed(layers.Dense(5, "relu"), name="l"),
    ):
        model = keras.Sequential([keras.Input((4, 6)), layer, layers.Flatten(), layers.Dense(CLASSES)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        counted = census.count(model, x, "all")
        (counts,) = counted.layers.values()
        counts.active = np.array([0, 0, 40, 40, 40])  # units 0 and 1 are called dead
        (counts,) = census.ablate(model, (x, y), counted).layers.values()
        kernel, bias = (np.array(w) for w in model.layers[-1].get_weights())
        whole = model.evaluate(x, y, verbose=0)
        kernel.reshape(4, 5, CLASSES)[:, :2] = 0
        model.layers[-1].set_weights([kernel, bias])
        assert counts.ablated_loss[0] == pytest.approx(model.evaluate(x, y, verbose=0) - whole, abs=1e-5)
        assert abs(counts.ablated_loss[0]) > 1e-3


def test_units_on_the_first_axis():
    inputs = keras.Input((4, 8, 6))
    x = layers.AveragePooling2D(2, data_format="channels_first")(inputs)
    x = layers.ReLU(name="map")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = keras.Model(inputs, layers.Dense(CLASSES, name="out")(x))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4, 8, 6)).astype("float32"), rng.integers(0, CLASSES, 20)
    counted = census.count(model, x, ["map"])
    counted.layers["map"].active = np.array([20, 0, 20, 20])
    change = census.ablate(model, (x, y), counted).layers["map"].ablated_loss[0]
    whole = model.evaluate(x, y, verbose=0)
    kernel, bias = (np.array(w) for w in model.get_layer("out").get_weights())
    kernel[1] = 0
    model.get_layer("out").set_weights([kernel, bias])
    assert change == pytest.approx(model.evaluate(x, y, verbose=0) - whole, abs=1e-6) and change != 0


def test_errors_are_one_line():
    model, names, x = dense(0)
    counted = census.count(model, x, names)
    with pytest.raises(UsageError, match="ablation needs the loss of a compiled model"):
        census.ablate(model, (x, x), counted)
    model.compile("sgd", "mse")
    with pytest.raises(UsageError, match=r"ablation needs labels: data must be \(x, y\)"):
        census.ablate(model, x, counted)
    with pytest.raises(UsageError, match="has no layer 'hiden'; did you mean 'hidden'"):
        census.ablate(model, (x, x), census.Census({"hiden": counted.layers["hidden"]}))
    counted.layers["hidden"].nonfinite = 3
    assert "ablated_loss" not in census.ablate(model, (x, x[:, :CLASSES]), counted).layers["hidden"].to_dict()
