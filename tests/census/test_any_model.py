"""Every model of the zoo: figures equal an independent reference, and counting changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from bnhead import DeadUnits
from bnhead.census import count
from tests.census import zoo
from tests.census.interrupts import HOOKS, Interrupts

CASES = [name for name, case in zoo.CASES.items() if keras.backend.backend() in case.backends]
FEW = ("random_at_inference", "transformer_blocks", "recurrent_and_stateful")


def test_the_table_is_large_enough():
    assert len(zoo.CASES) >= 35


def trains(name):
    """Whether Keras itself can train it; PyTorch cannot train a stateful recurrent layer twice."""
    stateful_on_torch = keras.backend.backend() == "torch" and "stateful" in name
    return zoo.CASES[name].trains and not stateful_on_torch


def built(name):
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    return zoo.CASES[name].build()


def data_of(x):
    return (x,) if isinstance(x, list | tuple) else x


def by_numpy(values, mask=None, eps=0.0):
    """The definitions, on `(rows, ..., units)` in float64; a row is an input."""
    a = values.reshape(len(values), -1, values.shape[-1])
    valid = np.ones(a.shape[:2], bool) if mask is None else mask
    loud = np.abs(a) > eps
    somewhere = (loud & valid[..., None]).any(1)
    everywhere = (loud | ~valid[..., None]).all(1)
    silent = ~somewhere
    runs = 1 + (silent[:, 1:] != silent[:, :-1]).sum(1)
    k, units = silent.sum(1), a.shape[-1]
    mean = 1 + 2 * k * (units - k) / units
    variance = (mean - 1) * (mean - 2) / (units - 1)
    defined = variance > 0
    weights = valid / np.maximum(valid.sum(1, keepdims=True), 1)
    return {
        "inputs_by_silent": np.bincount(k, minlength=units + 1),
        "active": somewhere.sum(0),
        "active_everywhere": everywhere.sum(0),
        "runs": [defined.sum(), ((runs - mean)[defined] / np.sqrt(variance[defined])).sum()],
        "magnitude": (np.abs(a) * weights[..., None]).sum((0, 1)),
    }


def check_figures(name):
    model, x = built(name)
    case = zoo.CASES[name]
    recorded = zoo.recorded(model, x)
    recorded = [values for i, values in enumerate(recorded) if i not in case.unseen]
    census = count(model, data_of(x), "all", batch_size=zoo.INPUTS)
    assert list(census.layers) == case.names
    assert len(recorded) == len(case.names), "an activation is neither counted nor listed"
    assert list(census.not_looked_at) == list(case.missed)
    for path, why in case.missed.items():
        assert why in census.not_looked_at[path]
    for site, values in zip(case.names, recorded, strict=True):
        if site in case.axes:
            values = np.moveaxis(values, case.axes[site], -1)
        counts = census.layers[site]
        for key, expected in by_numpy(values, case.masks.get(site)).items():
            if key in ("runs", "magnitude"):
                np.testing.assert_allclose(getattr(counts, key), expected, rtol=2e-3, atol=1e-5, err_msg=site)
            else:
                np.testing.assert_array_equal(getattr(counts, key), expected, err_msg=f"{site} {key}")


def fitted(name, how):
    """Predictions before training, and every variable after it, of a model that is counted or not.

    Args:
        how: "none", "probe", "step", or a callback's hook at which an earlier training was interrupted.
    """
    model, x = built(name)
    if how in HOOKS:
        interrupt(model, x, how)
    if how == "probe":
        count(model, data_of(x), "all", batch_size=zoo.INPUTS)
    outputs, inputs, y = prepared(model, x)
    earlier = [keras.ops.convert_to_numpy(output) for output in outputs]
    callbacks = {
        "none": [],
        "step": [DeadUnits(layers="all", inputs_per_step=None), DeadUnits(layers="all")],
        "probe": [DeadUnits(data_of(x), "all", batch_size=zoo.INPUTS)],
    }.get(how, [])
    model.fit(inputs, y, batch_size=zoo.INPUTS, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    later = [keras.ops.convert_to_numpy(v) for v in model.variables]
    if how == "step":
        for counts in callbacks[0].census.layers.values():
            assert counts.inputs > 0 and not counts.unknown
        assert not {"train_step", "stateless_call"} & set(vars(model))
    return earlier, later


def interrupt(model, x, hook):
    """A training that is interrupted while two callbacks count, and an evaluation; weights are put back."""
    start = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    states = [s for layer in model._flatten_layers() for s in (getattr(layer, "states", None) or ())]
    _, inputs, y = prepared(model, x)
    how = {"batch_size": zoo.INPUTS, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        probe = DeadUnits(data_of(x), batch_size=zoo.INPUTS)
        counting = [DeadUnits(layers="all"), DeadUnits(layers="all"), probe]
        model.fit(inputs, y, callbacks=[*counting, Interrupts(hook)], **how)
    model.evaluate(inputs, y, callbacks=[DeadUnits(layers="all")], **how)
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value)
    for state in states:
        state.assign(np.zeros(state.shape))


def prepared(model, x):
    """The model's outputs, and the inputs and targets of `fit`, for which the model is compiled."""
    outputs = keras.tree.flatten(model(x, training=False))
    targets = [np.zeros(tuple(output.shape), "float32") for output in outputs]
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    return outputs, tuple(x) if isinstance(x, list) else x, targets if len(targets) > 1 else targets[0]


def check_training(name, ways=("step", "probe")):
    exact = keras.backend.backend() == "tensorflow"
    plain = fitted(name, "none")
    for how in ways:
        for expected, actual in zip(plain, fitted(name, how), strict=True):
            for a, b in zip(expected, actual, strict=True):
                if exact:
                    np.testing.assert_array_equal(a, b, err_msg=f"{name} {how}")
                else:
                    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=f"{name} {how}")


def check_interruption(name):
    check_training(name, [HOOKS[len(name) % len(HOOKS)]])  # one of them: all are tried on TensorFlow


@pytest.mark.parametrize("name", CASES)
def test_figures_equal_those_of_numpy_on_an_eager_pass(name):
    check_figures(name)


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in CASES if trains(n)]
)
def test_counting_changes_neither_prediction_nor_training(name):
    check_training(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if trains(name)])
def test_an_interrupted_training_changes_no_later_one(name):
    check_training(name, HOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_another_backend(backend):
    pytest.importorskip(backend)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    process = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-2000:]


def failures():
    import traceback

    for name in sys.argv[1:] or CASES:
        for check in (check_figures, check_training, check_interruption):
            if check is check_figures or trains(name):
                try:
                    check(name)
                except Exception:
                    yield f"{name} {check.__name__}\n{traceback.format_exc()[-1500:]}"


if __name__ == "__main__":
    problems = list(failures())
    print("\n".join(problems))
    sys.exit(bool(problems))
