import dataclasses

import numpy as np
import pytest

from bnhead.data import DataSet, load
from bnhead.data.checks import (
    check_batches,
    check_classes,
    check_labels,
    check_pixels,
    check_rounding,
    inspect_data,
)
from bnhead.data.memory import InMemory
from bnhead.errors import DataError

RANDOM = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)


def data_set(train=RANDOM[:12], test=RANDOM[12:], labels=None, **more):
    own = np.arange(12) % 3 if labels is None else labels
    sides = InMemory(train, own), InMemory(test, np.arange(len(test)) % 3)
    return DataSet("set/1.0.0", (4, 4, 3), ("a", "b", "c"), 3, *sides, **more)


def test_what_is_recorded():
    train, test = RANDOM[:12].copy(), RANDOM[12:].copy()
    train[7], test[3], test[5] = train[2], train[2], train[9]
    seen = inspect_data(data_set(train, test))
    assert seen["splits"] == {"train": 12, "test": 8}
    assert seen["class_counts"] == {"train": [4, 4, 4], "test": [3, 3, 2]}
    assert seen["duplicates"] == {"train_test": 2, "within_train": 1, "within_test": 0}
    assert check_batches(12, 5) == {"size": 5, "steps": 2, "left_out": 2}
    assert seen["pixels"]["images"] == 12 and seen["pixels"]["dtype"] == "uint8"
    assert seen["pixels"]["mean"] == pytest.approx(train.mean(), abs=1e-4)
    assert (seen["pixels"]["least"], seen["pixels"]["largest"]) == (train.min(), train.max())
    assert seen["warnings"] == ["2 test images are training images too"]


def test_one_pixel_makes_another_image():
    test = RANDOM[:8].copy()
    test[:, 0, 0, 0] += 1
    assert inspect_data(data_set(test=test))["duplicates"]["train_test"] == 0


def test_domains_are_counted():
    data = data_set(domains=("x", "y"))
    sides = (dataclasses.replace(s, domains=np.arange(s.size) % 4 // 3) for s in (data.train, data.test))
    train, test = sides
    seen = inspect_data(dataclasses.replace(data, train=train, test=test))
    assert seen["domain_counts"] == {"train": [9, 3], "test": [6, 2]}


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_real_digits_streamed_or_not(data_dir, memory_limit):
    seen = inspect_data(load("digits", data_dir, memory_limit=memory_limit, validation=0.1))
    assert seen["splits"]["train"] + seen["splits"]["validation"] == 1437 and seen["warnings"] == []
    assert sum(seen["class_counts"]["train"]) == seen["splits"]["train"]
    assert (seen["duplicates"] is None) == (memory_limit == 0)
    assert seen["pixels"]["images"] == (256 if memory_limit == 0 else seen["splits"]["train"])


def with_value(value):
    images = RANDOM[:12].astype(np.float32)
    images[4, 1, 2, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (with_value(np.nan), "1 images have pixels that are NaN or infinite, the first is example 4"),
        (with_value(np.inf), "1 images have pixels that are NaN or infinite, the first is example 4"),
        (with_value(-1), "pixels must be in 0 to 255, got -1 to 25"),
        (with_value(4000), "pixels must be in 0 to 255, got 0 to 4000"),
    ],
)
def test_pixels_that_cannot_be(images, message):
    with pytest.raises(DataError, match=f"set/1.0.0, train: {message}"):
        inspect_data(data_set(images))


def test_odd_pixels_are_warnings():
    _, warnings = check_pixels((RANDOM > 128).astype(np.uint8), "here")
    assert warnings == ["pixels reach 1 of 255: are they scaled to 0 to 1?"]
    plain = RANDOM.copy()
    plain[3:5] = 9
    plain[6] = [1, 2, 3]
    assert check_pixels(plain, "here")[1] == ["3 training images are of one colour"]


@pytest.mark.parametrize(("most", "warns"), [(15, True), (63, True), (64, False), (255, False)])
def test_a_narrow_range_of_pixels_is_a_warning(most, warns):
    """12 bits stored in 16 reach 15 of 255, 14 bits 63."""
    images = (RANDOM.astype(int) % (most + 1)).astype(np.uint8)
    images[0, 0, 0] = [0, most, 0]
    expected = [f"pixels are 0 to {most} of 0 to 255: have they fewer bits than the files have room for?"]
    assert check_pixels(images, "here")[1] == (expected if warns else [])


def test_what_was_odd_in_opening_is_a_warning():
    assert inspect_data(data_set(notes=("3 files are left out",)))["warnings"] == ["3 files are left out"]
    assert inspect_data(data_set(split_rule="a half"))["split_rule"] == "a half"
    assert "split_rule" not in inspect_data(data_set())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (10_000_001.0 - np.arange(50) % 2, "float32 rounds targets by up to 0.5, and their standard dev"),
        (
            2**60 + np.arange(0, 100, 7),
            r"up to 98, and their standard deviation is 30; subtract their mean",
        ),
        (np.array([[0, 10**9], [1, 10**9 + 1]]), r"here: float32 rounds targets by up to 1, .* is 0\.5;"),
    ],
)
def test_numbers_that_float32_rounds_too_much(targets, message):
    with pytest.raises(DataError, match=message):
        check_rounding(targets, "here")


@pytest.mark.parametrize(
    "targets",
    [
        np.linspace(0, 1, 50),
        1e6 + np.linspace(0, 1, 50),
        2**24 + 2 * np.arange(9),  # whole numbers that it holds
        1.7e9 + np.linspace(0, 1e7, 50),  # seconds since 1970, over four months
        np.arange(100) + 2**20,
        np.full(9, 0.1),  # constants have an error of their own
        np.array([0.1]),
        np.array([1.0, np.nan, np.inf]),  # so have these
    ],
)
def test_numbers_that_float32_holds_well_enough(targets):
    check_rounding(targets, "here")


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (np.array([0, 3]), 3, "here: labels 0 to 3, classes 0 to 2"),
        (np.array([-1, 2]), 3, "here: labels -1 to 2, classes 0 to 2"),
        (np.array([0.0, 1.0]), 3, "here: labels must be whole numbers, classes 0 to 2, got float64"),
        (np.array(["cat", "dog"]), 3, "here: labels must be whole numbers"),
        (
            np.array([[0.0], [np.nan], [np.inf]]),
            0,
            "2 labels are not finite in float32, which holds up to 3.4e38, the first is example 1",
        ),
    ],
)
def test_labels_out_of_range(labels, classes, message):
    with pytest.raises(DataError, match=message):
        check_labels(labels, classes, "here")


def test_classes():
    assert check_classes([1, 1, 0], ("a", "b", "c"), "here") == ["no training example of c"]
    many = check_classes([1, 1, *[0] * 8], tuple("abcdefghij"), "here")
    assert many == ["no training example of c, d, e, f, g and 3 more"]
    with pytest.raises(DataError, match="needs at least two classes, got only 'b'"):
        inspect_data(data_set(labels=np.ones(12, int)))


def test_batches():
    assert check_batches(1437, 128) == {"size": 128, "steps": 11, "left_out": 29}
    with pytest.raises(DataError, match="batch_size must be at most the 12 training images, got 13"):
        check_batches(12, 13)
