import contextlib
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from bnhead import DeadUnits
from bnhead.census import count
from bnhead.census.step import StepCounter
from bnhead.errors import UsageError
from tests.census import zoo
from tests.census.interrupts import HOOKS, Interrupts


def data(inputs=96):
    rng = np.random.default_rng(0)
    return rng.normal(size=(inputs, 6, 6, 2)).astype("float32"), rng.integers(0, 3, inputs)


def net(learning_rate=0.0, **options):
    """A net with a map, a nested model, an operation and a vector to count; its weights stay at rate 0."""
    inside = keras.Sequential(
        [keras.Input((6, 6, 4)), layers.Conv2D(5, 3, activation="relu", name="map")], name="inside"
    )
    inputs = keras.Input((6, 6, 2), name="image")
    x = inside(layers.LeakyReLU(name="leaky")(layers.Conv2D(4, 1, name="first")(inputs)))
    x = keras.ops.relu(layers.GlobalAveragePooling2D()(x) - 0.1)
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(16, "relu", name="fc")(x)))
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(learning_rate), loss, **options)
    return model


def fit(model, *callbacks, **options):
    options = {"batch_size": 32, "verbose": 0, "shuffle": False, **options}
    return model.fit(*data(), callbacks=list(callbacks), **options).history


@pytest.mark.parametrize(
    "options", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True}]
)
def test_at_constant_weights_it_counts_like_a_probe(options):
    model = net(**options)
    dead_units = DeadUnits(layers="all", inputs_per_step=None, figures="all")
    history = fit(model, dead_units, epochs=2)
    probed = count(model, data()[0], "all", batch_size=32)
    assert list(dead_units.census.layers) == list(probed.layers) and len(probed.layers) == 4
    for name, counts in dead_units.census.layers.items():
        np.testing.assert_array_equal(counts.inputs_by_silent, probed.layers[name].inputs_by_silent)
        np.testing.assert_array_equal(counts.active, probed.layers[name].active)
        np.testing.assert_array_equal(counts.active_everywhere, probed.layers[name].active_everywhere)
        assert counts.inputs == 96  # of one epoch, not of both
    assert history["dead/fc/per_input"] == pytest.approx([probed.layers["fc"].figures()["per_input"]] * 2)
    assert 0 < history["dead/inside/map/per_input"][0] < 1


def test_the_first_inputs_of_each_batch():
    model, dead_units = net(), DeadUnits(layers=["fc"], inputs_per_step=10)
    fit(model, dead_units, batch_size=40)  # 40, 40, 16
    x = data()[0]
    probed = count(model, np.concatenate([x[:10], x[40:50], x[80:90]]), ["fc"]).layers["fc"]
    assert dead_units.census.layers["fc"].inputs == 30
    np.testing.assert_array_equal(dead_units.census.layers["fc"].active, probed.active)


def test_training_and_saved_files_are_the_same_with_and_without_it(tmp_path):
    results = []
    for callbacks in ([], [DeadUnits(layers="all")]):
        model = net(0.1)
        keras.utils.set_random_seed(0)
        history = fit(model, *callbacks, epochs=3, shuffle=True)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        results.append((history["loss"], model.get_weights(), loaded.get_config()["layers"].__len__()))
        assert "train_step" not in vars(model) and not any("call" in vars(layer) for layer in model.layers)
        assert len(model.variables) == len(loaded.variables)
    assert results[0][0] == results[1][0] and results[0][2] == results[1][2]
    for expected, actual in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_afterwards_the_step_counts_no_more():
    model, dead_units = net(), DeadUnits(layers=["fc"])
    fit(model, dead_units)
    inputs = dead_units.census.layers["fc"].inputs
    fit(model)
    assert dead_units._step.census().layers["fc"].inputs == inputs


def test_a_second_fit_counts_again():
    model, dead_units = net(), DeadUnits(layers=["fc"], inputs_per_step=None)
    first, second = fit(model, dead_units), fit(model, dead_units)
    assert first["dead/fc/per_input"] == second["dead/fc/per_input"]
    assert dead_units.census.layers["fc"].inputs == 96


def test_nan_in_a_training_batch_is_unknown():
    model, dead_units = net(), DeadUnits(layers=["fc"], inputs_per_step=None)
    x, y = data()
    x[50] = np.nan
    model.fit(x, y, batch_size=32, verbose=0, shuffle=False, callbacks=[dead_units])
    counts = dead_units.census.layers["fc"]
    assert "first on input 50, at input 'image'" in counts.unknown


