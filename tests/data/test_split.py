import numpy as np
import pytest
import tensorflow as tf

from bnhead.data import load
from bnhead.data.split import Recipe
from tests.data.small_sets import epochs


@pytest.fixture(scope="module", params=["in memory", "streamed"])
def digits_train(request, data_dir):
    return load("digits", data_dir, memory_limit=0 if request.param == "streamed" else 2**30).train


@pytest.mark.parametrize("kind", ["none", "crop_flip"])
def test_the_same_seed_gives_the_same_bytes(digits_train, kind):
    for one, other in zip(epochs(digits_train, 2, 5, kind), epochs(digits_train, 2, 5, kind), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(epochs(digits_train, 2, 5, kind)[1], epochs(digits_train, 2, 6, kind)[1])


def test_training_epochs_differ(digits_train):
    _, labels = epochs(digits_train, 2)
    assert not np.array_equal(labels[0], labels[1])


@pytest.mark.parametrize("limit", [None, 1, 100, 359, 360, 500])
@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_evaluation_counts_every_example_once_in_order(data_dir, limit, memory_limit):
    test = load("digits", data_dir, memory_limit=memory_limit).test
    data = test.evaluation_batches(100, limit)
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    assert len(labels) == data.cardinality()
    expected = load("digits", data_dir).test
    np.testing.assert_array_equal(np.concatenate(labels), expected.labels[:limit])
    np.testing.assert_array_equal(np.concatenate(images), expected.images[:limit])


@pytest.mark.parametrize("kind", ["none", "crop_flip", "imagenet"])
def test_an_epoch_is_the_same_wherever_a_run_begins_and_whatever_the_global_seed(digits_train, kind):
    images, labels = epochs(digits_train, 4, 3, kind)
    for own, others in ((0, 1), (1, 2), (2, 3), (0, 3), (0, 2)):
        assert not np.array_equal(labels[own], labels[others])
    tf.random.set_seed(11)
    try:
        later = epochs(digits_train, 2, 3, kind, first=2)
    finally:
        tf.random.set_seed(12)
    np.testing.assert_array_equal(later[1], labels[2:])
    np.testing.assert_array_equal(later[0], images[2:])


def test_every_epoch_takes_from_the_whole_split_once(digits_train):
    images, _ = epochs(digits_train, 2)
    rows = [{image.tobytes() for image in epoch.reshape(-1, 8, 8, 1)} for epoch in images]
    assert [len(own) for own in rows] == [1400, 1400] and rows[0] != rows[1]


def test_batches_have_their_size_with_parallel_work_inside(digits_train):
    data = digits_train.training_batches(32, 3, 0, "imagenet")
    sizes = [len(labels) for _, labels in data.as_numpy_iterator()]
    assert sizes == [32] * (3 * (1437 // 32)) and len(sizes) == data.cardinality()


def test_a_subset_with_other_labels(data_dir):
    chosen, labels = np.array([3, 5, 1000, 1436]), np.array([7, 8, 9, 0])
    whole = load("digits", data_dir).train
    prints = set()
    for memory_limit in (0, 2**30):
        some = load("digits", data_dir, memory_limit=memory_limit).train.take(chosen)
        assert some.size == 4
        np.testing.assert_array_equal(some.labels, whole.labels[chosen])
        renamed = some.with_labels(labels)
        images, seen = next(renamed.evaluation_batches(10).as_numpy_iterator())
        np.testing.assert_array_equal(images, whole.images[chosen])
        np.testing.assert_array_equal(seen, labels)
        ((images, seen),) = renamed.training_batches(4, 1, 0, "none").as_numpy_iterator()
        told = {image.tobytes(): label for image, label in zip(whole.images[chosen], labels, strict=True)}
        assert [told[image.tobytes()] for image in images] == seen.tolist()
        np.testing.assert_array_equal(renamed.take(np.array([1, 3])).labels, [8, 0])
        prints |= {some.fingerprint(), renamed.fingerprint()}
    assert len(prints) == 4


def test_mixup_makes_labels_shares(digits_train):
    how = Recipe("crop", mixup=1.0, classes=10)
    images, shares = next(digits_train.training_batches(64, 1, 0, how).as_numpy_iterator())
    plain_images, labels = next(digits_train.training_batches(64, 1, 0, "crop").as_numpy_iterator())
    assert shares.shape == (64, 10) and shares.dtype == np.float32 and images.dtype == np.uint8
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    own = shares[np.arange(64), labels]
    assert (own > 0).all() and (own < 0.999).any() and (images != plain_images).any()


def test_cutout_is_painted_after_the_augmentation(digits_train):
    images, _ = next(digits_train.training_batches(64, 1, 0, Recipe(cutout=4)).as_numpy_iterator())
    grey = (images == 128).sum((1, 2, 3))
    assert grey.max() <= 16 + 8 and (grey >= 4).all()
