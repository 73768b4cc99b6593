import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from bnhead.data import decoding
from tests.data.small_sets import smooth

PICTURE = smooth(20, 30)


def encoded(kind, image=None, **options):
    file = io.BytesIO()
    (Image.fromarray(PICTURE) if image is None else image).save(file, kind, **options)
    return file.getvalue()


def turned_by(number):
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = number
    return exif


def see_through(alpha):
    """The picture with an opacity of its own in each row."""
    return Image.fromarray(np.dstack([PICTURE, np.broadcast_to(alpha, PICTURE.shape[:2])]).astype("uint8"))


def at_once(content):
    """Decoded outside of a graph, as to find the one that cannot be."""
    return decoding.decode_picture(tf.constant(content)).numpy()


def in_graph(content):
    """Decoded as a `tf.data` pipeline does it."""
    return next(iter(tf.data.Dataset.from_tensors(content).map(decoding.decode_picture))).numpy()


@pytest.mark.parametrize("decode", [in_graph, at_once])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("JPEG", {}), ("GIF", {})],
)
def test_every_kind_is_read(kind, options, decode):
    content = encoded(kind, **options)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    result = decode(content)
    assert result.dtype == np.uint8 and result.shape == (20, 30, 3)
    np.testing.assert_allclose(result.astype(int), expected, atol=3 if kind == "JPEG" else 0)
    assert np.abs(result.astype(int) - PICTURE).mean() < 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_it_is_the_first_picture(kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    content = encoded(kind, frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(in_graph(content)[2, 3].astype(int), (255, 0, 0), atol=4)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_turned_as_their_exif_data_say(kind, number):
    content = encoded(kind, exif=turned_by(number), **({"lossless": True} if kind == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    result = in_graph(content)
    assert result.shape == expected.shape == ((30, 20, 3) if number > 4 else (20, 30, 3))
    np.testing.assert_allclose(result.astype(int), expected, atol=3)
    np.testing.assert_array_equal(at_once(content), result)
    assert bool(decoding.is_upright_jpeg(tf.constant(content))) == (kind == "JPEG" and number == 1)


def test_exif_data_that_cannot_be_read_turn_nothing():
    content = encoded("JPEG", exif=turned_by(3)).replace(b"Exif\0\0", b"Exif\0\0junk", 1)
    for changed in (content, encoded("JPEG", exif=turned_by(77)), b"\xff\xd8\xffExif"):
        assert int(decoding.orientation(changed)) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_shows_white(kind):
    alpha = np.linspace(0, 255, 20).round()[:, None]
    content = encoded(
        kind, see_through(alpha), **({"lossless": True, "exact": True} if kind == "WEBP" else {})
    )
    share = alpha[..., None] / 255
    np.testing.assert_allclose(in_graph(content), share * PICTURE + (1 - share) * 255, atol=1.01)


def test_a_transparent_colour_of_a_palette_is_white():
    image = Image.new("P", (4, 2), 0)
    image.putpalette([200, 0, 200, 0, 90, 0])
    image.putpixel((3, 1), 1)
    for kind in ("PNG", "GIF"):
        pixels = in_graph(encoded(kind, image, transparency=0))
        assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[1, 3].tolist() == [0, 90, 0]


def test_grey_with_opacity_shows_white():
    grey = Image.fromarray(PICTURE[..., 0])
    content = encoded("PNG", Image.merge("LA", (grey, Image.new("L", grey.size, 51))))
    expected = np.repeat(PICTURE[..., :1] * 0.2 + 255 * 0.8, 3, -1)
    np.testing.assert_allclose(in_graph(content), expected, atol=0.51)


def test_16_bits_and_grey_become_8_bits_of_colour():
    deep = tf.io.encode_png(PICTURE.astype(np.uint16) * 257)
    np.testing.assert_array_equal(in_graph(deep), PICTURE)
    grey = in_graph(encoded("PNG", Image.fromarray(PICTURE[..., 0])))
    np.testing.assert_array_equal(grey, np.repeat(PICTURE[..., :1], 3, -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the picture is empty"),
        (b"<html>", "the picture is not a JPEG, PNG, GIF, WebP or BMP"),
        (encoded("TIFF"), "the picture is not a JPEG, PNG, GIF, WebP or BMP"),
        (encoded("WEBP")[:100], "the picture is damaged: "),
        (encoded("BMP")[:100], "the picture is damaged: "),
        (encoded("PNG")[:100], "PNG"),
        (encoded("JPEG")[:100], "JPEG"),
    ],
    ids=["empty", "text", "tiff", "webp", "bmp", "png", "jpeg"],
)
def test_what_cannot_be_decoded(content, message):
    for decode in (in_graph, at_once):
        with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=message):
            decode(content)
