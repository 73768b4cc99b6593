import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from bnhead.census import Probe, count
from bnhead.errors import UsageError
from tests.census.planted import by_numpy, figures_of, planted_conv, planted_dense


@pytest.mark.parametrize("size", [1, 7, 499, 500, 1000])
def test_the_last_partial_batch_counts(size):
    model, layer, x = planted_dense(0)
    counts = count(model, x, batch_size=size).layers[layer]
    assert counts.inputs == 500
    expected = by_numpy(model, layer, x)
    assert figures_of(counts, expected) == pytest.approx(expected, abs=1e-9)


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def test_arrays_tuples_and_datasets_give_the_same_counts():
    model, layer, x = planted_dense(1)
    y = np.zeros(len(x), int)
    slices = tf.data.Dataset.from_tensor_slices
    tuples = (x[:300], y[:300]), (x[300:], y[300:])
    kinds = [
        x,
        (x, y),
        (x, y, y),
        slices(x).batch(33),
        slices((x, y)).batch(500),
        iter(tuples),
        Batches(tuples),
    ]
    figures = [count(model, data).layers[layer].figures() for data in kinds]
    assert "class_dead" not in figures[0] and figures[1].pop("class_dead") == 0
    for f in figures:
        assert {name: f[name] for name in figures[0]} == pytest.approx(figures[0], abs=1e-12)


def test_inputs_as_dict_as_list_and_optional():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", optional=True)

    class AddIfThere(layers.Layer):
        def call(self, x, second=None):
            return x if second is None else x + second

        def compute_output_shape(self, x_shape, second_shape=None):
            return x_shape

    hidden = layers.Dense(6, "relu", name="hidden")(AddIfThere()(a, b))
    model = keras.Model({"a": a, "b": b}, layers.Dense(1)(hidden))
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(30, 3)).astype("float32") for _ in "ab")
    kernel, bias = model.get_layer("hidden").get_weights()
    for x, total in (({"a": first, "b": second}, first + second), ({"a": first, "b": None}, first)):
        counts = count(model, x, batch_size=8).layers["hidden"]
        np.testing.assert_array_equal(counts.active, (total @ kernel + bias > 0).sum(0))
    dataset = tf.data.Dataset.from_tensor_slices({"a": first, "b": second}).batch(7)
    assert count(model, dataset).layers["hidden"].inputs == 30


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        (np.zeros((5, 6)), 0, "batch_size must be a whole number of at least 1, got 0"),
        (
            [[1.0, 2.0], [3.0, 4.0]],
            8,
            "data must be arrays, .* got list of numbers; np.asarray makes an array",
        ),
        ((np.zeros((2, 6)), [0, 1]), 8, "labels must be an array, got a list; np.asarray makes one"),
        (tf.ragged.constant([[1.0], [1.0, 2.0]]), 8, "got a RaggedTensor; to_tensor"),
        ("images", 8, "data must be arrays, .* got str"),
        (tf.data.Dataset.from_tensors(np.zeros((5, 6))).repeat(), 8, "this one repeats for ever"),
    ],
)
def test_unreadable_data_is_an_error_at_once(data, batch_size, message):
    from bnhead import DeadUnits

    with pytest.raises(UsageError, match=message):
        DeadUnits(data, batch_size=batch_size)
    with pytest.raises(UsageError, match=message):
        Probe(planted_dense(0)[0]).count(data, batch_size=batch_size)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x: ([x, x],), "data must have the 1 inputs of the model, got 2"),
        (
            lambda x: tf.data.Dataset.from_tensor_slices(x),
            r"batches of shape \(batch, 5, 4, 2\).*is it batched",
        ),
        (lambda x: x[:0], "data must have at least one batch of inputs"),
        (lambda x: x[..., :1], r"input '\w+' is \(batch, 5, 4, 2\), got \(batch, 5, 4, 1\)"),
        (lambda x: x.reshape(len(x), -1), r"input '\w+' is \(batch, 5, 4, 2\), got \(batch, 40\)"),
        (lambda x: iter([1, 2]), "data must be arrays, .* got batch"),
    ],
)
def test_data_that_does_not_fit_the_model_gives_a_one_line_error(data, message):
    model, _, x = planted_conv(0)
    with pytest.raises(UsageError, match=message) as error:
        count(model, data(x))
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.fc, self.out = layers.Dense(8, "relu", name="fc"), layers.Dense(3)

    def call(self, x):
        return self.out(self.fc(x))


def test_a_pass_that_fails_names_the_shape_and_the_layer_in_one_line():
    model = Subclassed()
    model(np.zeros((2, 6), "float32"))
    with pytest.raises(UsageError) as error:
        count(model, np.zeros((4, 7), "float32"))
    message = str(error.value)
    assert message.startswith("data does not fit the model: inputs of shape (4, 7): Input 0")
    assert "layer 'fc'" in message and "\n" not in message and error.value.__cause__ is not None
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, activation="relu")])
    model.add(layers.GlobalAveragePooling2D())
    with pytest.raises(UsageError, match=r"inputs of shape \(4, 2, 2, 3\): Negative dimension size"):
        count(model, np.zeros((4, 2, 2, 3), "float32"))


def test_a_model_with_a_fixed_batch_size_needs_whole_batches():
    inputs = keras.Input(batch_shape=(8, 6))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(5, "relu", name="fc")(inputs)))
    x = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
    assert count(model, x).layers["fc"].inputs == 24
    with pytest.raises(UsageError, match="data must be whole batches of 8, the model's own size; one has 4"):
        count(model, x[:20])


def test_rows_folded_into_the_batch_are_counted_as_rows_and_noted():
    inputs = keras.Input((4, 6))
    h = layers.Dense(5, "relu", name="window")(keras.ops.reshape(inputs, (-1, 6)))
    h = layers.Dense(7, "relu", name="after")(keras.ops.reshape(h, (-1, 20)))
    model = keras.Model(inputs, layers.Dense(3)(h))
    x = np.random.default_rng(0).normal(size=(30, 4, 6)).astype("float32")
    x[4, 0, 0] = np.nan
    census = count(model, (x, np.arange(30) % 3), ["window", "after"], batch_size=8)
    assert census.layers["window"].nonfinite == 1 and census.layers["after"].first_nonfinite == 4
    census = count(model, (x[5:], np.arange(25) % 3), ["window", "after"], batch_size=8)
    assert (census.layers["window"].inputs, census.layers["after"].inputs) == (100, 25)
    assert census.layers["window"].class_active is None and census.layers["after"].class_active is not None
    assert census.notes == ["window: counted by row, since it has 4 rows for each input; not by class"]
