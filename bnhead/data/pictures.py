"""One encoded picture as pixels of a wanted shape: whole, its middle, or a random window of it.

`encoded` is a scalar string (JPEG, PNG, ...), `decode` turns it into `(height, width, channels)` uint8 with
`channels` as the data set has them, and `cuts` tells whether it is a JPEG of which a window can be decoded
alone. The results are `shape`, uint8, resized by linear interpolation with antialiasing. Where `shape` has 3
channels and a picture 1, grey becomes colour.
"""

from collections.abc import Callable

import tensorflow as tf

from bnhead.data.augment import crop_windows

CENTRE = 0.875  # of the shorter side: 224 of 256, as ImageNet is evaluated since Krizhevsky et al. 2012

Decode = Callable[[tf.Tensor], tf.Tensor]


def whole(encoded: tf.Tensor, decode: Decode, shape: tuple[int, int, int]) -> tf.Tensor:
    """The whole picture, stretched where its sides have another ratio."""
    return fitted(decode(encoded), shape)


def centre(
    encoded: tf.Tensor,
    decode: Decode,
    channels: int,
    shape: tuple[int, int, int],
    cuts: Decode = tf.io.is_jpeg,
) -> tf.Tensor:
    """The middle, of the wanted shape's ratio and 7/8 as large as fits: for evaluation.

    The same as resizing to 8/7 of the wanted size and cutting the middle out, with one interpolation.
    """
    wanted = tf.constant([float(length) for length in shape[:2]])

    def window(size):
        scale = CENTRE * tf.reduce_min(tf.cast(size, tf.float32) / wanted)
        extent = tf.maximum(tf.cast(tf.round(scale * wanted), tf.int32), 1)
        return tf.concat([(size - extent) // 2, extent], 0)

    return fitted(_cut(encoded, decode, channels, window, cuts), shape)


def random_window(
    encoded: tf.Tensor,
    decode: Decode,
    channels: int,
    shape: tuple[int, int, int],
    seed: tf.Tensor,
    cuts: Decode = tf.io.is_jpeg,
) -> tf.Tensor:
    """A window by `augment.crop_windows`: for training. `seed` is `(2,)` integers."""

    def window(size):
        return crop_windows(size[:1], size[1:], seed)[0]

    return fitted(_cut(encoded, decode, channels, window, cuts), shape)


def _cut(
    encoded: tf.Tensor, decode: Decode, channels: int, window: Callable[[tf.Tensor], tf.Tensor], cuts: Decode
) -> tf.Tensor:
    """The pixels of `window((height, width)) -> (top, left, height, width)`."""

    def from_jpeg():
        size = tf.image.extract_jpeg_shape(encoded)[:2]
        return tf.image.decode_and_crop_jpeg(encoded, window(size), channels=channels)

    def from_all():
        image = decode(encoded)
        top, left, height, width = tf.unstack(window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    if channels not in (1, 3):  # what a JPEG can have
        return from_all()
    return tf.ensure_shape(tf.cond(cuts(encoded), from_jpeg, from_all), (None, None, channels))


def fitted(image: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """An image resized to `shape`, and grey made colour."""
    if image.shape[:2] != shape[:2]:
        resized = tf.image.resize(image, shape[:2], antialias=True)
        image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    if image.shape[-1] == 1 and shape[-1] == 3:
        image = tf.image.grayscale_to_rgb(image)
    return tf.ensure_shape(image, shape)
