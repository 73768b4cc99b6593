"""Every bad input ends in one clear line, or is handled and nothing is lost."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from bnhead.data import checks, load
from bnhead.data.checks import inspect_data
from bnhead.errors import DataError
from bnhead.training import TrainConfig, train
from bnhead.training.estimate import estimate
from tests.data.small_sets import smooth, write_folder, write_set

JPEG = tf.io.encode_jpeg(smooth(24, 24)).numpy()
GOOD = {
    f"{split}/{name}/{i}.jpg": smooth(24, 24, i + ord(name))
    for split in ("train", "test")
    for name in "ab"
    for i in range(3)
}
IMAGE = tfds.features.Image(shape=(24, 24, 3))
LABEL = tfds.features.ClassLabel(names=["a", "b"])
WHOLE, SEVERAL = tfds.features.Scalar(np.int64), tfds.features.Tensor(shape=(2,), dtype=np.int64)
PIXELS = [smooth(24, 24, i) for i in range(4)]
EXAMPLES = [(smooth(24, 24, i), i % 2) for i in range(4)]


def folder(changes, drop=()):
    """Writes the good folder with changes and returns its name."""

    def write(place):
        content = {
            name: picture for name, picture in {**GOOD, **changes}.items() if not name.startswith(drop)
        }
        return f"folder:{write_folder(place / 'pictures', content)}"

    return write


def own_set(image=IMAGE, label=LABEL, examples=EXAMPLES, splits=("train", "test")):
    """Writes a TFDS set and returns its name."""

    def write(place):
        write_set(place, "own", image, label, examples, splits)
        return "own"

    return write


def empty_test(place):
    name = folder({}, "test")(place)
    (place / "pictures/test/a").mkdir(parents=True)
    return name


DEEP = tfds.features.Image(shape=(24, 24, 3), dtype=np.uint16)
FLOATS = tfds.features.Image(shape=(24, 24, 1), dtype=np.float32)
NAN_PIXEL = [(np.full((24, 24, 1), np.nan if i else 0, np.float32), i) for i in (0, 1)]

LINES = {
    "no test split": (folder({}, "test"), {}, "has no test or validation split, only train"),
    "no train split": (folder({}, "train"), {}, "there is no folder train"),
    "a split beside classes": (
        folder({"a/0.jpg": JPEG, "c/x.txt": b""}, "test"), {},
        "has the folder 'train', the name of a split, beside 'a', 'c'; use PATH/train/<class> and "
        "PATH/test/<class>, or PATH/<class> alone",
    ),
    "a test split beside classes": (
        folder({f"{name}/0.jpg": JPEG for name in "gfedcab"}, "train"), {},
        "'test', the name of a split, beside 'a', 'b', 'c', 'd', 'e' and 2 more; use",
    ),
    "flat: too few pictures": (
        folder({"a/0.jpg": JPEG, "b/0.jpg": JPEG, "b/1.jpg": JPEG, "c/.keep": b""}, ("train", "test")), {},
        r"each class needs at least 2 pictures, one to train on and one to test on; too few in 'a' \(1\), "
        r"'c' \(0\)$",
    ),
    "flat: one class": (
        folder({"a/0.jpg": JPEG, "a/1.png": smooth(24, 24, 9)}, ("train", "test")), {},
        "needs at least two classes, got only 'a'",
    ),
    "flat: splits by other names": (
        folder({f"{split}/a/0.jpg": JPEG for split in ("Training", "Testing")}, ("train", "test")), {},
        r"class 'Testing' has no .*\.webp, \.bmp; 1 file is left out: 1 in deeper folders",
    ),
    "flat: no folder": (
        folder({"0.jpg": JPEG}, ("train", "test")), {},
        "or in .*pictures/<class>/.*; there are none, 1 file is left out: 1 beside the class folders",
    ),
    "no train split of a set": (own_set(splits=("test",)), {}, "has no train split, only test"),
    "empty split": (empty_test, {}, "test: the split is empty"),
    "no pictures": (
        folder({"train/c/x.txt": b""}, ("train/a", "train/b")), {},
        r"train: class 'c' has no .*\.webp, \.bmp; 1 file is left out: 1 \.txt",
    ),
    "no classes": (
        folder({"train/x.jpg": JPEG}, ("train/a", "train/b", "test")), {},
        "there are none, 1 file is left out: 1 beside the class folders",
    ),
    "ragged sizes": (
        folder({"test/a/7.jpg": smooth(20, 24)}), {"image_size": 0},
        "images have many sizes, such as 20 x 24 and 24 x 24; set image_size",
    ),
    "corrupt JPEG": (folder({"train/b/1.jpg": JPEG[:300]}), {}, "train/b/1.jpg cannot be decoded: "),
    "no picture": (folder({"test/a/1.png": b"text"}), {}, "test/a/1.png cannot be decoded: "),
    "empty file": (folder({"test/a/1.jpg": b""}), {}, "test/a/1.jpg cannot be decoded: "),
    "16-bit set": (
        own_set(DEEP, examples=[(x.astype(np.uint16), y) for x, y in EXAMPLES]), {},
        "images must be of dtype uint8, got uint16",
    ),
    "float labels": (
        own_set(label=tfds.features.Scalar(np.float32), examples=[(x, 0.5) for x, _ in EXAMPLES]), {},
        "is not a classification set, its labels are a Scalar .*float32; numbers are for task regression",
    ),
    "string labels": (
        own_set(label=tfds.features.Text(), examples=[(x, "cat") for x, _ in EXAMPLES]), {},
        "is not a classification set, its labels are a Text",
    ),
    "one class": (folder({}, ("train/a", "test/a")), {}, "needs at least two classes, got only 'b'"),
    "one class in training": (folder({}, "train/b"), {}, "needs at least two classes, got only 'a'"),
    "label out of range": (
        own_set(examples=[(x, -1) for x, _ in EXAMPLES]), {},
        "own/1.0.0, train: labels -1 to -1, classes 0 to 1",
    ),
    "NaN pixel": (own_set(FLOATS, examples=NAN_PIXEL), {}, "images must be of dtype uint8, got float32"),
    "one class and imbalance": (
        folder({}, ("train/a", "test/a")), {"imbalance": "longtail:10"},
        "needs at least two classes, got only 'b'",
    ),
    "one class and wrong labels": (
        folder({}, "train/b"), {"label_noise": 0.1}, "needs at least two classes, got only 'a'",
    ),
    "numbers that are rounded": (
        own_set(label=WHOLE, examples=[(x, 2**30 + i) for i, x in enumerate(PIXELS)]),
        {"task": "regression"},
        "own/1.0.0, train: float32 rounds targets by up to 3, and their standard deviation is 1.1",
    ),
    "numbers that are too large": (
        own_set(label=tfds.features.Scalar(np.float64), examples=[(x, 1e300 * y) for x, y in EXAMPLES]),
        {"task": "regression"}, "own/1.0.0, train: 2 labels are not finite in float32, which holds up to",
    ),
    "several classes of an image": (
        own_set(label=SEVERAL, examples=[(x, [1, 1]) for x in PIXELS]),
        {"task": "multilabel"}, "own/1.0.0 has a Tensor of .* task multilabel needs one class for each image",
    ),
    "nothing for validation": (own_set(), {"validation": 0.01}, "must leave examples on both sides"),
}  # fmt: skip


@pytest.mark.parametrize("memory_limit", [0, 2**30], ids=["streamed", "in memory"])
@pytest.mark.parametrize("case", LINES)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_it_ends_in_one_line(case, memory_limit, tmp_path):
    write, settings, message = LINES[case]
    name = write(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        data = load(name, str(tmp_path), **{"image_size": 24, "memory_limit": memory_limit, **settings})
        inspect_data(data)
        if memory_limit == 0:  # what a run does when a picture cannot be decoded
            raise DataError(data.train.unreadable() or data.test.unreadable() or "all is well")
    assert "\n" not in str(caught.value)


def test_16_bit_and_see_through_pngs_and_grey_are_read_as_colour(tmp_path):
    colour = smooth(24, 24)
    pictures = {
        "train/a/0.png": colour.astype(np.uint16) * 257,
        "train/a/1.png": np.concatenate([colour, np.full((24, 24, 1), 90, np.uint8)], -1),
        "train/b/0.png": colour[..., :1],
        "train/b/1.PNG": colour,
    }
    name = folder(pictures, ("train/a/2.j", "train/b/2.j"))(tmp_path)
    images = load(name, str(tmp_path), image_size=24).train.images
    listed = sorted(n for n in {**GOOD, **pictures} if n.startswith("train") and "/2." not in n)
    for path, image in zip(listed, images, strict=True):
        if path == "train/b/0.png":
            np.testing.assert_array_equal(image, np.repeat(colour[..., :1], 3, -1))
        elif path == "train/a/1.png":
            np.testing.assert_allclose(image, colour * (90 / 255) + 255 * (165 / 255), atol=0.51)
        elif path in pictures:
            np.testing.assert_array_equal(image, colour)


def saved(kind, pixels, **options):
    """A picture's file as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("memory_limit", [0, 2**30], ids=["streamed", "in memory"])
