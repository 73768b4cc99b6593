import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from bnhead.data import checks, decoding, load
from bnhead.data.memory import InMemory
from bnhead.data.sets.digits import rotate_digit
from bnhead.data.stream import Streamed
from bnhead.errors import DataError, UsageError
from tests.data.small_sets import smooth, write_folder, write_set


@pytest.fixture(scope="module")
def digits(data_dir):
    return load("digits", data_dir)


def rows(images):
    return sorted(image.tobytes() for image in images)


def test_digits_are_scikit_learns(digits):
    original = load_digits()
    pixels = np.rint(original.images * 255 / 16).astype(np.uint8)[..., None]
    assert rows(np.concatenate([digits.train.images, digits.test.images])) == rows(pixels)
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    assert np.bincount(labels).tolist() == np.bincount(original.target).tolist()
    label_of = {image.tobytes(): label for image, label in zip(pixels, original.target, strict=True)}
    for image, label in zip(digits.test.images, digits.test.labels, strict=True):
        assert label_of[image.tobytes()] == label


def test_digits_split_is_fixed_and_stratified(digits):
    assert (digits.name, digits.shape, digits.classes) == ("digits/1.0.0", (8, 8, 1), tuple("0123456789"))
    assert (digits.train.size, digits.test.size) == (1437, 360)
    everything = np.bincount(np.concatenate([digits.train.labels, digits.test.labels]))
    np.testing.assert_allclose(np.bincount(digits.test.labels), everything * 360 / 1797, atol=1)
    assert digits.train.fingerprint()[:16] == "02042eeda642d6e5"
    assert digits.test.fingerprint()[:16] == "75576534f3d6ea6a"


def test_streamed_examples_are_those_in_memory(digits, data_dir):
    streamed = load("digits", data_dir, memory_limit=0)
    assert isinstance(digits.test, InMemory) and isinstance(streamed.test, Streamed)
    images, labels = zip(*streamed.test.evaluation_batches(77).as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), digits.test.images)
    np.testing.assert_array_equal(np.concatenate(labels), digits.test.labels)
    assert (streamed.train.size, streamed.test.size) == (1437, 360)
    assert streamed.test.fingerprint() != streamed.train.fingerprint()


def test_images_are_resized_on_request(data_dir):
    resized = load("digits", data_dir, image_size=12)
    assert resized.shape == (12, 12, 1) == resized.train.images.shape[1:]
    original = load("digits", data_dir).train.images
    expected = tf.image.resize(original[:5], (12, 12), antialias=True)
    np.testing.assert_allclose(resized.train.images[:5], expected, atol=0.51)


@pytest.fixture(scope="module")
def own_sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    grey = [(np.full((6, 6, 1), 7, np.uint8), 0), (np.full((6, 6, 1), 9, np.uint8), 1)]
    sized = [(np.zeros((5, 6, 1), np.uint8), 0), (np.zeros((7, 4, 1), np.uint8), 1)]
    image, fixed = tfds.features.Image(shape=(None, None, 1)), tfds.features.Image(shape=(6, 6, 1))
    label = tfds.features.ClassLabel(names=["cat", "dog"])
    write_set(folder, "grey", fixed, label, grey)
    write_set(folder, "sized", image, label, sized)
    write_set(folder, "validated", fixed, label, grey, ("train", "validation"))
    write_set(folder, "only_train", fixed, label, grey, ("train",))
    write_set(folder, "numbers", fixed, tfds.features.Scalar(np.float32), [(x, 0.5) for x, _ in grey])
    deep = tfds.features.Image(shape=(6, 6, 1), dtype=np.uint16)
    write_set(folder, "deep", deep, label, [(x.astype(np.uint16), y) for x, y in grey])
    write_set(folder, "unlabelled", fixed, label, [(x, -1) for x, _ in grey])
    return str(folder)


