import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from bnhead import DeadUnits
from bnhead.census import count
from bnhead.census.counters import FIGURES
from bnhead.errors import UsageError


def somebodys_model():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(16, "relu", name="hidden"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=False)
    return model


def somebodys_data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 6)).astype("float32"), rng.integers(0, 3, 90)


def fit(model, *callbacks, epochs=3):
    return model.fit(
        *somebodys_data(), epochs=epochs, batch_size=32, verbose=0, callbacks=list(callbacks)
    ).history


@pytest.mark.parametrize("kind", ["array", "tuple", "dataset"])
def test_history_has_a_figure_for_each_epoch(kind):
    x, y = somebodys_data()
    data = {"array": x, "tuple": (x, y), "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(40)}[
        kind
    ]
    model, dead_units = somebodys_model(), DeadUnits(data)
    history = fit(model, dead_units)
    asked = {"blocks_p", "gradient_dead", "patterns"} | ({"class_dead"} if kind == "array" else set())
    expected = [f"dead/hidden/{name}" for name in FIGURES if name not in asked]
    assert [key for key in history if key.startswith("dead/")] == expected
    assert all(len(values) == 3 for values in history.values())
    after = count(model, x if kind == "array" else (x, y)).figures()
    assert {key: history[key][-1] for key in after} == dead_units.census.figures() == pytest.approx(after)
    assert 0 < after["dead/hidden/per_input"] < 1


def test_a_callback_behind_it_sees_the_figures_one_before_it_does_not():
    seen = {}

    class Look(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_epoch_end(self, epoch, logs=None):
            seen[self.name] = "dead/hidden/per_input" in logs

    fit(somebodys_model(), Look("before"), DeadUnits(somebodys_data()), Look("behind"))
    assert seen == {"before": False, "behind": True}


def test_keras_tensorboard_behind_it_writes_the_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    history = fit(somebodys_model(), DeadUnits(somebodys_data()), board)
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    written = [tf.make_ndarray(e.tensor_proto) for e in events.Tensors("epoch_dead/hidden/per_input")]
    assert written == pytest.approx(history["dead/hidden/per_input"])


def test_training_is_the_same_with_and_without_it():
    start = somebodys_model().get_weights()
    weights = []
    for callbacks in ([], [DeadUnits(somebodys_data())]):
        model = somebodys_model()
        model.set_weights(start)
        keras.utils.set_random_seed(0)
        fit(model, *callbacks)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_callback_serves_two_models_one_after_the_other():
    dead_units = DeadUnits(somebodys_data(), ["hidden"])
    first, second = somebodys_model(), somebodys_model()
    fit(first, dead_units, epochs=1)
    fit(second, dead_units, epochs=1)
    assert dead_units.census.figures() == count(second, somebodys_data()).figures()


def test_a_sequential_model_without_an_input_is_counted_once_it_is_built():
    model = keras.Sequential([layers.Dense(16, "relu", name="hidden"), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    assert "dead/hidden/dataset" in fit(model, DeadUnits(somebodys_data()))


def test_a_layer_that_is_not_there_is_said_before_training():
    model = somebodys_model()
    start = model.get_weights()
    with pytest.raises(UsageError, match="has no layer 'hiddn'; did you mean 'hidden'"):
        fit(model, DeadUnits(somebodys_data(), ["hiddn"]))
    np.testing.assert_array_equal(model.get_weights()[0], start[0])
