"""Changes of whole batches of training images, random by a seed that is passed in.

All are TensorFlow functions on `(batch, height, width, channels)` uint8, 0 to 255; the result depends on the
images and the seed alone, but XLA draws other random numbers of the same kind. None
of them belongs in an evaluation.

A crop with a mirror is one gather of pixels by computed places, not a pad, a crop, a reversal and a choice.
"""

import tensorflow as tf

GREY = 128  # what pixels scaled to -1 to 1 see as 0
PARTS = 2**16  # of mixup's share
AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # torchvision's RandomResizedCrop


def random_crop(images: tf.Tensor, seed: tf.Tensor, padding: int) -> tf.Tensor:
    """Pads each image with `padding` zeros on every side and cuts out its size at a random place.

    Each image has a place of its own. With padding 4 on 32 x 32 this is the augmentation of He et al. 2015,
    section 4.2.

    Args:
        images: `(batch, height, width, channels)`, any dtype.
        seed: `(2,)` integers.
        padding: pixels, at least 0; also the largest shift.
    """
    return _taken(images, _shifts(images, seed, padding), None)


def random_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors each image left to right with probability 1/2.

    Args:
        images: `(batch, height, width, channels)`, any dtype.
        seed: `(2,)` integers.
    """
    return _taken(images, tf.zeros((2, tf.shape(images)[0], 1), tf.int32), _coins(images, seed))


def _shifts(images: tf.Tensor, seed: tf.Tensor, padding: int) -> tf.Tensor:
    """`(2, batch, 1)` int32, down and to the right, each in [-padding, padding]."""
    corners = tf.random.stateless_uniform((2, tf.shape(images)[0], 1), seed, 0, 2 * padding + 1, tf.int32)
    return corners - padding


def _coins(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform((tf.shape(images)[0], 1), seed, 0, 2, tf.int32) == 1


def _taken(images: tf.Tensor, shifts: tf.Tensor, mirrored: tf.Tensor | None) -> tf.Tensor:
    """Shifted images, those that are `mirrored` `(batch, 1)` turned left to right after the shift."""
    batch, height, width = (tf.shape(images)[axis] for axis in range(3))
    rows = shifts[0] + tf.range(height)
    columns = shifts[1] + tf.range(width)
    if mirrored is not None:
        columns = tf.where(mirrored, tf.reverse(columns, [1]), columns)
    outside = -batch * height * width  # so far below 0 that no sum comes back
    starts = (tf.range(batch)[:, tf.newaxis] * height + rows) * width + 1
    starts = tf.where((rows >= 0) & (rows < height), starts, outside)
    columns = tf.where((columns >= 0) & (columns < width), columns, outside)
    places = tf.maximum(starts[:, :, tf.newaxis] + columns[:, tf.newaxis, :], 0)
    pixels = tf.pad(tf.reshape(images, (-1, images.shape[-1])), [[1, 0], [0, 0]])  # place 0 is black
    return tf.ensure_shape(tf.gather(pixels, places), images.shape)


def cutout(images: tf.Tensor, seed: tf.Tensor, size: int) -> tf.Tensor:
    """Paints a grey square into each image, centred on a random pixel and cut off at the border.

    DeVries & Taylor 2017, arXiv 1708.04552; they mask normalised images with 0, which is mid-grey here.

    Args:
        images: `(batch, height, width, channels)` uint8.
        seed: `(2,)` integers.
        size: the square's side in pixels.
    """
    batch, height, width = (tf.shape(images)[axis] for axis in range(3))
    seeds = tf.unstack(tf.random.split(seed, 2))

    def covered(length, own_seed):
        first = tf.random.stateless_uniform((batch, 1), own_seed, 0, length, tf.int32) - size // 2
        return (tf.range(length) >= first) & (tf.range(length) < first + size)

    square = covered(height, seeds[0])[:, :, tf.newaxis] & covered(width, seeds[1])[:, tf.newaxis, :]
    return tf.where(square[..., tf.newaxis], tf.cast(GREY, images.dtype), images)


def crop_windows(heights: tf.Tensor, widths: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Windows of random area and shape: top, left, height and width in pixels.

    Szegedy et al. 2015 as torchvision draws it: the area is uniform from 8 % to 100 %, the ratio of width to
    height log-uniform from 3/4 to 4/3; the first of ten windows that fits is taken, and if none does, the
    largest in the middle.

    Args:
        heights: `(batch,)` integers.
        widths: `(batch,)` integers.
        seeds: `(2,)` integers.

    Returns:
        `(batch, 4)` int32.
    """
    size = tf.cast(tf.stack([heights, widths]), tf.float32)[:, :, tf.newaxis]
    draws = tf.random.stateless_uniform((4, tf.shape(heights)[0], TRIES), seeds)
    area = size[0] * size[1] * (AREA[0] + draws[0] * (AREA[1] - AREA[0]))
    low, high = (tf.math.log(tf.constant(ratio, tf.float32)) for ratio in RATIO)
    ratio = tf.exp(low + draws[1] * (high - low))
    tried = tf.round(tf.stack([tf.sqrt(area / ratio), tf.sqrt(area * ratio)]))
    fits = tf.reduce_all((tried >= 1) & (tried <= size), axis=0)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    chosen = tf.gather(tf.stack([*tf.unstack(tried), draws[2], draws[3]], -1), first, batch_dims=1)
    place = tf.floor(chosen[:, 2:] * (tf.transpose(size[..., 0]) - chosen[:, :2] + 1))
    drawn = tf.concat([place, chosen[:, :2]], axis=1)
    return tf.cast(
        tf.where(tf.reduce_any(fits, axis=1, keepdims=True), drawn, _middle(size[..., 0])), tf.int32
    )


