import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.runs.checkpoints import FOLDER, Checkpoint, decode_checkpoint, encode_checkpoint
from bnhead.runs.directory import RunDirectory
from bnhead.training.state import Best, best_state, captured, fit, restore, variables

STEPS = 4


def small(units=3):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((2,)),
        keras.layers.Dense(units, name="dense"),
        keras.layers.BatchNormalization(name="bn"),
        keras.layers.Dropout(0.5, name="dropout"),
        keras.layers.Dense(1, name="out"),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, name="sgd"), "mse", metrics=["mae"])
    return model


def feed(epoch, step, epochs=3):
    """Batches that tell which they are."""
    rows = slice(epoch * STEPS + step, (epoch + epochs) * STEPS)
    x = np.arange(STEPS * 3 * 8 * 2, dtype="float32").reshape(-1, 8, 2)[rows] % 7
    return tf.data.Dataset.from_tensor_slices((x, x.sum(-1, keepdims=True)))


FEED = types.SimpleNamespace(train=feed, steps=STEPS, epochs=3)


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append(("begin", self.params["epochs"], self.params["steps"]))

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("batch begins", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("batch", batch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch", epoch, sorted(logs)))

    def on_train_end(self, logs=None):
        self.calls.append(("end",))


def test_every_kind_of_state_is_among_the_variables():
    model = small()
    model.fit(feed(0, 0), epochs=1, steps_per_epoch=1, verbose=0, shuffle=False)
    names = {name.split("/")[1].removeprefix("sequential_") for name in variables(model)}
    assert {"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"} <= names
    assert {"seed_generator_state", "iteration", "learning_rate", "dense_kernel_momentum"} <= names
    assert {"total", "count"} <= names, "the metrics'"


def test_values_are_copies_and_come_back():
    model = small()
    initial = captured(model)
    assert set(initial) == set(variables(model))
    model.fit(feed(0, 0), epochs=1, steps_per_epoch=2, verbose=0, shuffle=False)
    trained = captured(model)  # the metrics have variables now
    changed = {name for name in initial if initial[name].tobytes() != trained[name].tobytes()}
    assert any("seed" in name for name in changed) and any("momentum" in name for name in changed)
    assert len(changed) > 8
    restore(model, {**trained, **initial})
    for name, value in captured(model).items():
        assert value.tobytes() == {**trained, **initial}[name].tobytes()


def test_values_of_two_bytes_come_back_from_a_file():
    def net(seed):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, dtype="bfloat16")])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        return model

    model, second = net(0), net(1)
    arrays = captured(model)
    restore(second, decode_checkpoint(encode_checkpoint(Checkpoint({}, 1, arrays, {}))).arrays)
    for name, value in captured(second).items():
        assert value.dtype == arrays[name].dtype and value.tobytes() == arrays[name].tobytes()


@pytest.mark.parametrize("change", ["other shape", "too few", "too many"])
def test_another_nets_values_change_nothing(change):
    model = small()
    arrays = {name: value + 1 for name, value in captured(model).items()}
    if change == "other shape":
        arrays = captured(small(units=4))
    elif change == "too few":
        arrays.popitem()
    else:
        arrays["00099/kernel"] = np.zeros(1)
    initial = captured(model)
    with pytest.raises(ValueError, match="it is of another net: "):
        restore(model, arrays)
    for name, value in captured(model).items():
        assert value.tobytes() == initial[name].tobytes()