@pytest.mark.parametrize("crop", [False, True])
def test_pictures_of_another_kind_than_their_name_says_are_read(tmp_path, memory_limit, crop):
    first, second = np.full((24, 24, 3), 200, np.uint8), np.full((24, 24, 3), 9, np.uint8)
    others = {
        "train/a/0.jpg": saved("GIF", first, save_all=True, append_images=[Image.fromarray(second)]),
        "train/a/1.jpg": saved("WEBP", first, lossless=True),
        "train/b/0.jpg": saved("BMP", first),
        "train/b/1.jpg": saved("PNG", first),
    }
    name = folder(others, ("train/a/2", "train/b/2"))(tmp_path)
    data = load(name, str(tmp_path), image_size=16, crop=crop, memory_limit=memory_limit)
    for batches in (data.train.training_batches(4, 1, 0, "imagenet"), data.train.evaluation_batches(4)):
        ((images, labels),) = batches.as_numpy_iterator()
        assert sorted(labels) == [0, 0, 1, 1] and (images == 200).all()


def test_fewer_examples_than_a_batch_end_before_the_run_begins(tmp_path):
    name = folder({})(tmp_path)
    config = TrainConfig(
        dataset=name, data_dir=str(tmp_path), workdir=str(tmp_path / "run"), image_size=24, batch_size=7
    )
    with pytest.raises(DataError, match="batch_size must be at most the 6 training images, got 7"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("work", [train, estimate])
def test_a_picture_that_cannot_be_decoded_stops_a_streaming_run_by_its_name(tmp_path, work, monkeypatch):
    monkeypatch.setattr(checks, "SAMPLE", 1)  # images that the checks look at: it is found in training
    name = folder({"train/b/1.jpg": JPEG[:300], "train/a/3.jpg": smooth(30, 40)})(tmp_path)
    config = TrainConfig(
        dataset=name, data_dir=str(tmp_path), workdir=str(tmp_path / "run"), image_size=24, batch_size=2,
        augment="imagenet", backbone="resnet8", head="fc", fc_units=8, epochs=1,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"train/b/1\.jpg cannot be decoded: ") as caught:
        work(config)
    assert "\n" not in str(caught.value)
    status = tmp_path / "run/status.json"
    assert "DataError" in status.read_text() if work is train else not status.exists()
