import keras
import numpy as np
import pytest
import tensorflow as tf

from bnhead.errors import UsageError
from bnhead.graph.inputs import batches, check_data, class_numbers

X, Y = np.arange(14.0).reshape(7, 2), np.arange(7)


@pytest.mark.parametrize(
    "data",
    [
        X,
        (X, Y),
        (X,),
        tf.data.Dataset.from_tensor_slices(X).batch(3),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(3),
    ],
)
def test_batches_hold_the_inputs_in_order_with_the_last_partial_one(data):
    check_data(data, 3)
    result = [np.asarray(batch) for batch, _ in batches(data, 3)]
    assert [len(batch) for batch in result] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(result), X)


def test_several_inputs_stay_together():
    data = {"a": X, "b": Y}
    check_data(data, 4)
    result = [batch for batch, _ in batches(data, 4)]
    assert [len(batch["b"]) for batch in result] == [4, 3]
    np.testing.assert_array_equal(result[1]["a"], X[4:])


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        (X, 0, "batch_size must be a whole number of at least 1, got 0"),
        (np.zeros((5, 6)), True, "batch_size must be a whole number of at least 1, got True"),
        (np.zeros((5, 6)), 2.5, "batch_size must be a whole number of at least 1, got 2.5"),
        ((np.zeros((5, 6)), np.zeros(4)), 2, "data must be arrays of one length, got 4, 5"),
        (([np.zeros((5, 6)), np.zeros((3, 1))],), 2, "data must be arrays of one length, got 3, 5"),
        ((None,), 2, "data must be arrays, .* got tuple"),
        (X, 2.5, "batch_size must be a whole number of at least 1, got 2.5"),
        (None, 3, "data must be arrays, a tuple .* got NoneType"),
        ("images", 3, "data must be arrays, a tuple .* got str"),
        (np.float32(3), 3, "data must be arrays"),
        (tf.data.Dataset.from_tensor_slices(X).batch(3).repeat(), 3, "this one repeats for ever"),
    ],
)
def test_what_cannot_be_read_is_said(data, batch_size, message):
    with pytest.raises(UsageError, match=message):
        check_data(data, batch_size)


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        (np.array([2, 0, 1]), 3, [2, 0, 1]),
        (np.array([[2], [0]], np.uint8), 3, [2, 0]),
        (np.eye(3)[[1, 2]], 3, [1, 2]),
        (np.array([[0, 1, 0], [0, 0, 1]]), 3, [1, 2]),
        (np.array([True, False]), 2, [1, 0]),
        (tf.constant([1, 1]), 2, [1, 1]),
        (np.array([0.5, 1.0]), 3, None),
        (np.array([1.0, 0.0], "float32"), 2, [1, 0]),
        (np.array([1.0, 5.0]), 2, None),
        (np.array([1.0, np.nan]), 2, None),
        (np.eye(2)[[1, 0, 1]], 2, [1, 0, 1]),
        (np.array([[0.2, 0.8, 0], [0, 0, 1]]), 3, None),
        (np.zeros((2, 4, 4), int), 3, None),
        (np.array([5, 9]), 0, None),
        (None, 3, None),
        ({"a": np.array([1])}, 3, None),
    ],
)
def test_class_numbers(y, classes, expected):
    result = class_numbers(y, classes)
    assert (result if result is None else result.tolist()) == expected
    assert result is None or result.dtype == np.int32


def test_labels_out_of_range():
    with pytest.raises(UsageError, match="labels must be 0 to 2, got -1 to 3"):
        class_numbers(np.array([3, -1]), 3)


def test_every_input_comes_once_with_its_label():
    x, y = np.arange(10.0)[:, None], np.arange(10)
    got = list(batches((x, y, np.ones(10)), 4))
    assert [len(part) for part, _ in got] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([part for part, _ in got]), x)
    np.testing.assert_array_equal(np.concatenate([part for _, part in got]), y)


def test_structures_and_inputs_that_are_left_out():
    data = ({"a": np.zeros((5, 2)), "b": None},)
    check_data(data, 4)
    got = [x for x, _ in batches(data, 4)]
    assert [x["a"].shape for x in got] == [(4, 2), (1, 2)] and got[0]["b"] is None
    (x, y), *remaining = batches(tf.data.Dataset.from_tensors((np.zeros((3, 2)), [1, 2, 3])), 99)
    assert x.shape == (3, 2) and keras.ops.convert_to_numpy(y).tolist() == [1, 2, 3] and not remaining
