"""Several data sets of the same classes joined into one; each example keeps the number of its set."""

from collections.abc import Sequence

import numpy as np

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


def joined(splits: Sequence[InMemory]) -> InMemory:
    """Returns the splits one after another, images of one shape; domain d is the d-th split."""
    domains = np.repeat(np.arange(len(splits)), [split.size for split in splits])
    images = np.concatenate([split.images for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    return InMemory(images, labels, domains.astype(np.int64))


def common_shape(shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Returns the largest height, width and number of channels: grey joined with colour becomes colour."""
    height, width, channels = (max(lengths) for lengths in zip(*shapes, strict=True))
    return height, width, channels
