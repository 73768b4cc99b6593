import numpy as np
import pytest
from sklearn.datasets import load_digits

from bnhead.data import load
from bnhead.data.sets.digits import rotate_digit


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir)


def rows(images):
    return sorted(image.tobytes() for image in images)


def test_digits_are_scikit_learns(digits):
    original = load_digits()
    pixels = np.rint(original.images * 255 / 16).astype(np.uint8)[..., None]
    assert rows(np.concatenate([digits.train.images, digits.test.images])) == rows(pixels)
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    assert np.bincount(labels).tolist() == np.bincount(original.target).tolist()
    label_of = {image.tobytes(): label for image, label in zip(pixels, original.target, strict=True)}
    for image, label in zip(digits.test.images, digits.test.labels, strict=True):
        assert label_of[image.tobytes()] == label


def test_digits_split_is_fixed_and_stratified(digits):
    assert (digits.name, digits.shape, digits.classes) == ("digits/1.0.0", (8, 8, 1), tuple("0123456789"))
    assert (digits.train.size, digits.test.size) == (1437, 360)
    everything = np.bincount(np.concatenate([digits.train.labels, digits.test.labels]))
    np.testing.assert_allclose(np.bincount(digits.test.labels), everything * 360 / 1797, atol=1)
    assert digits.train.fingerprint()[:16] == "02042eeda642d6e5"
    assert digits.test.fingerprint()[:16] == "75576534f3d6ea6a"


def test_rotated_digits_are_the_digits_turned(data_dir):
    rotated = load("digits_rotation", data_dir, task="regression")
    assert (rotated.name, rotated.shape, rotated.classes, rotated.outputs) == (
        "digits_rotation/1.0.0", (16, 16, 1), (), 1,
    )  # fmt: skip
    assert (rotated.train.size, rotated.test.size) == (1437, 360)
    angles = rotated.train.labels
    assert angles.shape == (1437, 1) and angles.dtype == "float32"
    assert -45 <= angles.min() < -44 and 44 < angles.max() <= 45
    assert rotated.train.fingerprint()[:16] == "8543d71c1ca18f44"
    assert rotated.test.fingerprint()[:16] == "cdf194f8b60ef906"
    mean, deviation = rotated.target_moments()
    np.testing.assert_allclose([mean[0], deviation[0]], [angles.mean(), angles.std()], rtol=1e-4)
    drawn = np.random.default_rng(0).uniform(-45, 45, 1797).astype("float32")
    images = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    wanted = {rotate_digit(image, angle).tobytes(): angle for image, angle in zip(images, drawn, strict=True)}
    for image, angle in zip(rotated.test.images, rotated.test.labels, strict=True):
        assert wanted[image.tobytes()] == angle[0]


@pytest.mark.parametrize("degrees", [90, -90])
def test_turning_is_counter_clockwise_about_the_middle(degrees):
    image = np.random.default_rng(0).integers(0, 256, (8, 8)).astype("uint8")
    upright = rotate_digit(image, 0)
    np.testing.assert_allclose(rotate_digit(image, degrees), np.rot90(upright, degrees // 90), atol=1)
    assert upright.shape == (16, 16) and upright.dtype == "uint8"
