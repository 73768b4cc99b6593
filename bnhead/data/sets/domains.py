"""Several data sets of the same classes joined into one; each example keeps the number of its set."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from bnhead import seeds
from bnhead.data.corruptions import CORRUPTIONS
from bnhead.data.dataset import DataSet
from bnhead.data.memory import InMemory
from bnhead.errors import DataError


def same_classes(names: Sequence[str], classes: Sequence[tuple[str, ...]]) -> None:
    """Raises DataError unless all sets have the classes of the first, in its order.

    Args:
        names: names of the sets.
        classes: names of the classes of each set.
    """
    first_name, first_classes = names[0], classes[0]
    for name, set_classes in zip(names[1:], classes[1:], strict=True):
        if len(set_classes) != len(first_classes):
            raise DataError(
                f"domains must have the same classes: {first_name} has {len(first_classes)}, "
                f"{name} {len(set_classes)}"
            )
        for k, (expected, actual) in enumerate(zip(first_classes, set_classes, strict=True)):
            if expected != actual:
                raise DataError(
                    f"domains must have the same classes: class {k} is {expected!r} in {first_name}, "
                    f"{actual!r} in {name}"
                )


def require_memory(size: int, limit: int) -> None:
    """Raises DataError if the decoded pixels of all sets, in bytes, are more than the limit."""
    if size > limit:
        raise DataError(
            f"domains must fit in memory, {size / 2**20:.0f} MiB of {limit / 2**20:.0f}; "
            "set a smaller image_size (--image_size)"
        )


def joined(splits: Sequence[InMemory]) -> InMemory:
    """Returns the splits one after another, images of one shape; domain d is the d-th split."""
    domains = np.repeat(np.arange(len(splits)), [split.size for split in splits])
    images = np.concatenate([split.images for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    return InMemory(images, labels, domains.astype(np.int64))


def source_and_target(train: InMemory, test: InMemory) -> tuple[InMemory, InMemory, InMemory]:
    """Returns the source's train, the target's test, and the target's training images without their labels.

    Args:
        train, test: of two domains, joined: the source and the target. The labels of the target's training
            images become their numbers.
    """
    source, target = (train.take(np.flatnonzero(train.domains == domain)) for domain in (0, 1))
    return (
        source,
        test.take(np.flatnonzero(test.domains == 1)),
        target.with_labels(np.arange(target.size)),
    )


def with_change(
    splits: Sequence[InMemory], change: str, opened: Callable[[str], DataSet]
) -> tuple[InMemory, InMemory]:
    """Returns train and test of a set with a corruption (`blur:3`), or drawn on another set's pictures.

    Args:
        splits: train and test.
        change: the corruption, or the name of the other set, of which train is drawn on train, test on test;
            with "" nothing changes.
        opened: name -> data set.

    Raises:
        DataError: pictures of the other set are smaller.
    """
    if not change:
        return tuple(splits)
    if change.partition(":")[0] in CORRUPTIONS:
        return tuple(split.with_corruption(change) for split in splits)
    other = opened(change)
    pictures = (split.decoded().images for split in (other.train, other.test))
    return tuple(on_patches(split, backgrounds) for split, backgrounds in zip(splits, pictures, strict=True))


def on_patches(split: InMemory, pictures: np.ndarray) -> InMemory:
    """Returns the images as |patch - image|: each on a random patch of a random picture, always the same.

    MNIST-M is MNIST on photos of BSDS500 in this way (Ganin & Lempitsky 2015, arXiv 1409.7495, section 4).

    Args:
        split: images `(size, height, width, channels)`.
        pictures: `(number, height, width, channels)` uint8, at least as large.

    Raises:
        DataError: the pictures are smaller.
    """
    height, width, channels = split.images.shape[1:]
    if pictures.shape[1] < height or pictures.shape[2] < width or pictures.shape[3] not in (1, channels):
        shapes = (" x ".join(map(str, shape[1:])) for shape in (pictures.shape, split.images.shape))
        raise DataError("pictures of {} have no patches of {}".format(*shapes))
    random = np.random.default_rng(seeds.stream(0, "patches"))
    which = random.integers(0, len(pictures), split.size)
    tops = random.integers(0, pictures.shape[1] - height + 1, split.size)
    lefts = random.integers(0, pictures.shape[2] - width + 1, split.size)
    images = np.empty_like(split.images)
    for i, (picture, top, left) in enumerate(zip(which, tops, lefts, strict=True)):
        patch = pictures[picture, top : top + height, left : left + width].astype(np.int16)
        images[i] = np.abs(patch - split.images[i])
    return dataclasses.replace(split, images=images)


def common_shape(shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Returns the largest height, width and number of channels: grey joined with colour becomes colour."""
    height, width, channels = (max(lengths) for lengths in zip(*shapes, strict=True))
    return height, width, channels
