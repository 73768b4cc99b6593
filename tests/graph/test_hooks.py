import threading

import keras
import numpy as np
import pytest
from keras import layers
from keras.src import backend

from bnhead.graph import hooks, taps


def net():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu", name="fc")])


def hooked():
    return backend.nn.relu, keras.Layer.__call__, keras.Operation.__call__, layers.PReLU.call


def test_hooks_are_installed_with_the_first_and_removed_with_the_last():
    originals, model = hooked(), net()
    with taps.opened(model), taps.opened(net()):
        assert all(a is not b for a, b in zip(hooked(), originals, strict=True))
    assert hooked() == originals and hooks.current() is None
    with pytest.raises(KeyboardInterrupt), taps.opened(model):
        raise KeyboardInterrupt
    assert hooked() == originals


def test_a_thread_reports_to_its_own_taps():
    model, counts = net(), {}

    def run(name):
        with taps.opened(model) as opened:
            for _ in range(20):
                model(np.zeros((2, 4), "float32"))
        counts[name] = [len(model_pass.activations) for model_pass in opened.passes]

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    originals = hooked()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {name: [1] * 20 for name in range(3)} and hooked() == originals


def test_nobody_is_reported_to_inside_another_model():
    model = net()
    with taps.opened(model) as opened, hooks.reporting_to(None):
        model(np.zeros((2, 4), "float32"))
    assert not opened.passes