def _middle(size: tf.Tensor) -> tf.Tensor:
    """The largest window of an allowed ratio in the middle of images of `(2, batch)` height and width."""
    height, width = (
        tf.minimum(size[0], tf.round(size[1] / RATIO[0])),
        tf.minimum(size[1], tf.round(size[0] * RATIO[1])),
    )
    return tf.stack([(size[0] - height) // 2, (size[1] - width) // 2, height, width], axis=1)


def random_resized_crop(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A random window of each image (`crop_windows`), resized to the image's size, linear, pixels' middles.

    Args:
        images: `(batch, height, width, channels)` uint8 of known height and width.
        seed: `(2,)` integers.
    """
    size = tf.constant([float(length) for length in images.shape[1:3]])
    batch = tf.shape(images)[0]
    windows = crop_windows(tf.fill((batch,), images.shape[1]), tf.fill((batch,), images.shape[2]), seed)
    start, extent = tf.cast(windows[:, :2], tf.float32), tf.cast(windows[:, 2:], tf.float32)
    step = extent / size
    # a border repeated once, since the first and last places lie up to half a pixel outside
    bordered = tf.pad(tf.cast(images, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    first = start + step / 2 + 0.5
    last = start + extent - step / 2 + 0.5
    boxes = tf.concat([first, last], axis=1) / tf.tile(size + 1, [2])
    cropped = tf.image.crop_and_resize(bordered, boxes, tf.range(batch), images.shape[1:3])
    return tf.cast(tf.round(cropped), images.dtype)


def augment(images: tf.Tensor, seed: tf.Tensor, kind: str, cutout_size: int = 0) -> tf.Tensor:
    """Applies what `--augment` and `--cutout` name.

    The crop pads by an eighth of the height: 4 pixels for 32, 1 for 8.

    Args:
        images: `(batch, height, width, channels)` uint8 with known height and width.
        seed: `(2,)` integers.
        kind: "none", "crop", "crop_flip", "imagenet" (a random window, resized, and a mirror), or "flip", the
            mirror alone, for images whose window was cut while they were decoded.
        cutout_size: side of the square that is painted over, in pixels; 0 paints none.
    """
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    if kind in ("crop", "crop_flip"):
        mirrored = _coins(images, flip_seed) if kind == "crop_flip" else None
        images = _taken(images, _shifts(images, crop_seed, images.shape[1] // 8), mirrored)
    if kind == "imagenet":
        images = random_resized_crop(images, crop_seed)
    if kind in ("imagenet", "flip"):
        images = random_flip(images, flip_seed)
    return cutout(images, tf.random.fold_in(seed, 2), cutout_size) if cutout_size else images


def mixup(
    images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, alpha: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each example of a batch with another: `share * one + (1 - share) * other`.

    One share per batch, from Beta(alpha, alpha): Zhang et al. 2018, arXiv 1710.09412, and their code. It is
    rounded to 1/65536 and pixels are mixed in whole numbers, so that the bytes are the same in every graph.

    Args:
        images: `(batch, height, width, channels)` uint8; the mix is rounded.
        targets: `(batch, outputs)` float32: shares of the classes, or numbers.
        seed: `(2,)` integers.
        alpha: above 0; the smaller, the less is mixed.
    """
    order_seed, share_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, 3), 2))
    parts = tf.cast(tf.round(beta_draw(share_seed, alpha) * PARTS), tf.int32)
    other = tf.argsort(tf.random.stateless_uniform((tf.shape(images)[0],), order_seed))
    pixels = tf.cast(images, tf.int32)
    mixed = (parts * pixels + (PARTS - parts) * tf.gather(pixels, other) + PARTS // 2) // PARTS
    share = tf.cast(parts, tf.float32) / PARTS
    return tf.cast(mixed, images.dtype), share * targets + (1 - share) * tf.gather(targets, other)


def beta_draw(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """One draw from Beta(alpha, alpha), by logarithms of gamma draws: a small alpha does not underflow."""
    gamma_seed, power_seed = tf.unstack(tf.random.split(seed, 2))
    gammas = tf.random.stateless_gamma((2,), gamma_seed, alpha + 1.0)
    powers = tf.random.stateless_uniform((2,), power_seed, minval=1e-38)
    logs = tf.math.log(gammas) + tf.math.log(powers) / alpha
    return tf.sigmoid(logs[0] - logs[1])