@pytest.mark.parametrize(
    "hook", [h if h == HOOKS[-1] else pytest.param(h, marks=pytest.mark.slow) for h in HOOKS]
)
def test_a_model_whose_training_was_interrupted_trains_and_counts_as_before(hook):
    results = []
    for interrupted in (False, True):
        keras.backend.clear_session()  # operations are numbered through the session
        model = net(0.1)
        weights = model.get_weights()
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                fit(model, DeadUnits(layers="all"), Interrupts(hook))
            model.set_weights(weights)
        dead_units = DeadUnits(layers="all", inputs_per_step=None)
        history = fit(model, dead_units)
        history["loss"] += fit(model)["loss"]
        results.append((history, model.get_weights()))
        assert dead_units.census.layers["fc"].inputs == 96
        assert not any("call" in vars(layer) for layer in model.layers)
    np.testing.assert_equal(results[0][0], results[1][0])
    for expected, actual in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_two_callbacks_count_the_same_and_are_both_removed():
    model, first, second = net(), DeadUnits(layers=["fc"]), DeadUnits(layers="all")
    fit(model, first, second)
    np.testing.assert_array_equal(first.census.layers["fc"].active, second.census.layers["fc"].active)
    assert "train_step" not in vars(model) and "stateless_call" not in vars(model)
    fit(model)
    fit(model, DeadUnits(layers=["fc"]))


def test_evaluating_leaves_the_model_as_it_was():
    model = net()
    model.evaluate(*data(), verbose=0, callbacks=[DeadUnits()])
    assert "train_step" not in vars(model)
    dead_units = DeadUnits(layers=["fc"], inputs_per_step=None)
    model.fit(*data(), batch_size=32, verbose=0, validation_data=data(), callbacks=[dead_units])
    assert dead_units.census.layers["fc"].inputs == 96  # validation does not end the counting
    assert "train_step" not in vars(model)


def test_a_training_step_of_the_instance_is_restored():
    model, steps = net(), []
    plain = model.train_step

    def recording(batch):
        steps.append(1)
        return plain(batch)

    model.train_step = recording
    fit(model, DeadUnits(layers=["fc"]))
    assert steps and vars(model)["train_step"] is recording


def test_a_layer_called_twice_is_counted_at_each_call():
    relu, inputs = layers.ReLU(name="relu"), keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(relu(layers.Dense(4)(relu(inputs)))))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, dead_units = np.random.default_rng(0).normal(size=(64, 6)).astype("float32"), DeadUnits(
        layers="all", inputs_per_step=None)  # fmt: skip
    model.fit(x, np.zeros((64, 3)), verbose=0, callbacks=[dead_units])
    probed = count(model, x, "all").layers
    assert list(dead_units.census.layers) == list(probed) == ["relu", "relu#2"]
    for name, counts in probed.items():
        np.testing.assert_array_equal(dead_units.census.layers[name].active, counts.active)


def test_numbers_that_make_no_sense():
    with pytest.raises(UsageError, match="inputs_per_step must be at least 1 or None, got 0"):
        StepCounter(net(), inputs_per_step=0)
    with pytest.raises(UsageError, match="eps must be at least 0, got -1"):
        StepCounter(net(), eps=-1)


def run_in_process(backend, **environment):
    """Runs this file in a separate process; `__main__` below runs the checks."""
    root = str(Path(__file__).parents[2])
    variables = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    process = subprocess.run(
        [sys.executable, __file__], env=variables | environment, capture_output=True, text=True
    )
    assert process.returncode == 0 and process.stdout.startswith("as expected"), process.stderr[-3000:]


@pytest.mark.slow
def test_on_two_replicas():
    run_in_process("tensorflow", REPLICAS="2")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_another_backend(backend):
    pytest.importorskip(backend)
    run_in_process(backend)


def mirrored(replicas):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)]).scope()


def no_numpy_on_tensors():
    """torch: a tensor that NumPy reads is an error, as on a GPU; on a CPU nothing else would show it.

    Keras' own conversion first brings the tensor to the CPU, so it is allowed.
    """
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import inspect
    from unittest import mock

    import torch

    original = torch.Tensor.__array__

    def refused(tensor, *arguments, **keywords):
        assert any(frame.function == "convert_to_numpy" for frame in inspect.stack()), "NumPy reads a tensor"
        return original(tensor, *arguments, **keywords)

    return mock.patch.object(torch.Tensor, "__array__", refused)


