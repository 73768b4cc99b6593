import numpy as np
import pytest
from PIL import Image

from bnhead.data import load
from bnhead.data.corruptions import CORRUPTIONS, corrupted, parse_corruption
from bnhead.errors import UsageError
from tests.data.small_sets import smooth

IMAGES = np.stack([smooth(32, 32, i) for i in range(6)])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_step_is_worse_and_always_the_same(kind):
    before = IMAGES.copy()
    steps = [corrupted(IMAGES, f"{kind}:{severity}") for severity in range(1, 6)]
    harm = [np.abs(step.astype(int) - IMAGES).mean() for step in steps]
    assert harm[0] > 0 and (np.diff(harm) > 0).all()
    np.testing.assert_array_equal(corrupted(IMAGES, f"{kind}:3"), steps[2])
    np.testing.assert_array_equal(IMAGES, before)
    assert steps[0].dtype == np.uint8 and steps[0].shape == IMAGES.shape
    parts = [corrupted(IMAGES[i : i + 2], f"{kind}:3", i) for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), steps[2])


def test_noise_has_its_deviation():
    grey = np.full((20, 32, 32, 3), 128, np.uint8)
    noise = corrupted(grey, "gaussian_noise:2").astype(float) - 128
    assert abs(noise.std() / (0.06 * 255) - 1) < 0.02 and abs(noise.mean()) < 0.5
    assert not np.array_equal(noise[0], noise[1])


def test_contrast_and_brightness_by_hand():
    image = np.zeros((1, 1, 2, 3), np.uint8)
    image[0, 0] = [[100, 50, 0], [200, 150, 0]]
    less = corrupted(image, "contrast:2")[0, 0]
    np.testing.assert_array_equal(less, [[125, 75, 0], [175, 125, 0]])
    brighter = corrupted(image, "brightness:5")[0, 0]  # 0.3 * 255 = 76.5
    np.testing.assert_array_equal(brighter, [[176, 88, 0], [255, 191, 0]])
    assert (corrupted(np.zeros_like(image), "brightness:5") == 76).all()


@pytest.mark.parametrize("size", [28, 32, 33, 96])
def test_pixelate_is_the_published_scripts_two_resizes(size):
    """Hendrycks & Dietterich resize there and back with Pillow's box filter, which rounds in between."""
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("uint8")
    for severity, share in enumerate((0.95, 0.9, 0.85, 0.75, 0.65), start=1):
        small = int(size * share), int(size * share)
        expected = [
            np.asarray(Image.fromarray(x).resize(small, Image.BOX).resize((size, size), Image.BOX))
            for x in images
        ]
        found = corrupted(images, f"pixelate:{severity}").astype(int)
        assert np.abs(found - np.stack(expected).astype(int)).max() <= 1


def test_blur_keeps_what_is_flat_and_does_not_mix_channels():
    flat = np.full((1, 32, 32, 3), [10, 20, 30], np.uint8)
    np.testing.assert_array_equal(corrupted(flat, "blur:5"), flat)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_test_images_alone_are_corrupted_streamed_or_not(data_dir, memory_limit):
    plain = load("digits", data_dir)
    worse = load("digits", data_dir, test_corruption="gaussian_noise:3", memory_limit=memory_limit)
    images = [x for x, _ in worse.test.evaluation_batches(77).as_numpy_iterator()]
    np.testing.assert_array_equal(np.concatenate(images), corrupted(plain.test.images, "gaussian_noise:3"))
    images = [x for x, _ in worse.train.evaluation_batches(500).as_numpy_iterator()]
    np.testing.assert_array_equal(np.concatenate(images), plain.train.images)
    assert worse.test.fingerprint() != load("digits", data_dir, memory_limit=memory_limit).test.fingerprint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blurr:3", "test_corruption 'blurr:3' is not known; did you mean 'blur'.*gaussian_noise:3, blur:3"),
        ("blur", "a severity of 1 to 5, as in blur:3, got 'blur'"),
        ("blur:6", "a severity of 1 to 5"),
        ("blur:0", "a severity of 1 to 5"),
        ("blur:1.5", "a severity of 1 to 5"),
    ],
)
def test_bad_corruptions(text, message):
    with pytest.raises(UsageError, match=message):
        parse_corruption(text)
