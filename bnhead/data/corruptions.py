"""Corrupted test images, in five severities and without randomness between runs: `--test_corruption=blur:3`.

Corruptions and severities are those of Hendrycks & Dietterich 2019 (arXiv 1903.12261) in their script for
32 x 32 pixels, in NumPy. Lengths in pixels are scaled by the height of the image over 32.

A corruption takes `(batch, height, width, channels)` float64 in [0, 1], the severity from 1 to 5 and the
index of the first image in its split, and returns changed images, which may leave [0, 1].
"""

from collections.abc import Callable

import numpy as np

from bnhead import seeds
from bnhead.errors import UsageError, nearest

SEVERITIES = 5


def gaussian_noise(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """Adds normal noise of standard deviation 0.04 to 0.10, drawn by the index of each example."""
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    seed = seeds.stream(0, "gaussian_noise")
    draws = [np.random.default_rng((seed, first + i)).normal(size=x.shape) for i, x in enumerate(images)]
    return images + deviation * np.reshape(draws, images.shape)


def blur(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """Blurs with a Gaussian of standard deviation 0.4 to 1 pixels of 32."""
    from scipy.ndimage import gaussian_filter

    deviation = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1] * images.shape[1] / 32
    return gaussian_filter(images, (0, deviation, deviation, 0), mode="nearest")


def contrast(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """Multiplies the distance from the mean of each channel over the image by 0.75 to 0.15."""
    share = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    means = images.mean((1, 2), keepdims=True)
    return means + share * (images - means)


def brightness(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """Adds 0.05 to 0.3 to the V of HSV, the largest channel of a pixel; hue and saturation stay."""
    added = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    value = images.max(-1, keepdims=True)
    brighter = np.minimum(value + added, 1)
    return np.where(value > 0, images * (brighter / np.maximum(value, 1e-9)), brighter)


def pixelate(images: np.ndarray, severity: int, first: int) -> np.ndarray:
    """Resizes to 0.95 to 0.65 as many rows and columns and back, with Pillow's box filter."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    sizes = [(length, max(1, int(length * share))) for length in images.shape[1:3]]
    rows, columns = (_box_filter(fewer, length) @ _box_filter(length, fewer) for length, fewer in sizes)
    return np.einsum("ih,bhwc,jw->bijc", rows, images, columns, optimize=True)


def _box_filter(length: int, new_length: int) -> np.ndarray:
    """Returns `(new_length, length)` weights of a resize with `PIL.Image.BOX`.

    A new pixel is the mean of the pixels whose centres lie in its box.
    """
    scale = length / new_length
    width = max(scale, 1.0)
    distance = (np.arange(length) + 0.5 - (np.arange(new_length)[:, None] + 0.5) * scale) / width
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
    """Returns `("blur", 3)` for `blur:3`; None for `none`.

    Raises:
        UsageError: an unknown corruption, or a severity that is not 1 to 5.
    """
    if text == "none":
        return None
    name, _, severity = text.partition(":")
    if name not in CORRUPTIONS:
        choices = ", ".join(f"{choice}:3" for choice in CORRUPTIONS)
        hint = nearest(name, CORRUPTIONS)
        raise UsageError(f"test_corruption {text!r} is not known{hint} (there are none, {choices})")
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise UsageError(f"test_corruption must have a severity of 1 to 5, as in {name}:3, got {text!r}")
    return name, int(severity)


def corrupted(images: np.ndarray, text: str, first: int = 0) -> np.ndarray:
    """Returns corrupted images.

    Args:
        images: `(batch, height, width, channels)` uint8.
        text: such as `blur:3`; `none` changes nothing.
        first: index of the first image in its split; noise depends on it, not on the batch.

    Returns:
        An array like `images`.
    """
    parsed = parse_corruption(text)
    if parsed is None or not len(images):
        return images
    name, severity = parsed
    changed = CORRUPTIONS[name](images.astype(np.float64) / 255, severity, first)
    return np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8)