def test_a_set_of_ones_own(own_sets):
    grey = load("grey", own_sets)
    assert (grey.shape, grey.classes, grey.train.size) == ((6, 6, 1), ("cat", "dog"), 2)
    assert load("validated", own_sets).test.size == 2
    assert load("sized", own_sets, image_size=6).train.images.shape == (2, 6, 6, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sized", "images have many sizes.*set image_size"),
        ("only_train", "has no test or validation split, only train"),
        ("numbers", "is not a classification set"),
        ("unlabelled", "labels -1 to -1, classes 0 to 1"),
        ("deep", "images must be of dtype uint8, got uint16"),
        ("digits:9.9.9", "the only version is 1.0.0"),
        ("cifar10", r"'cifar10' is not prepared in .*cifar10.*`tfds build cifar10 --data_dir="),
        ("cifar10:9.9.9", "'cifar10:9.9.9' cannot be opened: .*9.9.9"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_cannot_be_trained_on_is_said_in_one_line(own_sets, name, message):
    with pytest.raises(DataError, match=message) as caught:
        load(name, own_sets)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_a_usage_error(data_dir):
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        load("digts", data_dir)


def test_a_place_that_cannot_hold_the_digits_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="digits cannot be prepared in"):
        load("digits", str(tmp_path / "file"))


def test_a_process_that_loses_the_race_waits_for_the_winner(data_dir, tmp_path, monkeypatch):
    """Two processes prepare at once: for the loser TFDS' final rename fails once, then the set is there."""
    from bnhead.data.sets import tfds

    class Losing(tfds.Digits, skip_registration=True):
        name = "digits"

        def download_and_prepare(self, **options):
            if not self.is_prepared():
                shutil.copytree(f"{data_dir}/digits", tmp_path / "digits")
                raise FileExistsError(tmp_path)
            super().download_and_prepare(**options)

    monkeypatch.setattr(tfds, "Digits", Losing)
    assert load("digits", str(tmp_path)).train.size == 1437


def test_rotated_digits_are_the_digits_turned(data_dir):
    rotated = load("digits_rotation", data_dir, task="regression")
    assert (rotated.name, rotated.shape, rotated.classes, rotated.outputs) == (
        "digits_rotation/1.0.0", (16, 16, 1), (), 1,
    )  # fmt: skip
    assert (rotated.train.size, rotated.test.size) == (1437, 360)
    angles = rotated.train.labels
    assert angles.shape == (1437, 1) and angles.dtype == "float32"
    assert -45 <= angles.min() < -44 and 44 < angles.max() <= 45
    assert rotated.train.fingerprint()[:16] == "8543d71c1ca18f44"
    assert rotated.test.fingerprint()[:16] == "cdf194f8b60ef906"
    mean, deviation = rotated.target_moments()
    np.testing.assert_allclose([mean[0], deviation[0]], [angles.mean(), angles.std()], rtol=1e-4)
    drawn = np.random.default_rng(0).uniform(-45, 45, 1797).astype("float32")
    images = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    wanted = {rotate_digit(image, angle).tobytes(): angle for image, angle in zip(images, drawn, strict=True)}
    for image, angle in zip(rotated.test.images, rotated.test.labels, strict=True):
        assert wanted[image.tobytes()] == angle[0]


@pytest.mark.parametrize("degrees", [90, -90])
def test_turning_is_counter_clockwise_about_the_middle(degrees):
    image = np.random.default_rng(0).integers(0, 256, (8, 8)).astype("uint8")
    upright = rotate_digit(image, 0)
    np.testing.assert_allclose(rotate_digit(image, degrees), np.rot90(upright, degrees // 90), atol=1)
    assert upright.shape == (16, 16) and upright.dtype == "uint8"


def test_streamed_numbers_are_those_in_memory(data_dir):
    kept = load("digits_rotation", data_dir, task="regression")
    streamed = load("digits_rotation", data_dir, task="regression", memory_limit=0)
    np.testing.assert_array_equal(streamed.test.labels, kept.test.labels)
    np.testing.assert_allclose(streamed.target_moments(), kept.target_moments())


def test_class_counts(digits, data_dir):
    assert digits.class_counts() == np.bincount(digits.train.labels).tolist()
    assert load("digits", data_dir, memory_limit=0).class_counts() == digits.class_counts()


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("digits", "regression", "has 10 classes as labels, but task regression needs numbers"),
        ("digits_rotation", "classification", "is not a classification set.*numbers are for task regression"),
    ],
)
def test_labels_must_be_the_tasks(name, task, message, data_dir):
    with pytest.raises(DataError, match=message):
        load(name, data_dir, task=task)


def test_whole_numbers_and_vectors_are_numbers_too(tmp_path):
    image = tfds.features.Image(shape=(4, 4, 1))
    pixels = np.zeros((4, 4, 1), np.uint8)
    whole = tfds.features.Scalar(np.int64)
    write_set(tmp_path, "counts", image, whole, [(pixels, i) for i in range(6)])
    counts = load("counts", str(tmp_path), task="regression")
    assert counts.outputs == 1 and counts.train.labels.dtype == "float32"
    assert sorted(counts.train.labels[:, 0]) == [0, 1, 2, 3, 4, 5]
    pair = tfds.features.Tensor(shape=(2,), dtype=np.float32)
    write_set(tmp_path, "pairs", image, pair, [(pixels, [i, np.nan if i == 3 else 1]) for i in range(6)])
    with pytest.raises(DataError, match=r"pairs/1\.0\.0, train: 1 labels are not finite"):
        load("pairs", str(tmp_path), task="regression")


def pictures(root, sizes, names=("train/a/0", "train/b/0", "test/a/0", "test/b/0")):
    """A folder of PNGs of these heights and widths; its name."""
    content = {
        f"{name}.png": smooth(*size, i) for i, (name, size) in enumerate(zip(names, sizes, strict=True))
    }
    return f"folder:{write_folder(root / 'pictures', content)}"


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_a_folder_of_pictures_of_one_size_needs_no_other(tmp_path, memory_limit, crop):
    name = pictures(tmp_path, [(12, 9)] * 4)
    for _ in range(2):  # the second time from what is known of the first
        data = load(name, str(tmp_path), crop=crop, memory_limit=memory_limit)
        assert data.shape == (12, 9, 3)
        images, _ = next(data.train.evaluation_batches(2).as_numpy_iterator())
        np.testing.assert_array_equal(images, [smooth(12, 9, 0), smooth(12, 9, 1)])


def test_a_size_is_that_of_pictures_as_they_are_seen(tmp_path):
    name = pictures(tmp_path, [(12, 9)] * 4)
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    Image.fromarray(smooth(9, 12)).save(tmp_path / "pictures/train/b/turned.png", exif=exif)
    assert load(name, str(tmp_path)).shape == (12, 9, 3)
    Image.fromarray(smooth(12, 9)).save(tmp_path / "pictures/train/b/turned.png", exif=exif)
    with pytest.raises(DataError, match="many sizes, such as 9 x 12 and 12 x 9; set image_size"):
        load(name, str(tmp_path))


def test_a_set_that_does_not_tell_its_one_size(tmp_path):
    image, label = tfds.features.Image(shape=(None, None, 1)), tfds.features.ClassLabel(num_classes=2)
    write_set(tmp_path, "own", image, label, [(np.full((5, 7, 1), i, np.uint8), i) for i in (0, 1)])
    assert load("own", str(tmp_path)).train.images.shape == (2, 5, 7, 1)


def test_a_picture_that_cannot_be_decoded_is_named_before_there_is_a_size(tmp_path):
    name = pictures(tmp_path, [(12, 9)] * 4)
    (tmp_path / "pictures/train/b/0.png").write_bytes(b"text")
    with pytest.raises(
        DataError, match=r"train/b/0\.png cannot be decoded: .*the picture is not a JPEG"
    ) as caught:
        load(name, str(tmp_path))
    assert "{{" not in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_beside_the_splits_or_hidden_is_nothing(tmp_path):
    strangers = ("figures/paper/a", "train/.ipynb_checkpoints/a", "__MACOSX/train/a", "validation/c/a")
    names = ("train/a/0", "train/b/0", "test/a/0", "test/b/0", *strangers)
    data = load(pictures(tmp_path, [(8, 8)] * 8, names), str(tmp_path))
    assert (data.classes, data.train.size, data.test.size) == (("a", "b"), 2, 2)
    assert checks.inspect(data)["warnings"] == []


def test_what_is_left_out_of_a_folder_is_one_warning(tmp_path):
    name = pictures(tmp_path, [(8, 8)] * 4)
    for left_out in ("train/a/1.heic", "train/a/deep/2.png", "test/b/3.heic"):
        (tmp_path / "pictures" / left_out).parent.mkdir(exist_ok=True)
        (tmp_path / "pictures" / left_out).write_bytes(b"")
    told = "3 files are left out: 2 .heic, 1 in deeper folders"
    assert checks.inspect(load(name, str(tmp_path)))["warnings"] == [told]
    assert load(f"domains:{name},{name}/../pictures", str(tmp_path), image_size=8).notes == (told, told)


def test_a_folder_has_no_numbers(tmp_path):
    with pytest.raises(DataError, match="has 2 classes as labels, but task regression needs numbers"):
        load(pictures(tmp_path, [(8, 8)] * 4), str(tmp_path), task="regression")


def test_a_picture_that_is_damaged_is_named_and_other_errors_pass(tmp_path, data_dir):
    pictures = {
        f"{s}/{n}/{i}.png": smooth(8, 8, i) for s in ("train", "test") for n in "ab" for i in range(3)
    }
    root = write_folder(tmp_path / "pictures", pictures)
    data = load(f"folder:{root}", data_dir, image_size=8, memory_limit=0)
    (tmp_path / "pictures" / "train" / "b" / "1.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(DataError, match=r"train/b/1\.png cannot be decoded"), data.naming_pictures():
        raise tf.errors.InvalidArgumentError(None, None, "Invalid PNG data")
    with pytest.raises(tf.errors.InvalidArgumentError), data.naming_pictures():
        raise tf.errors.InvalidArgumentError(None, None, "shapes do not match")
    with pytest.raises(tf.errors.ResourceExhaustedError), data.naming_pictures():
        raise tf.errors.ResourceExhaustedError(None, None, "memory for an image")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_picture_that_went_while_it_was_used_is_named(tmp_path, data_dir, split):
    names = [f"{s}/{n}/{i}" for s in ("train", "test") for n in "ab" for i in range(4)]
    root = write_folder(tmp_path / "pictures", {f"{name}.png": smooth(8, 8) for name in names})
    data = load(f"folder:{root}", data_dir, memory_limit=0, validation=0.5)
    gone = getattr(data, split)
    path = gone.reader.describe(0 if gone.kept is None else int(gone.kept[0]))
    os.unlink(path)
    with (
        pytest.raises(DataError, match=f"^{re.escape(path)} cannot be read: .*No such file"),
        data.naming_pictures(),
    ):
        list(gone.evaluation_batches(4))
    with (
        pytest.raises(tf.errors.NotFoundError),
        load("digits", data_dir).naming_pictures(),
    ):
        raise tf.errors.NotFoundError(None, None, "a log")
