import numpy as np
import pytest

from bnhead.data import load
from bnhead.data.pipelines import InMemory

BATCH = 100


def numbered(size=1050):
    """A split in which an image's pixels tell its index."""
    index = np.arange(size)
    images = np.stack([index // 256, index % 256], -1).astype(np.uint8).reshape(size, 1, 1, 2)
    return InMemory(np.broadcast_to(images, (size, 8, 8, 2)).copy(), index)


def epochs(split, count, seed=0, kind="none", batch=BATCH):
    """Images and labels, `(epochs, steps, batch, ...)`."""
    data = split.training_batches(batch, count, seed, kind)
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    steps = split.size // batch
    assert len(labels) == count * steps == data.cardinality()
    assert {len(b) for b in labels} == {batch}
    return np.reshape(images, (count, steps, batch, *images[0].shape[1:])), np.reshape(
        labels, (count, steps, batch)
    )


@pytest.fixture(scope="module", params=["in memory", "streamed"])
def digits_train(request, data_dir):
    return load("digits", data_dir, memory_limit=0 if request.param == "streamed" else 2**30).train


def test_images_stay_with_their_labels():
    images, labels = epochs(numbered(), 2)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0, 0, 0].astype(int) * 256 + images[..., 0, 0, 1], labels)


def test_an_epoch_takes_no_example_twice_and_leaves_another_rest_each_time():
    _, labels = epochs(numbered(), 3)
    taken = [set(epoch.ravel()) for epoch in labels]
    assert [len(t) for t in taken] == [1000] * 3
    assert taken[0] != taken[1] != taken[2]


def test_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    three, five = epochs(numbered(), 3)[1], epochs(numbered(), 5)[1]
    np.testing.assert_array_equal(three, five[:3])
    assert not np.array_equal(three[0], three[1])
    assert not np.array_equal(three, epochs(numbered(), 3, seed=1)[1])


def test_augmentation_does_not_change_the_order():
    split = numbered()
    images, labels = epochs(split, 2, kind="crop")
    np.testing.assert_array_equal(labels, epochs(split, 2)[1])
    assert (images != split.images[labels]).any()


def test_augmentation_differs_between_epochs_steps_and_images():
    same = InMemory(
        np.tile(np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1), (200, 1, 1, 1)), np.zeros(200, int)
    )
    images, _ = epochs(same, 2, kind="crop")
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0, 0], images[0, 1])
    assert len({image.tobytes() for image in images[0, 0]}) == 9


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


def test_fingerprint_covers_pixels_and_labels():
    one, two, three = numbered(), numbered(), numbered()
    assert one.fingerprint() == two.fingerprint()
    two.images[5, 0, 0, 0] += 1
    three.labels[5] += 1
    assert len({one.fingerprint(), two.fingerprint(), three.fingerprint()}) == 3
