import numpy as np

from bnhead.data.memory import InMemory
from bnhead.data.split import Recipe
from tests.data.small_sets import epochs, numbered


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
    images, labels = epochs(split, 2, recipe="crop")
    np.testing.assert_array_equal(labels, epochs(split, 2)[1])
    assert (images != split.images[labels]).any()


def test_augmentation_differs_between_epochs_steps_and_images():
    same = InMemory(
        np.tile(np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1), (200, 1, 1, 1)), np.zeros(200, int)
    )
    images, _ = epochs(same, 2, recipe="crop")
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0, 0], images[0, 1])
    assert len({image.tobytes() for image in images[0, 0]}) == 9


def test_mixup_mixes_numbers():
    split = InMemory(numbered(64).images, np.linspace(-1, 1, 64, dtype=np.float32)[:, None])
    _, mixed = next(split.training_batches(64, 1, 0, Recipe(mixup=1.0)).as_numpy_iterator())
    _, plain = next(split.training_batches(64, 1, 0, "none").as_numpy_iterator())
    assert mixed.shape == (64, 1) and mixed.std() < plain.std()
    np.testing.assert_allclose(mixed.mean(), plain.mean(), atol=1e-6)


def test_fingerprint_covers_pixels_and_labels():
    one, two, three = numbered(), numbered(), numbered()
    assert one.fingerprint() == two.fingerprint()
    two.images[5, 0, 0, 0] += 1
    three.labels[5] += 1
    assert len({one.fingerprint(), two.fingerprint(), three.fingerprint()}) == 3


def test_the_order_of_an_epoch_is_that_of_its_batches():
    split = InMemory(np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1), np.arange(50))
    for epoch in (0, 3):
        batches = split.training_batches(10, 1, 7, "none", epoch)
        seen = np.concatenate([labels for _, labels in batches.as_numpy_iterator()])
        np.testing.assert_array_equal(split.order(7, epoch), seen)
    assert (split.order(7, 0) != split.order(8, 0)).any()
