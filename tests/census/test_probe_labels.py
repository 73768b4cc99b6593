import keras
import numpy as np
import pytest
from keras import layers

from bnhead.census import Probe, count
from bnhead.errors import UsageError
from tests.census import zoo
from tests.census.planted import UNITS, activations_of, planted_dense


@pytest.mark.parametrize(
    "targets", [np.arange(1, 6), np.array([-1, 1]), np.array([0, 255]), np.array([3.0, 4.0])]
)
def test_targets_that_are_not_classes_do_not_stop_a_training(targets):
    """Ratings, hinge labels, a label to be ignored: whole numbers that are no classes of one output."""
    from bnhead import DeadUnits

    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(8, "relu", name="fc")(inputs)))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    y = np.resize(targets, 50)
    dead_units = DeadUnits((x, y))
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[dead_units]).history
    assert len(history["dead/fc/per_input"]) == 2 and "dead/fc/class_dead" not in history
    assert dead_units.census.layers["fc"].inputs == 50


@pytest.mark.parametrize("labels", [lambda y: y, lambda y: y.astype("float32"), lambda y: np.eye(2)[y]])
def test_binary_labels_are_classes_in_every_form(labels):
    model, layer, x = planted_dense(0)
    model = keras.Model(model.input, layers.Dense(1 if labels(np.zeros(1, int)).ndim == 1 else 2)(
        model.get_layer(layer).output))  # fmt: skip
    y = np.arange(len(x)) % 2
    counts = count(model, (x, labels(y)), [layer]).layers[layer]
    loud = activations_of(model, layer, x)
    np.testing.assert_array_equal(counts.class_active, [loud[y == c].sum(0) for c in range(2)])


def test_labels_outside_of_the_users_classes_are_an_error_before_training():
    from bnhead import DeadUnits

    with pytest.raises(UsageError, match="labels must be 0 to 2, got 0 to 3"):
        DeadUnits((np.zeros((4, 6)), np.arange(4)), classes=3)


def test_labels_of_more_classes_than_outputs():
    model, layer, x = planted_dense(0)
    y = np.arange(len(x)) % 7
    counts = count(model, (x, y), classes=7).layers[layer]
    assert counts.class_active.shape == (7, UNITS) and counts.class_active.sum() == counts.active.sum()


class Once:
    """Batches without a length, as a generator gives them, to be read again and again."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_later_batches_with_labels_that_are_not_classes_are_noted():
    model, layer, x = planted_dense(0)
    good, bad = (x[:100], np.arange(100) % 3), (x[100:200], np.full(100, 7))
    census = count(model, Once(good, bad), [layer])
    assert census.layers[layer].inputs == 200 and census.layers[layer].class_active is None
    assert census.notes == ["labels: not counted by class, since 100 are not 0 to 2"]
    assert census.notes[0] in str(census)
    soft = count(model, (x, np.full((len(x), 3), 1 / 3)), [layer])
    assert "neither whole numbers nor one-hot of 3 classes" in soft.notes[0]


def test_labels_of_a_subclassed_model_are_classes_in_the_first_count_too():
    model, x = zoo.CASES["subclassed"].build()
    y, probe = np.arange(len(x)) % 3, Probe(model)
    for _ in range(2):
        census = probe.count((x, y))
        assert not census.notes and census.layers["fc"].class_inputs.tolist() == [4, 4, 4]
    assert count(model, (x, y)).layers["fc"].class_active is not None
