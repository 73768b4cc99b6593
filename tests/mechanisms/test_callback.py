import json

import keras
import numpy as np
import pytest

from bnhead.errors import UsageError
from bnhead.mechanisms import Measure, initial_guess, measure
from bnhead.mechanisms.figures import INITIAL
from tests.mechanisms.nets import data, vector_net


def compiled(head="bn_fc8"):
    model = vector_net(head)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    return model


def test_the_figures_of_each_epoch_enter_the_logs():
    model, (x, y) = compiled(), data()
    callback = Measure((x, y), groups="gap,guess", training_batch=16)
    history = model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[callback]).history
    assert len(history["mechanisms/accuracy_moving"]) == 2
    expected = measure(model, (x, y), groups="gap,guess", training_batch=16).figures()
    for name, value in expected.items():
        assert history[f"mechanisms/{name}"][-1] == pytest.approx(value, rel=1e-5)
    assert not any("noise" in name for name in history)
    assert len(set(history["mechanisms/initial_modal_share"])) == 1


def test_training_with_it_gives_the_same_weights():
    weights = []
    for callbacks in ([], [Measure(data(), groups="all", training_batch=16)]):
        keras.utils.set_random_seed(0)
        model, (x, y) = compiled("bn_dropout0.5_fc8"), data()
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
    for plain, measured in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, measured)


def test_the_initial_guess_is_that_before_the_first_step():
    model, (x, y) = compiled(), data()
    expected = initial_guess(model, (x, y))
    callback = Measure((x, y), groups="guess", training_batch=16)
    model.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    assert callback.initial == expected
    again = Measure((x, y), groups="guess", training_batch=16)
    model.fit(x, y, epochs=1, verbose=0, callbacks=[again])
    assert again.initial is None  # of a trained model there is none
    assert np.isnan(again.latest["mechanisms/initial_modal_share"])


def test_the_initial_guess_can_be_measured_alone():
    model, (x, y) = compiled(), data()
    expected = initial_guess(model, (x, y))
    callback = Measure((x, y), groups="initial", training_batch=16)
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[callback]).history
    assert callback.initial == expected and callback.measured is None
    shares = {name for name in history if name.startswith("mechanisms/")}
    assert shares == {"mechanisms/" + row.name for row in INITIAL} == callback.latest.keys()
    assert history["mechanisms/initial_modal_share"] == [expected.modal_share] * 2
    other = Measure((x, y), groups="initial", training_batch=16)
    other.set_model(model)
    other.resume(json.loads(json.dumps(callback.state())))
    assert other.latest == callback.latest


def test_prejudice_ends_with_the_first_epoch_under_twice_the_prior():
    model, (x, y) = compiled("fc8"), data()
    model.optimizer.learning_rate = 0.02
    model.get_layer("head_out").bias.assign([9.0, 0, 0, 0])  # the rarest class
    callback = Measure((x, y), groups="guess", training_batch=16)
    guesses = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: guesses.append(initial_guess(model, (x, y)))
    )
    history = model.fit(x, y, epochs=12, batch_size=16, verbose=0, callbacks=[callback, note]).history
    under = [guess.modal_share < 2 * guess.prior for guess in guesses]
    assert callback.initial.is_prejudiced and callback.initial.modal_share > 0.9
    assert callback.prejudiced == under.index(True) + 1 > 1
    assert history["mechanisms/prejudiced_epochs"][-1] == callback.prejudiced


def test_the_state_is_plain_and_comes_back():
    model, (x, y) = compiled(), data()
    callback = Measure((x, y), groups="guess", training_batch=16)
    model.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    other = Measure((x, y), groups="guess", training_batch=16)
    other.set_model(model)
    other.resume(json.loads(json.dumps(callback.state())))
    assert other.initial == callback.initial and other.prejudiced == callback.prejudiced


def test_latest_has_every_figure_of_its_groups_in_every_epoch():
    callback = Measure(data(), groups="noise,dropout", training_batch=16)
    assert "mechanisms/variance_shift" in callback.latest and np.isnan(list(callback.latest.values())).all()
    model, (x, y) = compiled(), data()
    names = list(callback.latest)
    model.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    assert list(callback.latest) == names and callback.latest["mechanisms/noise_sd"] > 0
    assert np.isnan(callback.latest["mechanisms/variance_shift"])


def test_errors_come_at_once():
    with pytest.raises(UsageError, match="must name at least one group"):
        Measure(data(), groups="", training_batch=16)
    with pytest.raises(UsageError, match="measure 'x' is not known"):
        Measure(data(), groups="x", training_batch=16)
    with pytest.raises(UsageError, match="read after every epoch"):
        Measure(iter([]), training_batch=16)
    for options in ({}, {"training_batch": 16, "drawn": 2}):
        with pytest.raises(TypeError, match=r"training_batch|drawn"):
            Measure(data(), **options)
    inputs = keras.Input((12,))
    model = keras.Model(inputs, keras.layers.Activation("relu")(inputs))
    with pytest.raises(UsageError, match="neither a batch norm nor a Dense"):
        Measure(data(), training_batch=16).set_model(model)
