"""Stacked heads end as the same heads do when Keras trains them one by one."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from bnhead import heads
from bnhead.errors import UsageError
from bnhead.frozen.stacked import Stack, obstacle

EXAMPLES, FEATURES, CLASSES, BATCH = 150, 12, 5, 32  # the last batch has 22 examples
PLAIN = ("fc", "bn_fc", "fc_bn", "out", "fc_out_bn", "ln_fc", "bn-beta_fc-bias_tanh_dense7")


@pytest.fixture
def float64():
    policy = keras.config.dtype_policy()  # Keras keeps the first one, whatever the type of numbers is later
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)


def data():
    generator = np.random.default_rng(0)
    x = generator.gamma(1.0, 1.0, (EXAMPLES, FEATURES)).astype(keras.config.floatx())
    return x, generator.integers(0, CLASSES, EXAMPLES)


def order_of(seed):
    return np.random.default_rng(100 + seed).permutation(EXAMPLES)


def built(head, seed=0, units=8, rate=0.1, optimizer="SGD"):
    inputs = keras.Input((FEATURES,))
    counts = [30, 20, 40, 50, 10] if heads.parse(head).needs_labels else None
    model = heads.attach(
        head, inputs, inputs, CLASSES, name="m", seed=seed, fc_units=units, class_counts=counts
    )
    if optimizer == "SGD":
        schedule = keras.optimizers.schedules.CosineDecay(0.0, 12, warmup_target=rate, warmup_steps=3)
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=0.02)
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if v.name != "kernel"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    model.compile(optimizer, loss, weighted_metrics=metrics)
    return model


def stacked(settings, epochs=1):
    """The models of the settings, trained in one stack, and their logs."""
    x, y = data()
    stack = Stack(x, y)
    for number, setting in enumerate(settings):
        assert stack.add(built(**setting), setting.get("seed", 0)) == number
    seeds = {setting.get("seed", 0) for setting in settings}
    logs = [stack.epoch({seed: order_of(seed) for seed in seeds}, BATCH) for _ in range(epochs)]
    trained = [built(**setting) for setting in settings]
    for number, model in enumerate(trained):
        stack.assign(number, model)
    return trained, logs[-1]


def fitted(setting, epochs=1):
    """The model of the settings, trained by Keras' `fit`, and its log."""
    x, y = data()
    order, model = order_of(setting.get("seed", 0)), built(**setting)
    inputs = [x[order], y[order]] if len(model.inputs) > 1 else x[order]
    history = model.fit(inputs, y[order], batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0).history
    return model, {name: values[-1] for name, values in history.items()}


def assert_equal(model, expected, tolerance):
    pairs = [*zip(model.variables, expected.variables, strict=True)]
    pairs += zip(model.optimizer.variables, expected.optimizer.variables, strict=True)
    for variable, reference in pairs:
        ours, theirs = (keras.ops.convert_to_numpy(v).astype("float64") for v in (variable, reference))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=variable.path)


def test_equal_to_fit_in_float64(float64):
    """Two seeds; three widths of which 6 and 8 share tensors and 20 does not; two learning rates."""
    settings = [
        {"head": head, "seed": seed, "units": units, "rate": rate}
        for head in PLAIN
        for seed, units, rate in ((0, 8, 0.1), (0, 6, 0.1), (0, 20, 0.05), (1, 8, 0.02))
        if units == 8 or head == "fc_bn"
    ]
    models, logs = stacked(settings)
    for setting, model, log in zip(settings, models, logs, strict=True):
        expected, expected_log = fitted(setting)
        assert_equal(model, expected, 1e-9)
        assert log == pytest.approx(expected_log, abs=1e-9), setting


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD plain"])
def test_optimizers(float64, optimizer):
    made = {
        "Adam": lambda: keras.optimizers.Adam(0.01),
        "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
        "SGD plain": lambda: keras.optimizers.SGD(0.1),
    }[optimizer]
    models, _ = stacked([{"head": "bn_fc", "optimizer": made(), "units": u} for u in (8, 7)], epochs=2)
    expected, _ = fitted({"head": "bn_fc", "optimizer": made(), "units": 7}, epochs=2)
    assert_equal(models[1], expected, 1e-9)


def test_random_and_other_layers_as_fit_has_them():
    """Dropout, ghost and renormalised batch norms: the masks too are those of Keras, at each head's width."""
    texts = (
        "bn_dropout0.5_fc_dropout0.2",
        "gbn8_fc",
        "brn_fc",
        "noise_fc",
        "cdropout0.5_fc",
        "l2_fc",
        "center_fc",
    )
    settings = [{"head": head, "units": units} for head in texts for units in (8, 5)]
    models, logs = stacked(settings, epochs=2)
    for setting, model, log in zip(settings, models, logs, strict=True):
        expected, expected_log = fitted(setting, epochs=2)
        assert_equal(model, expected, 2e-6)
        assert log == pytest.approx(expected_log, abs=1e-5), setting


