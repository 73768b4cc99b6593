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
# Models in the style of public examples combine what the rows of the other modules hold one by one.
EXAMPLES = ("generative", "geometry", "sequence", "tabular", "vision")
FEW_EXAMPLES = ("wavenet", "point_net_with_a_transform", "encoder_and_decoder", "variational_autoencoder")
FEW = ("random_at_inference", "transformer_blocks", "recurrent_and_stateful")
FEW_STEPS = ("subclassed", "with_a_train_step_of_its_own")
pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")  # of Keras, for a row on it


def test_the_table_is_large_enough():
    assert len(zoo.CASES) >= 90


def trains(name):
    """Whether Keras itself can train it; PyTorch cannot train a stateful recurrent layer twice."""
    stateful_on_torch = keras.backend.backend() == "torch" and "stateful" in name
    return zoo.CASES[name].trains and not stateful_on_torch


def built(name):
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    return zoo.CASES[name].build()


def part(case, model):
    """The model, or what is counted of it."""
    return getattr(model, case.part) if case.part else model


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
    variance = (mean - 1) * (mean - 2) / max(units - 1, 1)
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
    model = part(case, model)
    recorded = seen(case, zoo.recorded(model, x))
    census = count(model, data_of(x), "all", batch_size=zoo.INPUTS)
    assert list(census.layers) == case.names
    assert len(recorded) == len(case.names), "an activation is neither counted nor listed"
    assert list(census.not_looked_at) == list(case.missed)
    for path, why in case.missed.items():
        assert why in census.not_looked_at[path]
    for site, values in zip(case.names, recorded, strict=True):
        compare(case, census, site, [values])


def check_step(name):
    """Counts of one training step, in training mode, against those of an eager step."""
    case = zoo.CASES[name]
    sites = case.names if case.step is None else case.step
    eager, x = built(name)
    recorded = seen(case, zoo.recorded_step(eager, *case.prepare(eager, x), zoo.INPUTS))
    assert len(recorded) == len(sites), "an activation is neither counted nor listed"
    model, x = built(name)
    inputs, y = case.prepare(model, x)
    dead_units = DeadUnits(layers="all", inputs_per_step=None)
    model.fit(inputs, y, batch_size=zoo.INPUTS, shuffle=False, verbose=0, callbacks=[dead_units])
    assert set(dead_units.census.layers) == set(sites)
    for site in dict.fromkeys(sites):
        values = [array for array, each in zip(recorded, sites, strict=True) if each == site]
        compare(case, dead_units.census, site, values, ("inputs_by_silent", "active", "active_everywhere"))


def seen(case, recorded):
    """Without the activations that the case lists as not looked at."""
    return [values for i, values in enumerate(recorded) if i not in case.unseen]


def compare(case, census, site, passes, figures=None):
    """The counts of a site with the definitions on its values in each pass."""
    counts, axis = census.layers[site], case.axes.get(site, -1)
    expected = [by_numpy(np.moveaxis(values, axis, -1), case.masks.get(site)) for values in passes]
    for key in figures or expected[0]:
        total = sum(np.asarray(each[key]) for each in expected)
        if key in ("runs", "magnitude"):
            np.testing.assert_allclose(getattr(counts, key), total, case.tolerance, 1e-5, err_msg=site)
        else:
            np.testing.assert_array_equal(getattr(counts, key), total, err_msg=f"{site} {key}")