def check_both_ways_of_counting():
    """The probe and the step against NumPy on `predict`, for the vector; gradients and slopes run at all."""
    replicas = int(os.environ.get("REPLICAS", "1"))
    with mirrored(replicas) if replicas > 1 else contextlib.nullcontext():
        model = net()
    x, y = data()
    inside, probed = DeadUnits(layers="all", inputs_per_step=None), DeadUnits((x, y), "all", gradients=True)
    with no_numpy_on_tensors():
        fit(model, inside, probed)
    loud = keras.Model(model.inputs, model.get_layer("fc").output).predict(x, verbose=0) > 0
    for dead_units in (inside, probed):
        np.testing.assert_array_equal(dead_units.census.layers["fc"].active, loud.sum(0))
    for name, counts in inside.census.layers.items():
        np.testing.assert_array_equal(counts.inputs_by_silent, probed.census.layers[name].inputs_by_silent)
    silent = ~loud.any(0)
    assert probed.census.layers["fc"].gradient_dead[silent].all()
    assert not probed.census.layers["fc"].gradient_dead[~silent].any()
    assert count(model, x, ["leaky"], by="slope", eps=0.3).figures()["dead/leaky/per_input"] >= 0
    x[70] = np.nan
    model.fit(x, y, batch_size=32, verbose=0, shuffle=False, callbacks=[inside])
    counts = inside.census.layers["fc"]
    assert "values are not finite" in counts.unknown, counts.unknown
    if replicas == 1:
        assert counts.first_nonfinite == 70


if __name__ == "__main__":
    check_both_ways_of_counting()
    print("as expected on", keras.backend.backend())


class TwoViews(keras.Model):
    """A training step that runs the model on two views of its batch, as SimCLR does."""

    def train_step(self, batch):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        self(x + 1.0, training=True)
        self(x - 1.0, training=True)
        return super().train_step((x, y))


class NoModel(keras.Model):
    """A training step that runs a part of the model, called by itself."""

    def train_step(self, batch):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        self.get_layer("first")(x)
        return {"loss": keras.ops.sum(x)}


def model_with_step(model_class):
    inputs = keras.Input((6,))
    h = layers.Dense(8, "relu", name="second")(layers.Dense(5, "relu", name="first")(inputs))
    model = model_class(inputs=inputs, outputs=layers.Dense(3)(h))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model, np.random.default_rng(0).normal(size=(64, 6)).astype("float32")


def test_every_pass_of_a_users_step_counts():
    model, x = model_with_step(TwoViews)
    dead_units = DeadUnits(layers="all", inputs_per_step=None)
    model.fit(x, np.zeros((64, 3)), batch_size=32, verbose=0, callbacks=[dead_units])
    expected = count(model, np.concatenate([x + 1, x - 1, x]), "all")
    for name, counts in dead_units.census.layers.items():
        assert counts.inputs == 192
        np.testing.assert_array_equal(counts.active, expected.layers[name].active)


def test_a_layer_that_a_step_does_not_run_is_unknown():
    model, x = model_with_step(NoModel)
    dead_units = DeadUnits(layers="all", inputs_per_step=None, figures="all")
    history = model.fit(x, np.zeros((64, 3)), batch_size=32, verbose=0, callbacks=[dead_units]).history
    first, second = dead_units.census.layers.values()
    np.testing.assert_array_equal(first.active, count(model, x, ["first"]).layers["first"].active)
    assert second.unknown == "no inputs were counted" and "dead/second/dataset" not in history


def test_a_missing_layer_of_a_subclassed_model_is_an_error_in_the_first_step():
    model, x = zoo.CASES["subclassed"].build()
    model.compile("sgd", "mse")
    with pytest.raises(UsageError, match="has no layer 'fk'; did you mean 'fc'"):
        model.fit(x, np.zeros((len(x), 3)), verbose=0, callbacks=[DeadUnits(layers=["fk"])])


def test_a_sequential_model_that_fit_builds_is_counted_in_the_step():
    model = keras.Sequential([layers.Dense(8, "relu", name="fc"), layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    dead_units = DeadUnits(inputs_per_step=None)
    model.fit(x, np.zeros((64, 3)), verbose=0, callbacks=[dead_units])
    np.testing.assert_array_equal(dead_units.census.layers["fc"].active, count(model, x).layers["fc"].active)
