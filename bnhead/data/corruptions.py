"""Test images made worse, in five steps, the same way each time: `--test_corruption=blur:3`.

The kinds and their strengths are those of Hendrycks & Dietterich 2019 (arXiv 1903.12261), as their script has
them for 32 x 32 pixels, in NumPy. Lengths in pixels grow with the image's height over 32.
"""

from collections.abc import Callable

import numpy as np

from bnhead import seeds
from bnhead.errors import UsageError, nearest

SEVERITIES = 5


def gaussian_noise(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """Normal noise of standard deviation 0.04 to 0.10, one draw for each example's index."""
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    seed = seeds.stream(0, "gaussian_noise")
    draws = [np.random.default_rng((seed, first + i)).normal(size=x.shape) for i, x in enumerate(images)]
    return images + deviation * np.reshape(draws, images.shape)


def blur(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """A Gaussian blur of standard deviation 0.4 to 1 pixels of 32."""
    from scipy.ndimage import gaussian_filter

    deviation = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1] * images.shape[1] / 32
    return gaussian_filter(images, (0, deviation, deviation, 0), mode="nearest")


def contrast(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """The distance from each channel's mean over the image shrinks to 0.75 to 0.15 of itself."""
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    means = images.mean((1, 2), keepdims=True)
    return means + kept * (images - means)


def brightness(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """Every pixel's largest channel, the V of HSV, grows by 0.05 to 0.3; hue and saturation stay."""
    added = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    value = images.max(-1, keepdims=True)
    brighter = np.minimum(value + added, 1)
    return np.where(value > 0, images * (brighter / np.maximum(value, 1e-9)), brighter)


def pixelate(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """Scales to 0.95 to 0.65 as many rows and columns and back, with Pillow's box filter."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    rows, columns = (_there_and_back(length, max(1, int(length * share))) for length in images.shape[1:3])
    return np.einsum("ih,bhwc,jw->bijc", rows, images, columns, optimize=True)


def _there_and_back(length: int, fewer: int) -> np.ndarray:
    """`(length, length)` weights of a resize to `fewer` rows and of one back."""
    return _box_filter(fewer, length) @ _box_filter(length, fewer)


def _box_filter(before: int, after: int) -> np.ndarray:
    """`(after, before)` weights of a resize with `PIL.Image.BOX`, which takes whole pixels: the mean of those
    whose centre lies in the box of the new one."""
    scale = before / after
    width = max(scale, 1.0)
    distance = (np.arange(before) + 0.5 - (np.arange(after)[:, None] + 0.5) * scale) / width
    inside = (distance > -0.5) & (distance <= 0.5)
    return inside / inside.sum(1, keepdims=True)


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
    "pixelate": pixelate,
}


def parse_corruption(text: str) -> tuple[str, int] | None:
    """`("blur", 3)` of `blur:3`; None of `none`.

    Raises:
        UsageError: there is no corruption of this name, or the severity is not 1 to 5.
    """
    if text == "none":
        return None
    kind, _, number = text.partition(":")
    if kind not in CORRUPTIONS:
        there = ", ".join(f"{name}:3" for name in CORRUPTIONS)
        near = nearest(kind, CORRUPTIONS)
        raise UsageError(f"test_corruption {text!r} is not known{near} (there are none, {there})")
    if number not in map(str, range(1, SEVERITIES + 1)):
        raise UsageError(f"test_corruption must have a severity of 1 to 5, as in {kind}:3, got {text!r}")
    return kind, int(number)


def corrupted(images: np.ndarray, text: str, first: int = 0) -> np.ndarray:
    """Images after a corruption.

    Args:
        images: `(batch, height, width, channels)` uint8.
        text: such as `blur:3`; `none` changes nothing.
        first: index of the first image in its split; noise depends on it and not on the batch.

    Returns:
        An array like `images`.
    """
    parsed = parse_corruption(text)
    if parsed is None or not len(images):
        return images
    kind, severity = parsed
    changed = CORRUPTIONS[kind](images.astype(np.float64) / 255, severity, first)
    return np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
