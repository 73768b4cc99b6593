import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from matplotlib import pyplot

from bnhead import DeadUnits
from bnhead.census import count
from bnhead.census.figures import OF_CHANGES, OF_COUNTS
from bnhead.errors import UsageError

CHANGES = [row.name for row in OF_CHANGES]


def users_model():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(16, "relu", name="hidden"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=False)
    return model


def users_data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 6)).astype("float32"), rng.integers(0, 3, 90)


def fit(model, *callbacks, epochs=3):
    return model.fit(
        *users_data(), epochs=epochs, batch_size=32, verbose=0, callbacks=list(callbacks)
    ).history


ABLATION = "ablated_loss", "ablated_metric"


@pytest.mark.parametrize("form", ["array", "tuple", "dataset"])
def test_history_has_a_figure_for_each_epoch(form):
    x, y = users_data()
    data = {"array": x, "tuple": (x, y), "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(40)}[
        form
    ]
    model, dead_units = users_model(), DeadUnits(data, figures="all")
    history = fit(model, dead_units)
    asked = {"groups", "gradient", "output_gradient", "together", "comoments", *ABLATION} | (
        {"class_active"} if form == "array" else set()
    )
    expected = [f"dead/hidden/{row.name}" for row in OF_COUNTS if row.needs not in asked]
    assert [key for key in history if key.startswith("dead/")][: len(expected)] == expected
    assert all(len(history[key]) == 3 for key in expected)
    assert len(history["dead/hidden/births"]) == 2, "the first count is compared with none"
    defined = {key: value for key, value in dead_units.latest.items() if np.isfinite(value)}
    assert {key: history[key][-1] for key in defined} == defined
    expected_last = count(model, x if form == "array" else (x, y)).figures()
    assert (
        {key: history[key][-1] for key in expected_last}
        == dead_units.census.figures()
        == pytest.approx(expected_last)
    )
    assert 0 < expected_last["dead/hidden/per_input"] < 1


