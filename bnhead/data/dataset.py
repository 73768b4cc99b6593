"""A data set that is ready to be read."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bnhead.data.split import Split
from bnhead.errors import DataError

_PICTURE_WORDS = ("picture", "image", "jpeg", "png", "gif", "webp", "bmp")


@dataclass(frozen=True)
class DataSet:
    """A data set with its splits.

    Attributes:
        name: TFDS' full name with version, such as `digits/1.0.0`.
        shape: `(height, width, channels)` of every image.
        classes: names of the classes; label k is class k. Empty if labels are numbers.
        outputs: number of classes, or of numbers to predict.
        train: the split to train on.
        test: the split to evaluate on; no choice may depend on it.
        validation: the part of the training split reserved for choices; None without one.
        domains: names of the joined sets; empty for a single set.
        target: training images of the second of two domains, whose labels are their indices: only the labels
            of its test are used; None unless it is a target.
        notes: warnings from opening it, such as skipped files.
        split_rule: how a set that has no test split was divided; empty for a set that has one.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    outputs: int
    train: Split
    test: Split
    validation: Split | None = None
    domains: tuple[str, ...] = ()
    target: Split | None = None
    notes: tuple[str, ...] = ()
    split_rule: str = ""

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: train, validation if there is one, test."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    def class_counts(self, split: Split | None = None) -> list[int]:
        """Examples of each class in a split, the training split by default."""
        labels = (split or self.train).labels
        return np.bincount(labels, minlength=len(self.classes)).tolist()

    def target_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each training target, `(outputs,)` float64.

        Raises:
            DataError: a target is the same for all images.
        """
        targets = np.asarray(self.train.labels, np.float64)
        for target, deviation in zip(targets[0], targets.std(0), strict=True):
            if not deviation > 0:
                raise DataError(f"{self.name}: all training targets are {target:g}, nothing to predict")
        return targets.mean(0), targets.std(0)

    @contextlib.contextmanager
    def naming_pictures(self) -> Iterator[None]:
        """Turns an error from an unreadable picture into a DataError that names the picture."""
        try:
            yield
        except tf.errors.OpError as error:
            # A training step raises errors of these types too; those of a file mention a picture.
            if isinstance(error, tf.errors.InvalidArgumentError):
                from_file = any(word in str(error).lower() for word in _PICTURE_WORDS)
            else:
                from_file = not isinstance(error, tf.errors.ResourceExhaustedError)
            for split in self.splits.values() if from_file else ():
                if message := split.unreadable():
                    raise DataError(message) from error
            raise
