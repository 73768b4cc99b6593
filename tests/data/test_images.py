import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bnhead.data import decoding
from bnhead.data.augment import crop_windows
from bnhead.data.images import central_window, fit_shape, random_window, stretched
from tests.data.small_sets import smooth

PICTURE = smooth(60, 90)
JPEG = tf.io.encode_jpeg(PICTURE, quality=95)
PNG = tf.io.encode_png(PICTURE)


def decode(encoded):
    return tf.image.decode_image(encoded, channels=3, expand_animations=False)


def resized(image, size):
    return tf.image.resize(image, size, antialias=True).numpy()


@pytest.mark.parametrize("encoded", [JPEG, PNG], ids=["jpeg", "png"])
def test_a_random_window_is_that_of_the_decoded_picture(encoded):
    picture = decode(encoded).numpy()
    seen = set()
    for i in range(20):
        seed = tf.constant([i, 5])
        top, left, high, wide = crop_windows(tf.constant([60]), tf.constant([90]), seed)[0].numpy()
        seen.add((top, left, high, wide))
        expected = resized(picture[top : top + high, left : left + wide], (32, 32))
        result = random_window(encoded, decode, 3, (32, 32, 3), seed).numpy()
        assert result.dtype == np.uint8
        # a JPEG's colours are interpolated across the window's border, or not, where it is cut while decoded
        assert np.abs(result - expected).mean() < (1.0 if encoded is JPEG else 0.3)
        if encoded is PNG:
            np.testing.assert_allclose(result, expected, atol=0.51)
    assert len(seen) == 20


@pytest.mark.parametrize("encoded", [JPEG, PNG], ids=["jpeg", "png"])
def test_the_centre_is_seven_eighths_of_the_shorter_side(encoded):
    picture = decode(encoded).numpy()
    side = 52  # 7/8 of 60, rounded
    expected = resized(picture[4 : 4 + side, 19 : 19 + side], (16, 16))
    result = central_window(encoded, decode, 3, (16, 16, 3)).numpy()
    assert np.abs(result - expected).max() < (3 if encoded is JPEG else 0.51)


def test_the_centre_has_the_ratio_that_is_wanted():
    result = central_window(PNG, decode, 3, (16, 32, 3))  # 7/8 of 45 x 90: 39 x 79
    np.testing.assert_allclose(result, resized(PICTURE[10:49, 5:84], (16, 32)), atol=0.51)


def test_grey_jpegs_stay_grey_or_become_colour():
    grey = tf.io.encode_jpeg(PICTURE[..., :1], quality=95)

    def one(encoded):
        return tf.image.decode_image(encoded, channels=1, expand_animations=False)

    assert random_window(grey, one, 1, (20, 20, 1), [1, 2]).shape == (20, 20, 1)
    colour = central_window(grey, one, 1, (20, 20, 3)).numpy()
    assert colour.shape == (20, 20, 3) and (colour == colour[..., :1]).all()


def test_the_whole_picture_is_stretched():
    np.testing.assert_allclose(stretched(PNG, decode, (20, 20, 3)), resized(PICTURE, (20, 20)), atol=0.51)


def test_what_has_the_shape_is_not_touched():
    np.testing.assert_array_equal(fit_shape(tf.constant(PICTURE), (60, 90, 3)), PICTURE)


def test_pictures_with_an_alpha_channel_are_cut_too():
    four = np.concatenate([PICTURE, PICTURE[..., :1]], -1)

    def all_four(encoded):
        return tf.image.decode_png(encoded, channels=4)

    assert random_window(tf.io.encode_png(four), all_four, 4, (8, 8, 4), [1, 2]).shape == (8, 8, 4)


@pytest.mark.parametrize("number", [1, 3, 6])
def test_windows_of_a_turned_jpeg_are_those_of_what_is_seen(number):
    exif, file = Image.Exif(), io.BytesIO()
    exif[decoding.ORIENTATION] = number
    Image.fromarray(PICTURE).save(file, "JPEG", quality=95, exif=exif)
    encoded = tf.constant(file.getvalue())
    upright = tf.io.encode_png(decoding.decode_picture(encoded))
    own = decoding.decode_picture, 3, (24, 24, 3)
    for seed in ([1, 2], [3, 4]):
        window = random_window(encoded, *own, seed, decoding.is_upright_jpeg).numpy()
        expected = random_window(upright, *own, seed).numpy()
        assert np.abs(window.astype(int) - expected).mean() < 1
    middle = central_window(encoded, *own, decoding.is_upright_jpeg).numpy()
    np.testing.assert_allclose(middle.astype(int), central_window(upright, *own), atol=3)
