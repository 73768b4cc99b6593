"""A picture file of anybody's as people see it: upright, on white, of an animation the first picture.

What kind of picture it is tells the content, not the name. TensorFlow decodes JPEG and PNG, Pillow the rest.
"""

import io

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from bnhead.texts import first_line

PILLOWS = ("GIF", "WEBP", "BMP")
HEAD = 2**17  # bytes of a JPEG or PNG in which EXIF data and a transparent colour are looked for
ORIENTATION = 0x0112  # EXIF's tag
_PNG = b"\x89PNG\r\n\x1a\n"
_SEE_THROUGH = rb"\C{25}[\x04\x06]\C*|\C*tRNS\C*"  # of its colour types, or with a transparent colour


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """The pixels of a JPEG, PNG, GIF, WebP or BMP, turned as its EXIF data say.

    What is transparent shows white through, and of 16 bits the upper 8 are taken.

    Args:
        encoded: a file's content, a scalar string.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        tf.errors.InvalidArgumentError, ValueError: it is another kind of file, or damaged; the second outside
            of a graph.
    """

    def from_jpeg():
        return turned(tf.image.decode_jpeg(encoded, channels=3), orientation(encoded))

    def from_png():
        image = tf.cond(
            tf.strings.regex_full_match(tf.strings.substr(encoded, 0, HEAD), _SEE_THROUGH),
            lambda: on_white(tf.image.decode_png(encoded, channels=4)),
            lambda: tf.image.decode_png(encoded, channels=3),
        )
        return turned(image, orientation(encoded))

    def from_others():
        return tf.numpy_function(_with_pillow, [encoded], tf.uint8)

    is_png = tf.strings.substr(encoded, 0, len(_PNG)) == _PNG
    kinds = [(tf.io.is_jpeg(encoded), from_jpeg), (is_png, from_png)]
    return tf.ensure_shape(tf.case(kinds, default=from_others), (None, None, 3))


def is_upright_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Whether it is a JPEG whose pixels lie in the file as people see them."""
    return tf.io.is_jpeg(encoded) & (orientation(encoded) == 1)


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation, 1 to 8, of a JPEG or PNG; 1, upright, where it has none that can be read."""
    has_exif = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, HEAD), rb"\C*(Exif|eXIf)\C*")
    found = tf.cond(
        has_exif,
        lambda: tf.numpy_function(_orientation, [encoded], tf.int64),
        lambda: tf.constant(1, tf.int64),
    )
    return tf.ensure_shape(found, ())


def turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """An image `(height, width, 3)` uint8 as people see it, from an EXIF orientation, 1 to 8."""

    def changed(image, where, change):
        return tf.cond(tf.reduce_any(orientation == where), lambda: change(image), lambda: image)

    image = changed(image, [5, 6, 7, 8], _transposed)
    image = changed(image, [2, 3, 6, 7], lambda x: tf.reverse(x, [1]))
    return changed(image, [3, 4, 7, 8], lambda x: tf.reverse(x, [0]))


def _transposed(image: tf.Tensor) -> tf.Tensor:
    """`(width, height, 3)` of `(height, width, 3)`; of bytes, `tf.transpose` complains on some CPUs."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    places = tf.range(height)[tf.newaxis] * width + tf.range(width)[:, tf.newaxis]
    return tf.gather(tf.reshape(image, (-1, 3)), places)


def on_white(image: tf.Tensor) -> tf.Tensor:
    """`(height, width, 3)` uint8 of colour and opacity, `(height, width, 4)` uint8, before a white ground."""

    colour, alpha = tf.cast(image[..., :3], tf.int32), tf.cast(image[..., 3:], tf.int32)
    return tf.cast((alpha * colour + (255 - alpha) * 255 + 127) // 255, tf.uint8)


def _orientation(content: bytes | np.ndarray) -> np.int64:
    file = _opened(content)
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            found = image.getexif().get(ORIENTATION)
    except Exception:  # of whatever kind Pillow's are: EXIF data that cannot be read turn nothing
        found = None
    return np.int64(found if found in range(1, 9) else 1)


def _with_pillow(content: bytes | np.ndarray) -> np.ndarray:
    file = _opened(content)
    if not file.getbuffer().nbytes:
        raise ValueError("the picture is empty")
    try:
        with Image.open(file, formats=PILLOWS) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError("the picture is no JPEG, PNG, GIF, WebP or BMP") from None
    except Exception as error:  # Pillow's are of many kinds
        raise ValueError(f"the picture is damaged: {first_line(error)}") from None
    ground = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(ground, upright).convert("RGB"))


def _opened(content: bytes | np.ndarray) -> io.BytesIO:
    """A file of what `tf.numpy_function` passes for a string: bytes in a graph, an array of them outside."""
    return io.BytesIO(content if isinstance(content, bytes) else content.item())
