"""Augmentation: random changes of batches of training images, determined by a seed argument.

All are TensorFlow functions on `(batch, height, width, channels)` uint8, 0 to 255. The result depends only on
the images and the seed, except that XLA draws other random numbers. Evaluation uses none of them.
"""

import tensorflow as tf

Rows = tuple[int, int] | None  # place of the first image in its whole batch, and the size of that; None: all
GREY = 128  # 0 after scaling to [-1, 1]
PARTS = 2**16  # resolution of the share in mixup
AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # torchvision's RandomResizedCrop


def random_crop(images: tf.Tensor, seed: tf.Tensor, padding: int) -> tf.Tensor:
    """Pads each image with `padding` zeros on every side and crops its size at a random position.

    With padding 4 on 32 x 32 this is the augmentation of He et al. 2015, section 4.2.

    Args:
        images: `(batch, height, width, channels)`, any dtype.
        seed: `(2,)` integers.
        padding: pixels, at least 0; also the largest shift.
    """
    return _shift_and_mirror(images, _draw_shifts(images, seed, padding, None), None)


def random_flip(images: tf.Tensor, seed: tf.Tensor, rows: Rows = None) -> tf.Tensor:
    """Mirrors each image left to right with probability 1/2.

    Args:
        images: `(batch, height, width, channels)`, any dtype.
        seed: `(2,)` integers.
        rows: as of `augment`.
    """
    shifts = tf.zeros((2, tf.shape(images)[0], 1), tf.int32)
    return _shift_and_mirror(images, shifts, _draw_mirrored(images, seed, rows))


def _whole(images: tf.Tensor, rows: Rows) -> tf.Tensor | int:
    """The size of the whole batch, for which random numbers are drawn."""
    return tf.shape(images)[0] if rows is None else rows[1]


def _own(drawn: tf.Tensor, images: tf.Tensor, rows: Rows, axis: int = 0) -> tf.Tensor:
    """The numbers of these images among those of the whole batch."""
    if rows is None:
        return drawn
    return tf.gather(drawn, rows[0] + tf.range(tf.shape(images)[0]), axis=axis)


def _draw_shifts(images: tf.Tensor, seed: tf.Tensor, padding: int, rows: Rows) -> tf.Tensor:
    """Returns `(2, batch, 1)` int32, down and to the right, each in [-padding, padding]."""
    shape = 2, _whole(images, rows), 1
    corners = tf.random.stateless_uniform(shape, seed, 0, 2 * padding + 1, tf.int32)
    return _own(corners, images, rows, axis=1) - padding


def _draw_mirrored(images: tf.Tensor, seed: tf.Tensor, rows: Rows) -> tf.Tensor:
    drawn = tf.random.stateless_uniform((_whole(images, rows), 1), seed, 0, 2, tf.int32)
    return _own(drawn, images, rows) == 1


def _shift_and_mirror(images: tf.Tensor, shifts: tf.Tensor, mirrored: tf.Tensor | None) -> tf.Tensor:
    """Returns shifted images, mirrored after the shift if `mirrored`, `(batch, 1)` bool.

    One gather of pixels by computed positions replaces a pad, a crop, a reversal and a choice.
    """
    batch, height, width = (tf.shape(images)[axis] for axis in range(3))
    rows = shifts[0] + tf.range(height)
    columns = shifts[1] + tf.range(width)
    if mirrored is not None:
        columns = tf.where(mirrored, tf.reverse(columns, [1]), columns)
    outside = -batch * height * width  # the sum of row start and column stays below 0
    starts = (tf.range(batch)[:, tf.newaxis] * height + rows) * width + 1
    starts = tf.where((rows >= 0) & (rows < height), starts, outside)
    columns = tf.where((columns >= 0) & (columns < width), columns, outside)
    positions = tf.maximum(starts[:, :, tf.newaxis] + columns[:, tf.newaxis, :], 0)
    pixels = tf.pad(tf.reshape(images, (-1, images.shape[-1])), [[1, 0], [0, 0]])  # position 0 is black
    return tf.ensure_shape(tf.gather(pixels, positions), images.shape)


def cutout(images: tf.Tensor, seed: tf.Tensor, size: int, rows: Rows = None) -> tf.Tensor:
    """Paints a grey square into each image, centred on a random pixel and clipped at the border.

    DeVries & Taylor 2017, arXiv 1708.04552; they mask normalised images with 0, here mid-grey.

    Args:
        images: `(batch, height, width, channels)` uint8.
        seed: `(2,)` integers.
        size: side of the square in pixels.
        rows: as of `augment`.
    """
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    seeds = tf.unstack(tf.random.split(seed, 2))

    def covered(length, axis_seed):
        centres = tf.random.stateless_uniform((_whole(images, rows), 1), axis_seed, 0, length, tf.int32)
        first = _own(centres, images, rows) - size // 2
        return (tf.range(length) >= first) & (tf.range(length) < first + size)

    square = covered(height, seeds[0])[:, :, tf.newaxis] & covered(width, seeds[1])[:, tf.newaxis, :]
    return tf.where(square[..., tf.newaxis], tf.cast(GREY, images.dtype), images)


