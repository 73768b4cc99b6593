import numpy as np
import pytest
import tensorflow as tf

from bnhead.data.augment import (
    augment,
    beta_draw,
    crop_windows,
    cutout,
    mixup,
    random_crop,
    random_flip,
    random_resized_crop,
)

KINDS = ["none", "crop", "crop_flip", "imagenet", "flip"]


def batch(count=200, height=8, width=6, channels=2):
    return np.random.default_rng(0).integers(1, 256, (count, height, width, channels), np.uint8)


def all_crops(image, padding):
    """Every image that a crop can give, by its shift."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    shifts = [(i, j) for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    return {padded[i : i + height, j : j + width].tobytes(): (i, j) for i, j in shifts}


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_crop_is_a_shift_of_its_image_and_all_shifts_occur(channels):
    images = batch(channels=channels)
    cropped = random_crop(images, [1, 2], 2).numpy()
    shifts = [all_crops(image, 2)[crop.tobytes()] for image, crop in zip(images, cropped, strict=True)]
    assert len(set(shifts)) == 25


def test_a_crop_is_the_padded_image_from_the_drawn_corner():
    images, padding = batch(), 3
    corners = tf.random.stateless_uniform((2, 200, 1), [5, 6], 0, 2 * padding + 1, tf.int32).numpy()[..., 0]
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    expected = [padded[i, y : y + 8, x : x + 6] for i, (y, x) in enumerate(corners.T)]
    np.testing.assert_array_equal(random_crop(images, [5, 6], padding), expected)


def test_flips_mirror_about_half_of_the_images():
    images = batch()
    flipped = random_flip(images, [1, 2]).numpy()
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    kept = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum() < 130


def test_crop_flip_is_a_crop_and_then_a_flip():
    images, seed = batch(height=16), tf.constant([3, 4])
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    expected = random_flip(random_crop(images, crop_seed, 2), flip_seed)
    np.testing.assert_array_equal(augment(tf.constant(images), seed, "crop_flip"), expected)
    np.testing.assert_array_equal(augment(tf.constant(images), seed, "flip"), random_flip(images, flip_seed))


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes_alone_and_in_a_pipeline(kind, size):
    images = batch()

    def once(seed):
        return augment(tf.constant(images), tf.constant(seed), kind, size).numpy()

    data = tf.data.Dataset.from_tensors(images).map(lambda x: augment(x, tf.constant([3, 4]), kind, size))
    np.testing.assert_array_equal(next(data.as_numpy_iterator()), once([3, 4]))
    assert once([3, 4]).dtype == np.uint8 and once([3, 4]).shape == images.shape
    assert np.array_equal(once([3, 4]), once([3, 5])) == (kind == "none" and not size)


def test_crop_pads_an_eighth_and_never_mirrors():
    images = batch(count=100, height=16, width=16)
    cropped = augment(tf.constant(images), tf.constant([0, 0]), "crop").numpy()
    assert all(crop.tobytes() in all_crops(image, 2) for image, crop in zip(images, cropped, strict=True))


def test_cutout_paints_one_square_around_every_place():
    images = np.full((500, 8, 6, 2), 7, np.uint8)
    painted = cutout(images, [1, 2], 3).numpy()
    seeds = tf.unstack(tf.random.split([1, 2], 2))
    down, right = (
        tf.random.stateless_uniform((500, 1), seed, 0, length, tf.int32).numpy()[:, 0]
        for seed, length in zip(seeds, (8, 6), strict=True)
    )
    centres = set()
    for image, y, x in zip(painted, down, right, strict=True):
        expected = np.full((8, 6, 2), 7)
        expected[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 128
        np.testing.assert_array_equal(image, expected)
        centres.add((y, x))
    assert len(centres) == 48


def test_windows_are_of_the_drawn_area_and_ratio_and_lie_inside():
    count, height, width = 20_000, 60, 90
    windows = crop_windows(tf.fill((count,), height), tf.fill((count,), width), [1, 2]).numpy()
    top, left, high, wide = windows.T
    assert (windows >= 0).all() and (top + high <= height).all() and (left + wide <= width).all()
    draws = tf.random.stateless_uniform((4, count, 10), [1, 2]).numpy().astype(float)
    area = height * width * (0.08 + 0.92 * draws[0])
    ratio = (3 / 4) * (16 / 9) ** draws[1]
    tall, broad = np.sqrt(area / ratio), np.sqrt(area * ratio)
    fits = (np.round(tall) <= height) & (np.round(broad) <= width)
    row = np.flatnonzero(fits.any(1))
    first = fits.argmax(1)[row]
    assert len(row) > 0.99 * count and (first > 0).mean() > 0.1
    high, wide, top = high[row], wide[row], top[row]
    np.testing.assert_allclose(high, tall[row, first], atol=0.51)
    np.testing.assert_allclose(wide, broad[row, first], atol=0.51)
    np.testing.assert_allclose(top, np.floor(draws[2][row, first] * (height - high + 1)), atol=1)


@pytest.mark.parametrize(
    ("size", "window"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))], ids=["wide", "tall"]
)
def test_where_no_window_fits_it_is_the_middle(size, window):
    windows = crop_windows(*(tf.fill((3000,), length) for length in size), [1, 2]).numpy()
    assert (windows[:, 2:] <= size).all()
    assert (windows == window).all(1).sum() > 100


def test_a_resized_crop_is_the_window_interpolated_between_pixels_middles():
    images = batch(count=50, height=12, width=9, channels=3)
    seed = tf.constant([8, 9])
    windows = crop_windows(tf.fill((50,), 12), tf.fill((50,), 9), seed).numpy()
    result = random_resized_crop(tf.constant(images), seed).numpy()

    def weights(start, extent, length):
        """Row i holds how much of every pixel is in output pixel i."""
        place = np.clip(start + (np.arange(length) + 0.5) * extent / length - 0.5, 0, length - 1)
        return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(length)))

    for image, (top, left, high, wide), cropped in zip(images, windows, result, strict=True):
        rows, columns = weights(top, high, 12), weights(left, wide, 9)
        expected = np.einsum("ih,jw,hwc->ijc", rows, columns, image)
        np.testing.assert_allclose(cropped, expected, atol=0.51)


def test_mixup_mixes_images_and_targets_alike():
    images, hot = batch(count=40), np.eye(5, dtype="float32")[np.arange(40) % 5]
    mixed, targets = (
        x.numpy() for x in mixup(tf.constant(images), tf.constant(hot), tf.constant([1, 2]), 1.0)
    )
    order_seed, share_seed = tf.unstack(tf.random.split(tf.random.fold_in([1, 2], 3), 2))
    share = np.round(beta_draw(share_seed, 1.0).numpy() * 2**16) / 2**16
    other = np.argsort(tf.random.stateless_uniform((40,), order_seed).numpy())
    assert 0.05 < share < 0.95 and mixed.dtype == np.uint8
    np.testing.assert_allclose(mixed, share * images + (1 - share) * images[other], atol=0.501)
    np.testing.assert_allclose(targets, share * hot + (1 - share) * hot[other], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 8.0])
def test_shares_are_betas(alpha):
    draws = np.array([beta_draw([i, 7], alpha) for i in range(400)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert np.isfinite(draws).all() and (draws >= 0).all() and (draws <= 1).all()
    assert abs(draws.mean() - 0.5) < 4 * np.sqrt(variance / 400)
    assert abs(draws.var() / variance - 1) < 0.35