@pytest.mark.parametrize("step", [0, 1, 3, 4, 9])
def test_callbacks_see_one_training_from_the_step_on(step):
    recorder, model = Seen(), small()
    fit(model, FEED, [recorder], step, feed(0, 0).take(1))
    assert recorder.calls[0] == ("begin", 3, STEPS) and recorder.calls[-1] == ("end",)
    assert [call for call in recorder.calls if call[0] in ("begin", "end")] == [
        recorder.calls[0],
        recorder.calls[-1],
    ]
    for event in ("batch begins", "batch"):
        assert [call[1] for call in recorder.calls if call[0] == event] == [
            i % STEPS for i in range(step, 3 * STEPS)
        ]
    assert [call[1] for call in recorder.calls if call[0] == "epoch"] == list(range(step // STEPS, 3))
    assert all(
        call[2] == ["loss", "mae", "val_loss", "val_mae"] for call in recorder.calls if call[0] == "epoch"
    )
    assert int(model.optimizer.iterations) == 3 * STEPS - step


def test_where_all_epochs_are_done_callbacks_begin_and_end():
    recorder = Seen()
    fit(small(), FEED, [recorder], 3 * STEPS)
    assert recorder.calls == [("begin", 3, STEPS), ("end",)]


def test_the_rest_of_a_training_ends_in_the_same_bits():
    uninterrupted = small()
    fit(uninterrupted, FEED, [])
    part, resumed = small(), small()
    part.fit(feed(0, 0), epochs=1, steps_per_epoch=STEPS, verbose=0, shuffle=False)
    part.fit(feed(1, 0), epochs=1, steps_per_epoch=2, verbose=0, shuffle=False)
    arrays = captured(part)
    resumed.compute_metrics(None, np.zeros((2, 1)), np.zeros((2, 1)))
    restore(resumed, arrays)
    fit(resumed, FEED, [], STEPS + 2)
    for first, second in zip(captured(uninterrupted).values(), captured(resumed).values(), strict=True):
        assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("step", [0, 3, 6])
def test_executions_that_do_not_divide_the_epoch_end_with_it(step):
    """Of 4 steps by 3: an execution of 3 and one of 1, never of the next epoch's first."""
    one, three, recorder = small(), small(), Seen()
    three.steps_per_execution = 3
    fit(one, FEED, [], step)
    fit(three, FEED, [recorder], step)
    assert int(three.optimizer.iterations) == int(one.optimizer.iterations) == 3 * STEPS - step
    for name, value in captured(three).items():
        np.testing.assert_allclose(value, captured(one)[name], rtol=1e-6, atol=1e-7)
    ends = [call[1] for call in recorder.calls if call[0] == "batch"]
    assert ends[-2:] == [2, 5], "from the last batch on a callback takes the epoch for complete"
    assert [call[1] for call in recorder.calls if call[0] == "epoch"] == list(range(step // STEPS, 3))


def test_a_stop_in_the_first_part_is_a_stop():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    recorder = Seen()
    fit(small(), FEED, [recorder, Stop()], 1)
    assert [call[1] for call in recorder.calls if call[0] == "epoch"] == [0]


SETTINGS = {"seed": 1}


@pytest.fixture
def one_weight():
    """A net of one weight, whose figure is that weight."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="only")
    net = keras.Sequential([keras.Input((1,)), layer])

    def height(y_true, y_pred):
        return y_pred

    net.compile(keras.optimizers.SGD(name="sgd"), "mse", metrics=[height])
    return net


def validation():
    return tf.data.Dataset.from_tensor_slices((np.ones((2, 4, 1), "float32"), np.zeros((2, 4, 1), "float32")))


def end_epochs(model, best, values):
    """Epochs at whose ends the weight has these values."""
    logs = []
    best.set_model(model)
    for epoch, value in enumerate(values):
        model.get_layer("only").kernel.assign([[value]])
        logs.append({})
        best.on_epoch_end(epoch, logs[-1])
    return logs


def test_the_highest_value_counts_and_the_first_of_equals(one_weight, tmp_path):
    best = Best(validation(), "height", RunDirectory(tmp_path), SETTINGS)
    logs = end_epochs(one_weight, best, [0.25, 0.75, 0.5, 0.75])
    assert best.record == {"epoch": 2, "value": 0.75}
    assert [log["validation_height"] for log in logs] == [0.25, 0.75, 0.5, 0.75]
    assert logs[0]["validation_loss"] == pytest.approx(0.0625)
    state = best_state(RunDirectory(tmp_path))
    assert state.step == 2 and state.settings == SETTINGS
    kernel = next(value for name, value in state.arrays.items() if name.endswith("kernel"))
    assert kernel == 0.75


def test_what_came_before_is_not_forgotten(one_weight, tmp_path):
    best = Best(validation(), "height", RunDirectory(tmp_path), SETTINGS)
    best.record = {"epoch": 7, "value": 0.6}
    end_epochs(one_weight, best, [0.5])
    assert best.record == {"epoch": 7, "value": 0.6} and not (tmp_path / "checkpoints").exists()
    assert json.dumps(best.record), "it goes into checkpoints"


def test_a_training_that_was_stopped_has_no_best_epoch_there(one_weight, tmp_path):
    best = Best(validation(), "height", RunDirectory(tmp_path), SETTINGS)
    one_weight.stop_training = True
    end_epochs(one_weight, best, [0.5, float("nan")])
    assert best.record == {}


def test_a_damaged_state_is_an_error(one_weight, tmp_path):
    best = Best(validation(), "height", RunDirectory(tmp_path), SETTINGS)
    end_epochs(one_weight, best, [0.5])
    path = tmp_path / FOLDER / "best"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not those that were written"):
        best_state(RunDirectory(tmp_path))
