import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.runs import checkpoints
from bnhead.runs.directory import RunDirectory
from bnhead.training.best import Best, best_state

SETTINGS = {"seed": 1}


@pytest.fixture
def model():
    """A net of one weight, whose figure is that weight."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="only")
    net = keras.Sequential([keras.Input((1,)), layer])

    def height(y_true, y_pred):
        return y_pred

    net.compile(keras.optimizers.SGD(name="sgd"), "mse", metrics=[height])
    return net


def held_out():
    return tf.data.Dataset.from_tensor_slices((np.ones((2, 4, 1), "float32"), np.zeros((2, 4, 1), "float32")))


def after(model, best, values):
    """Epochs at whose ends the weight has these values."""
    logs = []
    best.set_model(model)
    for epoch, value in enumerate(values):
        model.get_layer("only").kernel.assign([[value]])
        logs.append({})
        best.on_epoch_end(epoch, logs[-1])
    return logs


def test_the_highest_value_counts_and_the_first_of_equals(model, tmp_path):
    best = Best(held_out(), "height", RunDirectory(tmp_path), SETTINGS)
    logs = after(model, best, [0.25, 0.75, 0.5, 0.75])
    assert best.record == {"epoch": 2, "value": 0.75}
    assert [log["validation_height"] for log in logs] == [0.25, 0.75, 0.5, 0.75]
    assert logs[0]["validation_loss"] == pytest.approx(0.0625)
    state = best_state(RunDirectory(tmp_path))
    assert state.step == 2 and state.settings == SETTINGS
    kernel = next(value for name, value in state.arrays.items() if name.endswith("kernel"))
    assert kernel == 0.75


def test_what_came_before_is_not_forgotten(model, tmp_path):
    best = Best(held_out(), "height", RunDirectory(tmp_path), SETTINGS)
    best.record = {"epoch": 7, "value": 0.6}
    after(model, best, [0.5])
    assert best.record == {"epoch": 7, "value": 0.6} and not (tmp_path / "checkpoints").exists()
    assert json.dumps(best.record), "it goes into checkpoints"


def test_a_training_that_was_stopped_has_no_best_epoch_there(model, tmp_path):
    best = Best(held_out(), "height", RunDirectory(tmp_path), SETTINGS)
    model.stop_training = True
    after(model, best, [0.5, float("nan")])
    assert best.record == {}


def test_a_damaged_state_is_an_error(model, tmp_path):
    best = Best(held_out(), "height", RunDirectory(tmp_path), SETTINGS)
    after(model, best, [0.5])
    path = tmp_path / checkpoints.FOLDER / "best"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not those that were written"):
        best_state(RunDirectory(tmp_path))
