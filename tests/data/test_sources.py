import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from bnhead.data import checks, decoding, load
from bnhead.errors import DataError, UsageError
from tests.data.small_sets import smooth, write_folder, write_set


def test_images_are_resized_on_request(data_dir):
    resized = load("digits", data_dir, image_size=12)
    assert resized.shape == (12, 12, 1) == resized.train.images.shape[1:]
    original = load("digits", data_dir).train.images
    expected = tf.image.resize(original[:5], (12, 12), antialias=True)
    np.testing.assert_allclose(resized.train.images[:5], expected, atol=0.51)


@pytest.fixture(scope="module")
def user_sets(tmp_path_factory):
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


def test_a_users_set(user_sets):
    grey = load("grey", user_sets)
    assert (grey.shape, grey.classes, grey.train.size) == ((6, 6, 1), ("cat", "dog"), 2)
    assert load("validated", user_sets).test.size == 2
    assert load("sized", user_sets, image_size=6).train.images.shape == (2, 6, 6, 1)


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
def test_a_set_that_cannot_be_trained_on_is_one_line(user_sets, name, message):
    with pytest.raises(DataError, match=message) as caught:
        load(name, user_sets)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_a_usage_error(data_dir):
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        load("digts", data_dir)


def test_a_directory_that_cannot_hold_the_digits_is_named(tmp_path):
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


def test_a_set_that_does_not_record_its_one_size(tmp_path):
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
    assert checks.inspect_data(data)["warnings"] == []


def test_what_is_left_out_of_a_folder_is_one_warning(tmp_path):
    name = pictures(tmp_path, [(8, 8)] * 4)
    for left_out in ("train/a/1.heic", "train/a/deep/2.png", "test/b/3.heic"):
        (tmp_path / "pictures" / left_out).parent.mkdir(exist_ok=True)
        (tmp_path / "pictures" / left_out).write_bytes(b"")
    told = "3 files are left out: 2 .heic, 1 in deeper folders"
    assert checks.inspect_data(load(name, str(tmp_path)))["warnings"] == [told]
    assert load(f"domains:{name},{name}/../pictures", str(tmp_path), image_size=8).notes == (told, told)


def test_a_folder_has_no_numbers(tmp_path):
    with pytest.raises(DataError, match="has 2 classes as labels, but task regression needs numbers"):
        load(pictures(tmp_path, [(8, 8)] * 4), str(tmp_path), task="regression")


def test_some_examples_of_the_splits(data_dir):
    data = load("digits", data_dir, train_examples=500, test_examples=100)
    assert (data.train.size, data.test.size) == (500, 100)
    with pytest.raises(DataError, match=r"test_examples must be at most the 360 of digits.*, got 361"):
        load("digits", data_dir, test_examples=361)
