import os
import re

import numpy as np
import pytest
import tensorflow as tf

from bnhead.data import load
from bnhead.errors import DataError
from tests.data.small_sets import smooth, write_folder


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir)


def test_class_counts(digits, data_dir):
    assert digits.class_counts() == np.bincount(digits.train.labels).tolist()
    assert load("digits", data_dir, memory_limit=0).class_counts() == digits.class_counts()


def test_a_picture_that_is_damaged_is_named_and_other_errors_pass(tmp_path, data_dir):
    pictures = {
        f"{s}/{n}/{i}.png": smooth(8, 8, i) for s in ("train", "test") for n in "ab" for i in range(3)
    }
    root = write_folder(tmp_path / "pictures", pictures)
    data = load(f"folder:{root}", data_dir, image_size=8, memory_limit=0)
    (tmp_path / "pictures" / "train" / "b" / "1.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(DataError, match=r"train/b/1\.png cannot be decoded"), data.naming_pictures():
        raise tf.errors.InvalidArgumentError(None, None, "Invalid PNG data")
    with pytest.raises(tf.errors.InvalidArgumentError), data.naming_pictures():
        raise tf.errors.InvalidArgumentError(None, None, "shapes do not match")
    with pytest.raises(tf.errors.ResourceExhaustedError), data.naming_pictures():
        raise tf.errors.ResourceExhaustedError(None, None, "memory for an image")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_picture_that_went_while_it_was_used_is_named(tmp_path, data_dir, split):
    names = [f"{s}/{n}/{i}" for s in ("train", "test") for n in "ab" for i in range(4)]
    root = write_folder(tmp_path / "pictures", {f"{name}.png": smooth(8, 8) for name in names})
    data = load(f"folder:{root}", data_dir, memory_limit=0, validation=0.5)
    gone = getattr(data, split)
    path = gone.reader.describe(0 if gone.indices is None else int(gone.indices[0]))
    os.unlink(path)
    with (
        pytest.raises(DataError, match=f"^{re.escape(path)} cannot be read: .*No such file"),
        data.naming_pictures(),
    ):
        list(gone.evaluation_batches(4))
    with (
        pytest.raises(tf.errors.NotFoundError),
        load("digits", data_dir).naming_pictures(),
    ):
        raise tf.errors.NotFoundError(None, None, "a log")
