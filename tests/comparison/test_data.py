import itertools

import numpy as np
import pytest
import tensorflow as tf

from bnhead.comparison.data import ComparedData, labels_of
from bnhead.errors import UsageError
from tests.comparison.nets import DATA, X, Y


def test_runs_of_a_seed_see_the_same_batches():
    def labels_of(seed, epoch=0):
        batches = ComparedData.of(DATA, 16).epoch(seed, epoch, 16)
        return [batches[index][1].tolist() for index in range(len(batches))]

    assert labels_of(0) == labels_of(0)
    assert labels_of(0) != labels_of(1) and labels_of(0) != labels_of(0, epoch=1)
    assert sorted(itertools.chain(*labels_of(0))) == sorted(Y[:60].tolist())


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(16)


def test_a_test_split_of_batches_becomes_arrays():
    one_hot = np.eye(3, dtype="float32")[Y]
    data = ComparedData.of((dataset(X[:60], one_hot[:60]), dataset(X[60:], one_hot[60:])), 16)
    np.testing.assert_array_equal(data.x, X[60:])
    np.testing.assert_array_equal(data.y, one_hot[60:])
    np.testing.assert_array_equal(data.tested(1, 3), X[61:63])
    assert {name: data.facts[name] for name in ("name", "train", "test", "classes")} == {
        "name": "tf.data", "train": 60, "test": 30, "classes": 3,
    }  # fmt: skip


def test_a_shuffled_data_set_is_the_same_data_and_other_labels_are_not():
    def fingerprint(train):
        return ComparedData.of((train, DATA[1]), 16).facts["train_sha256"]

    train = dataset(*DATA[0])
    assert fingerprint(train) == fingerprint(train.unbatch().shuffle(60, seed=1).batch(16))
    assert fingerprint(train) != fingerprint(dataset(X[:60], Y[:60] // 2))


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([[0, 1, 0], [1, 0, 0]], [1, 0]),
        ([[3], [5]], [3, 5]),
        ([[0.2, 0.8], [0.5, 0.5]], [[0.2, 0.8], [0.5, 0.5]]),
        ([[1, 1], [0, 1]], [[1, 1], [0, 1]]),  # several labels of an input
        ([2, 0], [2, 0]),
    ],
)
def test_one_hot_labels_become_class_numbers(y, expected):
    assert labels_of(np.array(y)).tolist() == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, "data must be"),
        ((DATA[0], (X, Y[:3])), "test data must have as many labels as inputs, got 3 and 90"),
        ((DATA[0], (X, None)), "test data must be"),
        ((DATA[0], dataset(X[:0], Y[:0])), "test data must have at least one batch"),
    ],
)
def test_data_in_another_form(data, message):
    with pytest.raises(UsageError, match=message):
        ComparedData.of(data, 16)
