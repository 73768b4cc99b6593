"""Transfers between device and host while a probe or a step runs, on JAX and PyTorch.

The test runs this file in a separate process per backend; `__main__` below runs the checks.
"""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers

from bnhead import DeadUnits
from bnhead.census import Probe


def net():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="relu", name="map"),
            layers.BatchNormalization(name="norm"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(9, "relu", name="fc"),
            layers.Dense(3),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def data(inputs):
    rng = np.random.default_rng(0)
    return rng.normal(size=(inputs, 6, 6, 2)).astype("float32"), rng.integers(0, 3, inputs)


def check_jax():

    model, (x, y) = net(), data(96)
    probe = Probe(model, ["map", "norm", "fc"], gradients=True, together=True)
    probed = probe.count((x, y), batch_size=32)  # traced, which may look at values
    calls = {inputs: jax_transfers(probe, inputs) for inputs in (64, 640)}
    assert calls[64] == calls[640] and calls[64]["device_get"] > 0, calls

    def refused(*_, **__):
        raise AssertionError("a callback to the host")

    inside = DeadUnits(layers=["map", "fc"], inputs_per_step=None)
    with (
        mock.patch("jax.debug.callback", refused),
        mock.patch("jax.experimental.io_callback", refused),
        mock.patch("jax.pure_callback", refused),
        mock.patch("jax._src.debugging.debug_callback", refused),
    ):
        model.fit(x, y, batch_size=32, shuffle=False, verbose=0, callbacks=[inside])
    counts, expected = inside.census.layers["map"], probed.layers["map"]  # "fc" reads the batch's statistics
    np.testing.assert_array_equal(counts.active, expected.active)
    np.testing.assert_array_equal(counts.inputs_by_silent, expected.inputs_by_silent)
    assert inside.census.layers["fc"].inputs == 96


def jax_transfers(probe, inputs):
    """How often arrays are read by NumPy and structures fetched while a probe counts."""
    import jax
    from jax._src.array import ArrayImpl

    calls = {"__array__": 0, "device_get": 0}
    as_array, get = ArrayImpl.__array__, jax.device_get

    def counted(name, original):
        def call(*arguments, **keywords):
            calls[name] += 1
            return original(*arguments, **keywords)

        return call

    with (
        mock.patch.object(ArrayImpl, "__array__", counted("__array__", as_array)),
        mock.patch.object(jax, "device_get", counted("device_get", get)),
    ):
        probe.count(data(inputs), batch_size=32)
    return calls


def check_torch():
    import torch

    def refused(*_, **__):
        raise AssertionError("NumPy reads a tensor")

    model, (x, y) = net(), data(96)
    options = {"gradients": True, "together": True}
    with mock.patch.object(torch.Tensor, "__array__", refused):
        probed = Probe(model, ["map", "norm", "fc"], **options).count((x, y), batch_size=32)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=32
        )
        loaded = Probe(model, ["map", "norm", "fc"], **options).count(loader)
    assert loaded.figures() == pytest.approx(probed.figures(), nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_transfers_to_the_host(backend):
    pytest.importorskip(backend)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    process = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]


if __name__ == "__main__":
    {"jax": check_jax, "torch": check_torch}[keras.backend.backend()]()
