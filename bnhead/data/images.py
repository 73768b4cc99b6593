"""One encoded picture as pixels of a given shape: all of it, its centre, or a random window.

`encoded` is a scalar string (JPEG, PNG, ...). `decode` returns `(height, width, channels)` uint8 with the
`channels` of the data set. `can_crop` returns whether the picture is a JPEG of which a window can be decoded
without the rest. The results have `shape`, uint8, resized by linear interpolation with antialiasing. Grey
pictures become colour if `shape` has 3 channels.
"""

from collections.abc import Callable

import tensorflow as tf

from bnhead.data.augment import crop_windows

CENTRE = 0.875  # of the shorter side: 224 of 256, as ImageNet is evaluated since Krizhevsky et al. 2012

Decode = Callable[[tf.Tensor], tf.Tensor]
Shape = tuple[int, int, int]


def stretched(encoded: tf.Tensor, decode: Decode, shape: Shape) -> tf.Tensor:
    """Returns all of the picture; a different aspect ratio is stretched to that of `shape`."""
    return fit_shape(decode(encoded), shape)


def central_window(
    encoded: tf.Tensor,
    decode: Decode,
    channels: int,
    shape: Shape,
    can_crop: Decode = tf.io.is_jpeg,
) -> tf.Tensor:
    """Returns the centre, for evaluation: the aspect ratio of `shape`, 7/8 of the largest such window.

    Equals resizing to 8/7 of the size and cropping the centre, with one interpolation instead of two.
    """
    target = tf.constant([float(length) for length in shape[:2]])

    def window(size):
        scale = CENTRE * tf.reduce_min(tf.cast(size, tf.float32) / target)
        extent = tf.maximum(tf.cast(tf.round(scale * target), tf.int32), 1)
        return tf.concat([(size - extent) // 2, extent], 0)

    return fit_shape(_decode_window(encoded, decode, channels, window, can_crop), shape)


def random_window(
    encoded: tf.Tensor,
    decode: Decode,
    channels: int,
    shape: Shape,
    seed: tf.Tensor,
    can_crop: Decode = tf.io.is_jpeg,
) -> tf.Tensor:
    """Returns a window drawn by `augment.crop_windows`, for training; `seed` is `(2,)` integers."""

    def window(size):
        return crop_windows(size[:1], size[1:], seed)[0]

    return fit_shape(_decode_window(encoded, decode, channels, window, can_crop), shape)


def _decode_window(
    encoded: tf.Tensor,
    decode: Decode,
    channels: int,
    window: Callable[[tf.Tensor], tf.Tensor],
    can_crop: Decode,
) -> tf.Tensor:
    """Returns the pixels of `window((height, width)) -> (top, left, height, width)`."""

    def decode_part():
        size = tf.image.extract_jpeg_shape(encoded)[:2]
        return tf.image.decode_and_crop_jpeg(encoded, window(size), channels=channels)

    def decode_all():
        image = decode(encoded)
        top, left, height, width = tf.unstack(window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    if channels not in (1, 3):  # a JPEG has 1 or 3, and both branches of a tf.cond are traced
        return decode_all()
    return tf.ensure_shape(tf.cond(can_crop(encoded), decode_part, decode_all), (None, None, channels))


def fit_shape(image: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Returns an image resized to `shape`, grey repeated into three channels if `shape` has three."""
    if image.shape[:2] != shape[:2]:
        resized = tf.image.resize(image, shape[:2], antialias=True)
        image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    if image.shape[-1] == 1 and shape[-1] == 3:
        image = tf.image.grayscale_to_rgb(image)
    return tf.ensure_shape(image, shape)