def two_layers():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(16, "relu", name="one")])
    model.add(layers.Dense(4, "relu", name="two"))
    model.add(layers.Dense(3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


def test_two_figures_enter_the_logs_by_default():
    dead_units = DeadUnits(users_data())
    history = fit(users_model(), dead_units)
    assert [k for k in history if "dead" in k] == ["dead/hidden/dataset", "dead/hidden/per_input"]
    assert dead_units.histories["hidden"].figures["per_input"] == history["dead/hidden/per_input"]


def test_of_several_layers_the_two_figures_of_all_their_units_enter():
    dead_units = DeadUnits(users_data(), "all")
    history = fit(two_layers(), dead_units)
    assert [k for k in history if "dead" in k] == ["dead/dataset", "dead/per_input"]
    one, two = (dead_units.histories[layer].figures["per_input"] for layer in ("one", "two"))
    expected = [(16 * a + 4 * b) / 20 for a, b in zip(one, two, strict=True)]
    assert history["dead/per_input"] == pytest.approx(expected)
    frame = dead_units.to_frame()
    assert frame.loc[("two", 3), "per_input"] == two[2] and len(frame) == 6
    assert (
        dead_units.plot_raster("one").get_title() == "one" and dead_units.plot_raster().get_title() == "two"
    )
    pyplot.close("all")


def test_the_progress_bar_adds_one_short_line(capsys):
    printed = {}
    for name, callbacks in (("without", []), ("with", [DeadUnits(users_data(), "all")])):
        two_layers().fit(*users_data(), epochs=2, batch_size=90, callbacks=callbacks)
        lines = capsys.readouterr().out.splitlines()
        printed[name] = [line.rpartition("step - ")[2] for line in lines if "loss" in line]
    assert len(printed["with"]) == len(printed["without"])
    for bare, line in zip(printed["without"], printed["with"], strict=True):
        assert len(line) - len(bare) < 60 and "nan" not in line
    assert "dead/dataset: " in printed["with"][-1]


def test_the_figures_of_one_layer_can_stop_a_training():
    stops = keras.callbacks.EarlyStopping("dead/one/dataset", mode="max", patience=1)
    history = fit(two_layers(), DeadUnits(users_data(), "all", figures=["one/dataset"]), stops, epochs=9)
    assert [k for k in history if "dead" in k] == ["dead/one/dataset"] and len(history["loss"]) < 9


def test_a_figure_of_a_layer_that_is_not_counted():
    with pytest.raises(UsageError, match="figures: layer 'ones' was not counted; did you mean 'one'"):
        fit(two_layers(), DeadUnits(users_data(), "all", figures=["ones/dataset"]))


def test_nothing_was_counted_yet():
    with pytest.raises(UsageError, match="nothing was counted yet: fit the model with this callback"):
        DeadUnits(users_data()).plot_raster()


def test_only_a_later_callback_sees_the_figures():
    visible = {}

    class Look(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_epoch_end(self, epoch, logs=None):
            visible[self.name] = "dead/hidden/per_input" in logs

    fit(users_model(), Look("earlier"), DeadUnits(users_data()), Look("later"))
    assert visible == {"earlier": False, "later": True}


def test_a_later_keras_tensorboard_writes_the_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    history = fit(users_model(), DeadUnits(users_data()), board)
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    written = [tf.make_ndarray(e.tensor_proto) for e in events.Tensors("epoch_dead/hidden/per_input")]
    assert written == pytest.approx(history["dead/hidden/per_input"])


def test_training_is_the_same_with_and_without_it():
    start = users_model().get_weights()
    weights = []
    for callbacks in ([], [DeadUnits(users_data())]):
        model = users_model()
        model.set_weights(start)
        keras.utils.set_random_seed(0)
        fit(model, *callbacks)
        weights.append(model.get_weights())
    for expected, actual in zip(*weights, strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_one_callback_counts_two_models_in_turn():
    dead_units = DeadUnits(users_data(), ["hidden"])
    first, second = users_model(), users_model()
    fit(first, dead_units, epochs=1)
    fit(second, dead_units, epochs=1)
    assert dead_units.census.figures() == count(second, users_data()).figures()


def test_a_sequential_model_without_an_input_is_counted_once_it_is_built():
    model = keras.Sequential([layers.Dense(16, "relu", name="hidden"), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    assert "dead/hidden/dataset" in fit(model, DeadUnits(users_data()))


def test_a_missing_layer_is_an_error_before_training():
    model = users_model()
    start = model.get_weights()
    with pytest.raises(UsageError, match="has no layer 'hiddn'; did you mean 'hidden'"):
        fit(model, DeadUnits(users_data(), ["hiddn"]))
    np.testing.assert_array_equal(model.get_weights()[0], start[0])


def test_every_other_epoch_the_first_and_the_last(tmp_path):
    dead_units = DeadUnits(users_data()[0], every=3)
    history = fit(users_model(), dead_units, epochs=8)
    assert dead_units.histories["hidden"].epochs == [1, 3, 6, 8]
    assert history["dead/hidden/per_input"] == dead_units.histories["hidden"].figures["per_input"]
    assert len(history["loss"]) == 8 and len(history["dead/hidden/per_input"]) == 4


def test_births_deaths_and_revivals_are_those_between_counts():
    model = users_model()

    class Plant(keras.callbacks.Callback):
        """Sets which units of the hidden layer are dead, epoch by epoch."""

        dead = (slice(0, 6), slice(2, 8), slice(4, 6))

        def on_epoch_end(self, epoch, logs=None):
            bias = np.full(16, 50.0)
            bias[self.dead[epoch]] = -50
            self.model.get_layer("hidden").bias.assign(bias)

    dead_units = DeadUnits(users_data()[0])
    fit(model, Plant(), dead_units)
    rows = dead_units.histories["hidden"].figures
    assert rows["dataset"] == [6 / 16, 6 / 16, 2 / 16]
    assert np.isnan([rows[name][0] for name in CHANGES]).all()
    assert [rows["births"][1], rows["deaths"][1:]] == [2 / 16, [2 / 16, 0]]
    # at the last count units 2 and 3, never active so far, come alive, and 6 and 7, active at the first
    assert [rows["births"][2], rows["revivals"]] == [2 / 16, [pytest.approx(np.nan, nan_ok=True), 0, 2 / 16]]
    assert rows["persistence"][1:] == [4 / 6, 2 / 6]


def test_figures_that_enter_logs_can_be_chosen():
    history = fit(users_model(), DeadUnits(users_data()[0], figures=("dataset", "births")))
    assert [k for k in fit(users_model(), DeadUnits(users_data()[0], figures=())) if "dead" in k] == []
    assert [k for k in history if k.startswith("dead/")] == ["dead/hidden/dataset", "dead/hidden/births"]


def test_figures_and_pictures_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    dead_units = DeadUnits(users_data(), log_dir=str(tmp_path), together=True, pictures_every=2, revive=0.1)
    history = fit(users_model(), dead_units, epochs=5)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    steps = {tag: [e.step for e in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    assert steps["dead/hidden/per_input"] == steps["details/hidden/always_on"] == [1, 2, 3, 4, 5]
    assert steps["details/hidden/births"] == [2, 3, 4, 5], "NaN is not written"
    assert steps["plots/hidden/activity"] == steps["plots/hidden/classes"] == [1, 2, 4, 5]
    assert steps["plots/hidden/codeath"] == [1, 2, 4, 5] and steps["plots/hidden/raster"] == [2, 4, 5]
    written = [tf.make_ndarray(e.tensor_proto) for e in events.Tensors("dead/hidden/per_input")]
    assert written == pytest.approx(history["dead/hidden/per_input"])
    assert ("dead/revived" in steps) == bool(dead_units.revivals)
    at_the_end = tmp_path / "at_the_end"
    dead_units = DeadUnits(users_data(), log_dir=str(at_the_end), pictures_every=None)
    fit(users_model(), dead_units, epochs=3)
    events = EventAccumulator(str(at_the_end), size_guidance={"tensors": 0}).Reload()
    assert {e.step for tag in ("activity", "raster") for e in events.Tensors(f"plots/hidden/{tag}")} == {3}


def test_an_unknown_count_is_nan_in_the_histories_and_absent_from_logs():
    probe = users_data()[0].copy()
    probe[3, 0] = np.nan
    dead_units = DeadUnits(probe)
    history = fit(users_model(), dead_units, epochs=2)
    assert set(history) == {"loss"} and np.isfinite(history["loss"]).all()
    assert np.isnan(dead_units.histories["hidden"].figures["dataset"]).all()
    assert np.isnan(dead_units.histories["hidden"].activity).all()


def test_dormant_units_are_revived_after_every_epoch_but_the_last():
    model = users_model()
    model.get_layer("hidden").bias.assign(np.where(np.arange(16) < 5, -100.0, 0.0))
    dead_units = DeadUnits(users_data()[0], revive=0.0)
    history = fit(model, dead_units, epochs=3)
    (epoch, revival), *_ = dead_units.revivals
    assert epoch == 1 and set(revival.units) >= set(range(5)) and revival.layer == "hidden"
    assert all(epoch < 3 for epoch, _ in dead_units.revivals)
    assert history["dead/hidden/dataset"][0] >= 5 / 16 > history["dead/hidden/dataset"][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"pictures_every": 1.5}, "pictures_every must be a whole number of at least 1, got 1.5"),
        ({"figures": ["dataest"]}, "figures: 'dataest' is not known; did you mean 'dataset'"),
        ({"revive": 1.0}, r"revive must be a threshold in \[0, 1\), got 1.0"),
        ({"data": None, "revive": 0.1}, "gradients, together, clones, by and revive need data to count on"),
        (
            {"data": None, "together": True},
            "gradients, together, clones, by and revive need data to count on",
        ),
    ],
)
def test_arguments_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        DeadUnits(**{"data": users_data()[0], **options})


def test_two_probes_in_one_training_have_distinct_names():
    x, _ = users_data()
    history = fit(
        users_model(), DeadUnits(x[:40], prefix="train_"), DeadUnits(x[40:], prefix="val_"), epochs=1
    )
    assert {"train_dead/hidden/dataset", "val_dead/hidden/dataset"} <= set(history)
    assert history["train_dead/hidden/per_input"] != history["val_dead/hidden/per_input"]


class StopsAfter(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self.last = epochs - 1

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.last


@pytest.mark.parametrize("later", [False, True])
def test_the_last_epoch_of_a_training_that_is_stopped_early_is_counted(later):
    dead_units, stops = DeadUnits(users_data()[0], every=3), StopsAfter(5)
    model = users_model()
    history = fit(model, *((dead_units, stops) if later else (stops, dead_units)), epochs=9)
    assert dead_units.histories["hidden"].epochs == [1, 3, 5]
    assert dead_units.census.figures() == count(model, users_data()[0]).figures()
    assert len(history["dead/hidden/dataset"]) == (2 if later else 3)


def test_an_iterator_cannot_be_read_after_every_epoch():
    with pytest.raises(UsageError, match="data is read after every epoch, and a list_iterator only once"):
        DeadUnits(iter([np.zeros((4, 6))]))


def test_the_census_notes_averaged_weights():
    model = users_model()
    model.compile(keras.optimizers.SGD(0.5, use_ema=True), "mse", jit_compile=False)
    note = "weights: those that the model has now; use_ema puts their averages in place when fit ends"
    assert note in count(model, users_data()[0]).notes
    assert not count(users_model(), users_data()[0]).notes


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("data", [users_data()[0], None], ids=["probe", "step"])
def test_a_callback_that_was_used_can_be_copied_and_used_again(way, data):
    """Tuners and wrappers for scikit-learn copy the callbacks they are given."""
    used = DeadUnits(data)
    fit(users_model(), used)
    again = way(used)
    assert again.census.figures() == used.census.figures()
    assert again.histories.keys() == used.histories.keys()
    history = fit(users_model(), again)
    assert np.isfinite(history["dead/hidden/dataset"]).all()


def test_an_alert_names_a_layer_when_its_dead_units_exceed_a_share():
    model = users_model()
    kernel, bias = model.get_layer("hidden").get_weights()
    bias[:5] = -1e6
    model.get_layer("hidden").set_weights([kernel, bias])
    message = r"hidden: 5 of 16 units are dead \(31.2%\) on 90 inputs, more than alert=0.3$"
    with pytest.warns(UserWarning, match=message) as caught:
        fit(model, DeadUnits(users_data()[0], alert=0.3), epochs=3)
    alerts = [warning for warning in caught if "alert" in str(warning.message)]
    assert len(alerts) == 1, "once, not at every count"
    fit(model, DeadUnits(users_data()[0], alert=0.32))
    with pytest.raises(UsageError, match=r"alert must be a share in \[0, 1\], got 1.5"):
        DeadUnits(alert=1.5)
