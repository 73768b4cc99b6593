"""Several data sets of the same classes as one, each example knowing which it is from."""

from collections.abc import Sequence

import numpy as np

from bnhead.data.pipelines import InMemory
from bnhead.errors import DataError


def same_classes(names: Sequence[str], classes: Sequence[tuple[str, ...]]) -> None:
    """Raises DataError unless all sets have the classes of the first, in its order.

    Args:
        names: the sets' names.
        classes: the names of each set's classes.
    """
    for name, own in zip(names[1:], classes[1:], strict=True):
        if len(own) != len(classes[0]):
            raise DataError(
                f"domains must have the same classes: {names[0]} has {len(classes[0])}, {name} {len(own)}"
            )
        for k, (one, other) in enumerate(zip(classes[0], own, strict=True)):
            if one != other:
                raise DataError(
                    f"domains must have the same classes: class {k} is {one!r} in {names[0]}, "
                    f"{other!r} in {name}"
                )


def joined(splits: Sequence[InMemory]) -> InMemory:
    """One split after the other, images of one shape; domain d is the d-th split."""
    domains = np.repeat(np.arange(len(splits)), [split.size for split in splits])
    images, labels = (
        np.concatenate([getattr(split, name) for split in splits]) for name in ("images", "labels")
    )
    return InMemory(images, labels, domains.astype(np.int64))


def common_shape(shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """The largest height, width and number of channels: what is grey beside colour becomes colour."""
    height, width, channels = (max(lengths) for lengths in zip(*shapes, strict=True))
    return height, width, channels
