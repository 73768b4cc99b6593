import numpy as np
import pytest
import tensorflow as tf

from bnhead.data.augment import augment, random_crop, random_flip


def batch(count=200, height=8, width=6, channels=2):
    return np.random.default_rng(0).integers(1, 256, (count, height, width, channels), np.uint8)


def all_crops(image, padding):
    """Every image that a crop can give, by its shift."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    shifts = [(i, j) for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    return {padded[i : i + height, j : j + width].tobytes(): (i, j) for i, j in shifts}


def test_every_crop_is_a_shift_of_its_image_and_all_shifts_occur():
    images = batch()
    cropped = random_crop(images, [1, 2], 2).numpy()
    shifts = [all_crops(image, 2)[crop.tobytes()] for image, crop in zip(images, cropped, strict=True)]
    assert len(set(shifts)) == 25


def test_flips_mirror_about_half_of_the_images():
    images = batch()
    flipped = random_flip(images, [1, 2]).numpy()
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    kept = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize("kind", ["none", "crop", "crop_flip"])
def test_the_same_seed_gives_the_same_bytes_alone_and_in_a_pipeline(kind):
    images = batch()

    def once(seed):
        return augment(tf.constant(images), tf.constant(seed), kind).numpy()

    data = tf.data.Dataset.from_tensors(images).map(lambda x: augment(x, tf.constant([3, 4]), kind))
    np.testing.assert_array_equal(next(data.as_numpy_iterator()), once([3, 4]))
    assert once([3, 4]).dtype == np.uint8 and once([3, 4]).shape == images.shape
    assert np.array_equal(once([3, 4]), once([3, 5])) == (kind == "none")


def test_crop_pads_an_eighth_and_never_mirrors():
    images = batch(count=100, height=16, width=16)
    cropped = augment(tf.constant(images), tf.constant([0, 0]), "crop").numpy()
    assert all(crop.tobytes() in all_crops(image, 2) for image, crop in zip(images, cropped, strict=True))
