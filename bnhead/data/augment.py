"""Label-preserving changes of whole batches of images, random by a seed that is passed in.

All are TensorFlow functions on `(batch, height, width, channels)` of any dtype; the result has the same shape
and dtype and depends on the images and the seed alone.
"""

import tensorflow as tf


def random_crop(images: tf.Tensor, seed: tf.Tensor, padding: int) -> tf.Tensor:
    """Pads each image with `padding` zeros on every side and cuts out its size at a random place.

    Each image has a place of its own. With padding 4 on 32 x 32 this is the augmentation of He et al. 2015,
    section 4.2.

    Args:
        images: `(batch, height, width, channels)`.
        seed: `(2,)` integers.
        padding: pixels, at least 0; also the largest shift.
    """
    batch, height, width = tf.shape(images)[0], tf.shape(images)[1], tf.shape(images)[2]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    corners = tf.random.stateless_uniform((2, batch, 1), seed, 0, 2 * padding + 1, tf.int32)
    rows = tf.gather(padded, corners[0] + tf.range(height), axis=1, batch_dims=1)
    cropped = tf.gather(rows, corners[1] + tf.range(width), axis=2, batch_dims=1)
    return tf.ensure_shape(cropped, images.shape)


def random_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors each image left to right with probability 1/2.

    Args:
        images: `(batch, height, width, channels)`.
        seed: `(2,)` integers.
    """
    coins = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed) < 0.5
    return tf.where(coins, tf.reverse(images, axis=[2]), images)


def augment(images: tf.Tensor, seed: tf.Tensor, kind: str) -> tf.Tensor:
    """Applies what `--augment` names: "none", "crop" or "crop_flip".

    The crop pads by an eighth of the height: 4 pixels for 32, 1 for 8.

    Args:
        images: `(batch, height, width, channels)` with known height.
        seed: `(2,)` integers.
        kind: one of the three.
    """
    if kind == "none":
        return images
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    images = random_crop(images, crop_seed, images.shape[1] // 8)
    return random_flip(images, flip_seed) if kind == "crop_flip" else images
