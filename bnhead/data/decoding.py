"""Pictures from any source as people see them: upright, on white, the first picture of an animation.

The content of the file, not its name, determines the format. TensorFlow decodes JPEG and PNG, Pillow the
other formats.
"""

import io

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from bnhead.texts import first_line

PILLOW_FORMATS = ("GIF", "WEBP", "BMP")
HEAD = 2**17  # bytes of a JPEG or PNG that are searched for EXIF data and a transparent colour
ORIENTATION = 0x0112  # EXIF tag
_PNG = b"\x89PNG\r\n\x1a\n"
# A PNG with an alpha channel (colour type 4 or 6), or with a transparent colour (chunk tRNS).
_TRANSPARENT_PNG = rb"\C{25}[\x04\x06]\C*|\C*tRNS\C*"


def decode_picture(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the pixels of a JPEG, PNG, GIF, WebP or BMP, oriented by its EXIF data.

    Transparent pixels are blended with white, and of 16 bits the upper 8 are used.

    Args:
        encoded: content of a file, a scalar string.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        tf.errors.InvalidArgumentError, ValueError: another format or a damaged file; ValueError only outside
            of a graph.
    """

    def from_jpeg():
        return orient(tf.image.decode_jpeg(encoded, channels=3), orientation(encoded))

    def from_png():
        image = tf.cond(
            tf.strings.regex_full_match(tf.strings.substr(encoded, 0, HEAD), _TRANSPARENT_PNG),
            lambda: on_white(tf.image.decode_png(encoded, channels=4)),
            lambda: tf.image.decode_png(encoded, channels=3),
        )
        return orient(image, orientation(encoded))

    def with_pillow():
        return tf.numpy_function(_decode_with_pillow, [encoded], tf.uint8)

    is_png = tf.strings.substr(encoded, 0, len(_PNG)) == _PNG
    formats = [(tf.io.is_jpeg(encoded), from_jpeg), (is_png, from_png)]
    return tf.ensure_shape(tf.case(formats, default=with_pillow), (None, None, 3))


def is_upright_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Whether the file is a JPEG that needs no rotation or mirroring."""
    return tf.io.is_jpeg(encoded) & (orientation(encoded) == 1)


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation, 1 to 8, of a JPEG or PNG; 1, upright, without readable EXIF data."""

    def read(content):
        try:
            with Image.open(_file_of(content), formats=("JPEG", "PNG")) as image:
                value = image.getexif().get(ORIENTATION)
        except Exception:  # Pillow raises errors of many types; unreadable EXIF data change nothing
            value = None
        return np.int64(value if value in range(1, 9) else 1)

    # A fast search comes first, since most files have no EXIF data and Python code is slow in a pipeline.
    has_exif = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, HEAD), rb"\C*(Exif|eXIf)\C*")
    value = tf.cond(
        has_exif,
        lambda: tf.numpy_function(read, [encoded], tf.int64),
        lambda: tf.constant(1, tf.int64),
    )
    return tf.ensure_shape(value, ())


def orient(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns an image `(height, width, 3)` uint8 upright, from an EXIF orientation, 1 to 8."""

    def transpose(image):  # by a gather: for uint8, tf.transpose prints warnings on some CPUs
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        positions = tf.range(height)[tf.newaxis] * width + tf.range(width)[:, tf.newaxis]
        return tf.gather(tf.reshape(image, (-1, 3)), positions)

    def change(image, orientations, function):
        return tf.cond(tf.reduce_any(orientation == orientations), lambda: function(image), lambda: image)

    image = change(image, [5, 6, 7, 8], transpose)
    image = change(image, [2, 3, 6, 7], lambda x: tf.reverse(x, [1]))
    return change(image, [3, 4, 7, 8], lambda x: tf.reverse(x, [0]))


def on_white(image: tf.Tensor) -> tf.Tensor:
    """Blends colour and opacity, `(height, width, 4)` uint8, with white: `(height, width, 3)` uint8."""
    colour, alpha = tf.cast(image[..., :3], tf.int32), tf.cast(image[..., 3:], tf.int32)
    return tf.cast((alpha * colour + (255 - alpha) * 255 + 127) // 255, tf.uint8)


def _decode_with_pillow(content: bytes | np.ndarray) -> np.ndarray:
    file = _file_of(content)
    if not file.getbuffer().nbytes:
        raise ValueError("the picture is empty")
    try:
        with Image.open(file, formats=PILLOW_FORMATS) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError("the picture is not a JPEG, PNG, GIF, WebP or BMP") from None
    except Exception as error:  # Pillow raises errors of many types
        raise ValueError(f"the picture is damaged: {first_line(error)}") from None
    ground = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(ground, upright).convert("RGB"))


def _file_of(content: bytes | np.ndarray) -> io.BytesIO:
    """Returns a file from an argument of `tf.numpy_function`: bytes in a graph, an array in eager mode."""
    return io.BytesIO(content if isinstance(content, bytes) else content.item())