def fitted(name, how):
    """Predictions before training, and every variable after it, of a model that is counted or not.

    Args:
        how: "none"; "counted", before training, in its steps and after its epochs; or a callback's hook at
            which an earlier training was interrupted.
    """
    model, x = built(name)
    counted = part(zoo.CASES[name], model)
    if how in HOOKS:
        interrupt(name, model, x, how)
    if how == "counted":
        count(counted, data_of(x), "all", batch_size=zoo.INPUTS)
    earlier = [keras.ops.convert_to_numpy(o) for o in keras.tree.flatten(counted(x, training=False))]
    inputs, y = zoo.CASES[name].prepare(model, x)
    callbacks = []
    if how == "counted":
        callbacks = [DeadUnits(layers="all", inputs_per_step=None), DeadUnits(layers="all")]
        callbacks += [DeadUnits(data_of(x), "all", batch_size=zoo.INPUTS)] * (counted is model)
    model.fit(inputs, y, batch_size=zoo.INPUTS, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    later = [keras.ops.convert_to_numpy(v) for v in model.variables]
    if how == "counted":
        for counts in callbacks[0].census.layers.values():
            assert counts.inputs > 0 and not counts.unknown
        assert not {"train_step", "stateless_call"} & set(vars(model))
    return earlier, later


def interrupt(name, model, x, hook):
    """A training that is interrupted while two callbacks count, and an evaluation; weights are put back."""
    start = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    states = [s for layer in model._flatten_layers() for s in (getattr(layer, "states", None) or ())]
    inputs, y = zoo.CASES[name].prepare(model, x)
    how = {"batch_size": zoo.INPUTS, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        probe = DeadUnits(data_of(x), batch_size=zoo.INPUTS)
        counting = [DeadUnits(layers="all"), DeadUnits(layers="all"), probe]
        model.fit(inputs, y, callbacks=[*counting, Interrupts(hook)], **how)
    if zoo.CASES[name].evaluates:
        model.evaluate(inputs, y, callbacks=[DeadUnits(layers="all")], **how)
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value)
    for state in states:
        state.assign(np.zeros(state.shape))


def hook_of(name):
    return HOOKS[len(name) % len(HOOKS)]


def check_training(name, ways):
    exact = keras.backend.backend() == "tensorflow" and not zoo.CASES[name].rounds
    plain = fitted(name, "none")
    for how in ways:
        for expected, actual in zip(plain, fitted(name, how), strict=True):
            for a, b in zip(expected, actual, strict=True):
                if exact:
                    np.testing.assert_array_equal(a, b, err_msg=f"{name} {how}")
                else:
                    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=f"{name} {how}")


def is_example(name):
    return zoo.CASES[name].build.__module__.rpartition(".")[2] in EXAMPLES


def quick_or_slow(name, is_quick):
    return name if is_quick else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [quick_or_slow(n, n in FEW_EXAMPLES or not is_example(n)) for n in CASES])
def test_figures_equal_those_of_numpy_on_an_eager_pass(name):
    check_figures(name)


@pytest.mark.parametrize("name", [quick_or_slow(n, n in FEW) for n in CASES if trains(n)])
def test_counting_changes_neither_prediction_nor_training(name):
    """For each model an earlier training was interrupted at one hook; for a few, at all of them (below)."""
    check_training(name, ["counted"] if name in FEW else ["counted", hook_of(name)])


@pytest.mark.parametrize("name", [quick_or_slow(n, n in FEW_STEPS) for n in CASES if trains(n)])
def test_a_training_step_counts_what_numpy_counts_on_an_eager_one(name):
    check_step(name)


class Batches(keras.utils.PyDataset):
    """Batches of 5 of inputs in any structure, with targets."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return -(-zoo.INPUTS // 5)

    def __getitem__(self, index):
        part = slice(5 * index, 5 * index + 5)
        return keras.tree.map_structure(lambda leaf: leaf[part], (self.x, self.y))


@pytest.mark.parametrize("name", ["deep_and_cross", quick_or_slow("siamese", False)])
def test_batches_in_any_structure_give_the_counts_of_arrays(name):
    model, x = built(name)
    batches = Batches(*zoo.CASES[name].prepare(model, x))
    arrays = count(model, data_of(x), "all")
    for data in (batches, (batches[i] for i in range(len(batches)))):
        counted = count(model, data, "all")
        for site, counts in arrays.layers.items():
            np.testing.assert_array_equal(counted.layers[site].active, counts.active)
            np.testing.assert_array_equal(counted.layers[site].inputs_by_silent, counts.inputs_by_silent)
    probe, step = DeadUnits(batches, "all"), DeadUnits(layers="all", inputs_per_step=None)
    model.fit(batches, verbose=0, callbacks=[probe, step])
    for callback in (probe, step):
        assert {counts.inputs for counts in callback.census.layers.values()} == {zoo.INPUTS}


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
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
        checks = [check_figures]
        if trains(name):
            checks += [lambda name: check_training(name, ["counted", hook_of(name)])]
            checks += [check_step] * (keras.backend.backend() != "jax")  # which traces every step
        for check in checks:
            try:
                check(name)
            except Exception:
                yield f"{name}\n{traceback.format_exc()[-1500:]}"


if __name__ == "__main__":
    problems = list(failures())
    print("\n".join(problems))
    sys.exit(bool(problems))
