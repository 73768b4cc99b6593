import keras
import numpy as np
import pytest

from bnhead.census.labels import Labels
from bnhead.errors import UsageError


@pytest.mark.parametrize(
    ("y", "classes", "form"),
    [
        (np.array([0, 2, 1]), 3, "whole numbers"),
        (np.array([[0], [2]], "uint8"), 3, "whole numbers"),
        (np.array([0.0, 1.0]), 2, "whole numbers"),
        (np.eye(3, dtype="float32")[[0, 2]], 3, "one-hot"),
        (np.eye(2)[[0, 1]], 2, "one-hot"),
    ],
)
def test_labels_in_every_form(y, classes, form):
    labels = Labels.of(y, classes)
    assert (labels.form, labels.classes, labels.note) == (form, classes, "")
    one_hot, bad = labels.one_hot(keras.ops.convert_to_tensor(y))
    numbers = y.argmax(1) if form == "one-hot" else y.reshape(-1).astype(int)
    np.testing.assert_array_equal(one_hot, np.eye(classes)[numbers])
    assert int(bad) == 0


@pytest.mark.parametrize(
    ("y", "classes", "reason"),
    [
        (np.array([1, 5]), 3, "they are not all 0 to 2, got 1 to 5"),
        (np.array([0.5, 1.0]), 3, "they are neither whole numbers nor one-hot of 3 classes"),
        (np.full((4, 3), 1 / 3), 3, "they are neither whole numbers nor one-hot of 3 classes"),
        (np.array(["cat", "dog"]), 3, "they are neither whole numbers nor one-hot of 3 classes"),
        ({"a": np.zeros(3)}, 3, "they are not a single array"),
        (np.array([0, 1]), 0, "the model's output does not show the number of classes; set classes"),
    ],
)
def test_labels_that_are_not_classes_are_noted(y, classes, reason):
    assert Labels.of(y, classes) == Labels(note=f"labels: not counted by class, since {reason}")


def test_no_labels_and_labels_outside_of_the_users_classes():
    assert Labels.of(None, 3) == Labels()
    with pytest.raises(UsageError, match="labels must be 0 to 2, got 1 to 5"):
        Labels.of(np.array([1, 5]), 3, strict=True)


LATER = [[0, 3, -1], [0.0, 0.5, 7.0], [[1.0, 0, 0], [1, 1, 0], [0.5, 0.5, 0]]]


@pytest.mark.parametrize("y", [np.array(labels) for labels in LATER])
def test_later_labels_that_are_not_classes_are_counted(y):
    labels = Labels("one-hot" if y.ndim == 2 else "whole numbers", 3)
    one_hot, bad = labels.one_hot(keras.ops.convert_to_tensor(y))
    assert np.asarray(one_hot).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]] and int(bad) == 2