def test_padding_stays_zero_and_changes_nothing():
    """An activation whose value at 0 is not 0 would train the padding, if nothing masked it."""
    x, y = data()

    def sigmoid(units):
        inputs = keras.Input((FEATURES,))
        hidden = keras.layers.Dense(units, "sigmoid", kernel_initializer=keras.initializers.GlorotUniform(1))
        output = keras.layers.Dense(CLASSES, kernel_initializer=keras.initializers.GlorotUniform(2))
        model = keras.Model(inputs, output(hidden(inputs)))
        model.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    stack, narrow = Stack(x, y), sigmoid(5)
    stack.add(narrow)
    stack.add(sigmoid(8))
    stack.epoch({0: order_of(0)}, BATCH)
    (group,) = stack._programs[0].groups
    kernel = np.asarray(stack._states[0][0][0]["weights"]["1/kernel"])
    assert group.positions[0][0].units == 5 and kernel.shape == (2, 8, CLASSES)
    assert (kernel[0, 5:] == 0).all() and (kernel[1] != 0).all()
    stack.assign(0, narrow)
    expected = sigmoid(5)
    expected.fit(x[order_of(0)], y[order_of(0)], batch_size=BATCH, shuffle=False, verbose=0)
    assert_equal(narrow, expected, 1e-6)


def test_widths_are_padded_to_less_than_twice():
    x, y = data()
    stack = Stack(x, y)
    for units in (33, 64, 65, 100, 128, 17):
        stack.add(built("fc", units=units))
    stack._begin()
    groups = [[layers.units for layers in group.positions[0]] for group in stack._programs[0].groups]
    assert sorted(map(sorted, groups)) == [[17], [33, 64], [65, 100, 128]]


def test_a_function_of_several_units_is_not_padded():
    x, y = data()
    stack = Stack(x, y)
    for units in (5, 6):
        inputs = keras.Input((FEATURES,))
        hidden = keras.layers.Dense(units, "softmax")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(CLASSES)(hidden))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        stack.add(model)
    stack._begin()
    assert len(stack._programs[0].groups) == 2


def test_seeds_with_other_heads_have_programs_of_their_form(float64):
    settings = [{"head": "fc", "seed": 0}, {"head": "bn_fc", "seed": 0}, {"head": "fc", "seed": 1}]
    models, _ = stacked(settings)
    for setting, model in zip(settings, models, strict=True):
        assert_equal(model, fitted(setting)[0], 1e-9)


def test_obstacles():
    inputs = keras.Input((FEATURES,))
    regular = keras.layers.Dense(CLASSES, kernel_regularizer="l2")(inputs)
    two = keras.layers.Concatenate()([keras.layers.Dense(3)(inputs), keras.layers.Dense(2)(inputs)])
    twice = keras.layers.Dense(FEATURES)
    clipped = keras.optimizers.SGD(0.1, clipnorm=1.0)
    plain = keras.layers.Dense(CLASSES)(inputs)
    cases = {
        "has a regularizer": (regular, "sgd", "mse", None),
        "is not a layer of one input": (two, "sgd", "mse", None),
        "calls a layer twice": (twice(twice(inputs)), "sgd", "mse", None),
        "its optimizer has clipnorm": (plain, clipped, "mse", None),
        "its optimizer is Lion": (plain, "lion", "mse", None),
        "other metrics": (plain, "sgd", "mse", ["mae"]),
        "no mean": (plain, "sgd", keras.losses.MeanSquaredError(reduction="sum"), None),
        "": (plain, "sgd", "mse", None),
    }
    for text, (outputs, optimizer, loss, metrics) in cases.items():
        model = keras.Model(inputs, outputs)
        model.compile(optimizer, loss, metrics=metrics)
        reason = obstacle(model)
        assert text in reason and bool(reason) == bool(text), reason
    with pytest.raises(UsageError, match="cannot be stacked"):
        Stack(*data()).add(keras.Model(inputs, two))


JAX = """
import json, jax, keras, numpy as np, sys
sys.path.insert(0, {folder!r})
import test_stacked as t
heads = ("fc", 8), ("fc", 6), ("gbn8_dropout0.5_fc_bn", 6), ("bn_fc", 8)
settings = [dict(head=h, seed=s, units=u) for s in (0, 1) for h, u in heads]
worst, dtype = 0.0, sys.argv[1]
jax.config.update("jax_enable_x64", dtype == "float64")
keras.config.set_floatx(dtype)
x, _ = t.data()
models, _ = t.stacked(settings)
chosen = list(zip(settings, models))
for setting, model in chosen[1:4:2] if dtype == "float64" else chosen:
    single = t.stacked([setting])[0][0] if dtype == "float64" else t.fitted(setting)[0]
    ours, theirs = (np.asarray(m(x)) for m in (model, single))
    worst = max(worst, float(abs(ours - theirs).max()))
print(json.dumps([str(ours.dtype), worst]))
"""


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [pytest.param("float32", 1e-4, marks=pytest.mark.slow), ("float64", 1e-9)]
)
def test_on_jax(dtype, tolerance):
    """In float32 logits equal those of `fit`; in float64 those of a stack equal those of each head alone.

    Keras' own batch norm and schedules compute in float32 there, so `fit` is no reference for float64.
    """
    code = JAX.format(folder=str(pathlib.Path(__file__).parent))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code, dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    computed, worst = json.loads(done.stdout.splitlines()[-1])
    assert computed == dtype and worst < tolerance
