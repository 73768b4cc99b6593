import numpy as np
import pytest
import tensorflow_datasets as tfds

from bnhead.data import load
from bnhead.data.corruptions import corrupted
from bnhead.data.memory import InMemory
from bnhead.data.sets.domains import common_shape, on_patches, same_classes
from bnhead.errors import DataError, UsageError
from tests.data.small_sets import smooth, write_folder, write_set

NAMES = [str(k) for k in range(10)]


@pytest.fixture(scope="module")
def colour(tmp_path_factory, data_dir):
    """A folder of colour pictures with the digits' classes."""
    pictures = {
        f"{split}/{name}/{i}.png": smooth(12, 12, int(name) + i)
        for split, count in (("train", 3), ("test", 1))
        for name in NAMES
        for i in range(count)
    }
    return write_folder(tmp_path_factory.mktemp("colour"), pictures)


def test_two_sets_as_one(colour, data_dir):
    both = load(f"domains:digits,folder:{colour}", data_dir, image_size=12)
    digits = load("digits", data_dir, image_size=12)
    assert both.name == f"digits/1.0.0+folder:{colour}" and both.shape == (12, 12, 3)
    assert both.domains == ("digits", f"folder:{colour}") and both.classes == tuple(NAMES)
    assert np.bincount(both.train.domains).tolist() == [1437, 30]
    assert np.bincount(both.test.domains).tolist() == [360, 10]
    np.testing.assert_array_equal(both.train.images[:1437], np.repeat(digits.train.images, 3, -1))
    np.testing.assert_array_equal(both.train.labels[:1437], digits.train.labels)
    np.testing.assert_array_equal(both.train.labels[1437:], np.repeat(np.arange(10), 3))


def test_domains_go_along_with_their_examples(colour, data_dir):
    name = f"domains:folder:{colour},digits"
    both = load(name, data_dir, image_size=12, validation=0.2, imbalance="longtail:10")
    grey = (both.train.images == both.train.images[..., :1]).all((1, 2, 3))
    np.testing.assert_array_equal(both.train.domains, grey)
    held_out = (both.validation.images == both.validation.images[..., :1]).all((1, 2, 3))
    np.testing.assert_array_equal(both.validation.domains, held_out)
    assert set(both.train.domains) == {0, 1} and both.train.fingerprint() != both.test.fingerprint()
    moved = both.train.domains.copy()
    moved[0] = 1 - moved[0]
    assert (
        type(both.train)(both.train.images, both.train.labels, moved).fingerprint()
        != both.train.fingerprint()
    )


def test_the_common_shape_is_the_largest(data_dir, colour):
    assert common_shape([(8, 9, 1), (28, 5, 3)]) == (28, 9, 3)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([("a", "b"), ("a", "b", "c")], "the same classes: one has 2, two 3"),
        ([("a", "b"), ("a", "c")], "the same classes: class 1 is 'b' in one, 'c' in two"),
    ],
)
def test_other_classes_are_refused(classes, message):
    with pytest.raises(DataError, match=message):
        same_classes(["one", "two"], classes)


def test_what_cannot_be_joined(tmp_path, data_dir):
    image, label = tfds.features.Image(shape=(4, 4, 1)), tfds.features.ClassLabel(names=["cat", "dog"])
    for name in ("cats", "dogs"):
        write_set(tmp_path, name, image, label, [(np.zeros((4, 4, 1), np.uint8), i) for i in (0, 1)])
    assert load("domains:cats,dogs", str(tmp_path)).train.size == 4
    with pytest.raises(DataError, match=r"same classes: cats/1\.0\.0 has 2, digits/1\.0\.0 10"):
        load("domains:cats,digits", str(tmp_path))
    with pytest.raises(DataError, match=r"domains must fit in memory.*image_size"):
        load("domains:cats,dogs", str(tmp_path), memory_limit=10)
    with pytest.raises(UsageError, match="task regression has numbers"):
        load("domains:cats,dogs", str(tmp_path), task="regression")


def test_a_target_keeps_the_labels_of_its_test_alone(colour, data_dir):
    name = f"domains:folder:{colour},digits"
    data = load(name, data_dir, image_size=8, unlabelled_target=True)
    both = load(name, data_dir, image_size=8)
    assert (data.train.size, data.target.size, data.test.size) == (30, 1437, 360)
    np.testing.assert_array_equal(data.train.images, both.train.images[:30])
    np.testing.assert_array_equal(data.target.images, both.train.images[30:])
    np.testing.assert_array_equal(data.test.labels, both.test.labels[10:])
    np.testing.assert_array_equal(data.target.labels, np.arange(1437))
    fewer = load(name, data_dir, image_size=8, unlabelled_target=True, train_examples=20)
    assert fewer.train.size == fewer.target.size == 20
    np.testing.assert_array_equal(fewer.target.labels, np.arange(20))


def test_a_corrupted_part(data_dir):
    data = load("domains:digits,digits+contrast:3", data_dir)
    digits = load("digits", data_dir)
    assert data.name.endswith("+contrast:3") and data.domains == ("digits", "digits+contrast:3")
    for split, plain in ((data.train, digits.train), (data.test, digits.test)):
        np.testing.assert_array_equal(split.images[: plain.size], plain.images)
        np.testing.assert_array_equal(split.images[plain.size :], corrupted(plain.images, "contrast:3"))


def test_a_part_on_patches_of_pictures():
    random = np.random.default_rng(0)
    digits = InMemory(random.integers(0, 256, (9, 4, 3, 2)).astype("uint8"), np.arange(9))
    pictures = random.integers(0, 256, (3, 6, 5, 2)).astype("uint8")
    drawn = on_patches(digits, pictures)
    np.testing.assert_array_equal(drawn.images, on_patches(digits, pictures).images)
    np.testing.assert_array_equal(drawn.labels, digits.labels)
    patches = [
        picture[top : top + 4, left : left + 3].astype(int)
        for picture in pictures
        for top in range(3)
        for left in range(3)
    ]
    for image, digit in zip(drawn.images, digits.images, strict=True):
        assert any((np.abs(patch - digit) == image).all() for patch in patches)
    with pytest.raises(DataError, match="pictures of 6 x 5 x 2 have no patches of 7 x 3 x 2"):
        on_patches(InMemory(np.zeros((1, 7, 3, 2), "uint8"), np.arange(1)), pictures)
