import numpy as np
import pytest
import tensorflow as tf

from bnhead.errors import UsageError
from bnhead.inputs import batches, check_data

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
    found = [np.asarray(batch) for batch in batches(data, 3)]
    assert [len(batch) for batch in found] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(found), X)


def test_several_inputs_stay_together():
    data = {"a": X, "b": Y}
    check_data(data, 4)
    found = list(batches(data, 4))
    assert [len(batch["b"]) for batch in found] == [4, 3]
    np.testing.assert_array_equal(found[1]["a"], X[4:])


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        (X, 0, "batch_size must be a whole number of at least 1, got 0"),
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