def crop_windows(heights: tf.Tensor, widths: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Draws windows of random area and aspect ratio: top, left, height and width in pixels.

    Szegedy et al. 2015 as in torchvision: the area is uniform from 8 % to 100 %, the ratio of width to height
    log-uniform from 3/4 to 4/3. The first of ten windows that fits is used; if none fits, the largest window
    of an allowed ratio in the centre.

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
    candidates = tf.round(tf.stack([tf.sqrt(area / ratio), tf.sqrt(area * ratio)]))
    fits = tf.reduce_all((candidates >= 1) & (candidates <= size), axis=0)
    # argmax of equal values returns the first, so this is the first candidate that fits
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    draw = tf.gather(tf.stack([*tf.unstack(candidates), draws[2], draws[3]], -1), first, batch_dims=1)
    corner = tf.floor(draw[:, 2:] * (tf.transpose(size[..., 0]) - draw[:, :2] + 1))
    windows = tf.concat([corner, draw[:, :2]], axis=1)

    rows, columns = size[0, :, 0], size[1, :, 0]
    height = tf.minimum(rows, tf.round(columns / RATIO[0]))
    width = tf.minimum(columns, tf.round(rows * RATIO[1]))
    central = tf.stack([(rows - height) // 2, (columns - width) // 2, height, width], axis=1)
    return tf.cast(tf.where(tf.reduce_any(fits, axis=1, keepdims=True), windows, central), tf.int32)


def random_resized_crop(images: tf.Tensor, seed: tf.Tensor, rows: Rows = None) -> tf.Tensor:
    """Resizes a random window of each image (`crop_windows`) to the size of the image.

    Linear interpolation between the centres of pixels.

    Args:
        images: `(batch, height, width, channels)` uint8 of known height and width.
        seed: `(2,)` integers.
        rows: as of `augment`.
    """
    size = tf.constant([float(length) for length in images.shape[1:3]])
    batch, whole = tf.shape(images)[0], _whole(images, rows)
    windows = crop_windows(tf.fill((whole,), images.shape[1]), tf.fill((whole,), images.shape[2]), seed)
    windows = _own(windows, images, rows)
    start, extent = tf.cast(windows[:, :2], tf.float32), tf.cast(windows[:, 2:], tf.float32)
    step = extent / size
    # crop_and_resize samples from corner to corner and gives 0 outside of the image; centres of pixels lie up
    # to half a pixel outside of its corners, so the border is repeated once and the box moved by a pixel
    bordered = tf.pad(tf.cast(images, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    first = start + step / 2 + 0.5
    last = start + extent - step / 2 + 0.5
    boxes = tf.concat([first, last], axis=1) / tf.tile(size + 1, [2])
    cropped = tf.image.crop_and_resize(bordered, boxes, tf.range(batch), images.shape[1:3])
    return tf.cast(tf.round(cropped), images.dtype)


def augment(
    images: tf.Tensor, seed: tf.Tensor, augmentation: str, cutout_size: int = 0, rows: Rows = None
) -> tf.Tensor:
    """Applies the augmentation of `--augment` and `--cutout`.

    The crop pads by an eighth of the height: 4 pixels for 32, 1 for 8.

    Args:
        images: `(batch, height, width, channels)` uint8 with known height and width.
        seed: `(2,)` integers.
        augmentation: "none", "crop", "crop_flip", "imagenet" (a random window, resized, and a mirror), or
            "flip" (only the mirror, for images whose window was cut while they were decoded).
        cutout_size: side of the painted square in pixels; 0 paints none.
        rows: if the images are consecutive rows of a larger batch, the first row and the size of that batch:
            they are augmented as in it.
    """
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    if augmentation in ("crop", "crop_flip"):
        mirrored = _draw_mirrored(images, flip_seed, rows) if augmentation == "crop_flip" else None
        shifts = _draw_shifts(images, crop_seed, images.shape[1] // 8, rows)
        images = _shift_and_mirror(images, shifts, mirrored)
    if augmentation == "imagenet":
        images = random_resized_crop(images, crop_seed, rows)
    if augmentation in ("imagenet", "flip"):
        images = random_flip(images, flip_seed, rows)
    return cutout(images, tf.random.fold_in(seed, 2), cutout_size, rows) if cutout_size else images


def mixup(
    images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, alpha: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each example of a batch with another: `share * example + (1 - share) * partner`.

    One share per batch, from Beta(alpha, alpha): Zhang et al. 2018, arXiv 1710.09412, and their code. It is
    rounded to 1/65536 and pixels are mixed in whole numbers, so that every graph gives the same bytes.

    Args:
        images: `(batch, height, width, channels)` uint8; the mixture is rounded.
        targets: `(batch, outputs)` float32: shares of the classes, or numbers.
        seed: `(2,)` integers.
        alpha: above 0; a smaller alpha mixes less.
    """
    order_seed, share_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, 3), 2))
    parts = tf.cast(tf.round(beta_draw(share_seed, alpha) * PARTS), tf.int32)
    partner = tf.argsort(tf.random.stateless_uniform((tf.shape(images)[0],), order_seed))
    pixels = tf.cast(images, tf.int32)
    mixed = (parts * pixels + (PARTS - parts) * tf.gather(pixels, partner) + PARTS // 2) // PARTS
    share = tf.cast(parts, tf.float32) / PARTS
    return tf.cast(mixed, images.dtype), share * targets + (1 - share) * tf.gather(targets, partner)


def beta_draw(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draws from Beta(alpha, alpha) through logarithms of gamma draws: a small alpha does not underflow."""
    gamma_seed, power_seed = tf.unstack(tf.random.split(seed, 2))
    gammas = tf.random.stateless_gamma((2,), gamma_seed, alpha + 1.0)
    powers = tf.random.stateless_uniform((2,), power_seed, minval=1e-38)
    logs = tf.math.log(gammas) + tf.math.log(powers) / alpha
    return tf.sigmoid(logs[0] - logs[1])
